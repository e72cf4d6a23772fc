"""RetroMAE's decoder: one layer that reconstructs a text from its vector and few of its tokens (Xiao et al. 2022, arXiv 2205.12035).

This is the paper's enhanced decoding, whose two streams are, for a text's vector h, its tokens' embeddings e and the positions' p:
queries H1 = [h + p_0, h + p_1, ...]; keys and values H2 = [h, e_1 + p_1, ...], of the unmasked tokens, h in the place of the first.
Each position sees h and a sample of the others of its own (`masks.visible`), never itself, so every token can be predicted. A layer so
weak cannot do it without what h says of the text.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from raysberta.errors import InputError

MODELS = ("bert", "roberta", "xlm-roberta")
SPREAD = 0.02


class Decoder(nn.Module):
    """One transformer layer, BERT's but for keys and values that come from elsewhere than the queries."""

    def __init__(self, hidden: int, heads: int, inner: int, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.mix = (nn.Linear(hidden, hidden) for _ in range(4))
        self.widen, self.narrow = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.mixed_norm, self.norm = nn.LayerNorm(hidden, norm_eps), nn.LayerNorm(hidden, norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: torch.Tensor, tokens: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """States [texts, width, H] that the head turns into tokens.

        Args:
            vectors: [texts, H]: h.
            tokens: [texts, width, H]: e + p.
            positions: [width, H]: p.
            visible: bool [texts, width, width]: which positions (the last axis) each one sees; at least one, also where there is padding.
        """
        queries = vectors[:, None] + positions
        context = torch.cat([vectors[:, None], tokens[:, 1:]], 1)
        query, key, value = (
            project(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project, states in ((self.query, queries), (self.key, context), (self.value, context))
        )
        mixed = F.scaled_dot_product_attention(query, key, value, visible[:, None], self.dropout.p if self.training else 0.0)
        states = self.mixed_norm(queries + self.dropout(self.mix(mixed.transpose(1, 2).flatten(2))))
        return self.norm(states + self.dropout(self.narrow(F.gelu(self.widen(states)))))


def fresh_decoder(encoder: PreTrainedModel, seed: int) -> Decoder:
    """A decoder as wide as the encoder's layers, with its dropout: matrices N(0, 0.02), biases 0.

    Raises:
        InputError: the encoder is of a kind without a table of positions to share.
    """
    config = encoder.config
    if config.model_type not in MODELS:
        raise InputError(f"retromae: needs an encoder with embedded positions ({', '.join(MODELS)}), and this one is {config.model_type}")
    decoder = Decoder(
        config.hidden_size, config.num_attention_heads, config.intermediate_size, config.hidden_dropout_prob, config.layer_norm_eps
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=SPREAD, generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return decoder


def embedded(encoder: PreTrainedModel, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [texts, width, H], looked up already, as the encoder's first layer gets them, and the positions alone [width, H]."""
    layer = cast(nn.Module, encoder.embeddings)
    table = cast(nn.Embedding, layer.position_embeddings)
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    places = torch.arange(first, first + rows.shape[1], device=rows.device)
    return layer(inputs_embeds=rows), table(places)
