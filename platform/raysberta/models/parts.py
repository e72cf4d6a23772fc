"""What the states of a model's first transformer may go through before they are pooled, and its vectors after.

Parts of states take and give states [B, T, H] and their mask [B, T] of 0 and 1, wherever the padding is. A part may lengthen a text.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from raysberta.errors import InputError

ACTIVATIONS: Mapping[str, type[nn.Module]] = {name: getattr(nn, name) for name in ("Identity", "Tanh", "ReLU", "GELU", "SiLU")}
"""What a dense layer may end with."""


class Connector(nn.Module):
    """From an encoder's states to what a decoder reads in place of embeddings: two layers, and trained tokens after each text.

    LUSIFER's (arXiv 2501.00874): [W2 relu(W1 states); t]. Its code puts the token behind the padding, so that its position depends on the
    longest text of a batch; here it follows the text itself.
    """

    def __init__(self, input: int, hidden: int, output: int, tokens: int = 1) -> None:
        """Random weights.

        Args:
            input: Width of the encoder's states.
            hidden: Width between the two layers.
            output: Width of the decoder's states.
            tokens: How many trained tokens follow each text.
        """
        super().__init__()
        self.config = {"input": input, "hidden": hidden, "output": output, "tokens": tokens}
        self.width = output
        self.first = nn.Linear(input, hidden)
        self.second = nn.Linear(hidden, output)
        self.added = nn.Parameter(torch.randn(tokens, output))

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, T + tokens, output] and their mask."""
        return appended(self.second(F.relu(self.first(states))), mask, self.added)


class Decoder(nn.Module):
    """A decoder that reads states in place of embeddings. Positions count what is no padding."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Over a decoder without a language-model head."""
        super().__init__()
        self.model = model
        self.width: int = model.config.hidden_size

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Its last states, under the same mask."""
        found = self.model(inputs_embeds=states, attention_mask=mask, position_ids=positions_of(mask), use_cache=False)
        return found.last_hidden_state, mask


class LatentAttention(nn.Module):
    """Each state attends to trained latents, then goes through a gated layer, both beside itself (NV-Embed, arXiv 2405.17428).

    As in its published code: norms before either block, learned keys and values, no mask, for no state sees another.
    """

    def __init__(self, width: int, latents: int = 512, heads: int = 8, head_width: int = 4096, factor: int = 4) -> None:
        """Random weights.

        Args:
            width: Of the states, and of the latents.
            latents: How many there are.
            heads: Of the attention.
            head_width: Of each head.
            factor: Width of the gated layer is so many times the states'.
        """
        super().__init__()
        self.config = {"width": width, "latents": latents, "heads": heads, "head_width": head_width, "factor": factor}
        self.width, self.heads = width, heads
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.norm, self.latent_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        inner = heads * head_width
        self.queries = nn.Linear(width, inner, bias=False)
        self.keys_values = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.up = nn.Linear(width, 2 * factor * width)
        self.down = nn.Linear(factor * width, width)

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States of the same shape, under the same mask."""
        query = self.queries(self.norm(states)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        both = self.keys_values(self.latent_norm(self.latents)).chunk(2, dim=-1)
        key, value = (part.unflatten(-1, (self.heads, -1)).transpose(0, 1).expand(len(states), -1, -1, -1) for part in both)
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        states = self.out(found) + states
        wide, gate = self.up(self.second_norm(states)).chunk(2, dim=-1)
        return self.down(wide * F.gelu(gate)) + states, mask


class Dense(nn.Module):
    """A linear layer over vectors and what it ends with, as sentence-transformers has it."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, activation: str = "Identity") -> None:
        """Random weights.

        Args:
            in_features: Width of the vectors that it takes.
            out_features: Width of those that it gives.
            bias: Whether one is added.
            activation: One of ACTIVATIONS.
        """
        super().__init__()
        kind = ACTIVATIONS[activation]
        named = {"activation_function": f"{kind.__module__}.{kind.__qualname__}"}
        self.config = {"in_features": in_features, "out_features": out_features, "bias": bias, **named}
        self.width = out_features
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = kind()

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors [B, out_features] of vectors [B, in_features]."""
        found: Tensor = self.activation(self.linear(vectors))
        return found


def dense_of(config: Mapping[str, Any], place: str) -> Dense:
    """The dense layer of a configuration that sentence-transformers wrote.

    Raises:
        InputError: it asks for what this project has not.
    """
    activation = str(config.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    if (
        activation not in ACTIVATIONS
        or config.get("use_residual")
        or config.get("module_input_name", "sentence_embedding") != "sentence_embedding"
    ):
        raise InputError(f"{place}: a dense layer that is not read; there are those of vectors that end with {', '.join(ACTIVATIONS)}")
    return Dense(config["in_features"], config["out_features"], config.get("bias", True), activation)


def appended(states: Tensor, mask: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """States [B, T, H] with tokens [n, H] after the last of each text, and the mask of that: [B, T + n, H] and [B, T + n]."""
    new = len(added)
    if not new:
        return states, mask
    place = torch.arange(mask.shape[1] + new, device=mask.device) - ends(mask)[:, None]
    inserted = (place >= 0) & (place < new)
    tokens = added.to(states.dtype)[place.clamp(0, new - 1)]
    return torch.where(inserted[..., None], tokens, F.pad(states, (0, 0, 0, new))), F.pad(mask, (0, new)).masked_fill(inserted, 1)


def ends(mask: Tensor) -> Tensor:
    """int64 [B]: the place after the last token of each text."""
    return mask.shape[1] - mask.flip(1).argmax(1)


def positions_of(mask: Tensor) -> Tensor:
    """int64 [B, T]: how many tokens stand before each; 0 where there is padding in front."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)
