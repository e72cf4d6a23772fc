"""One forward over all chunks of a step, so that there is one backward and one gradient reduction a step.

With `recompute`, each chunk goes through `torch.utils.checkpoint`: only its embeddings are kept, and the backward pass encodes
it again with the random state of the first time. That is GradCache (arXiv 2101.06983) with exact gradients, dropout included,
without the two separate passes that make gradient reduction fire twice. Chunks within `kept_tokens` keep their activations, as far
as memory allows: they are encoded once. Without `recompute` all are.

With `recompute_layers`, the layers of a chunk are such segments themselves: what is kept of a chunk are the states between its layers. With
both, a chunk that is encoded again keeps those and no more, so a chunk may be large where memory is not.

Each chunk casts the weights for itself, so gradients are summed over the chunks in float32 even under bf16 autocast.

A chunk is a padded matrix. Where it pays the encoder reads only its tokens, laid end to end (attention.py); what comes back is the same
matrix of states, 0 where there is padding, so that nothing else knows of it. What the states of a model of several parts go through then
(models/model.py), a decoder or a dense layer, belongs to the chunk as well: it is recomputed with it.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from raysberta.errors import InputError
from raysberta.models.arithmetic import has_bf16
from raysberta.models.model import Model
from raysberta.training.attention import PACKED, arguments_of, packs, pays
from raysberta.training.chunks import Chunk, Chunks
from raysberta.training.settings import Training

Precision = Literal["bf16", "fp32"]


class ChunkedEncoder(nn.Module):
    """A model, of one part or several, that takes the chunks of a step."""

    def __init__(
        self,
        model: Model,
        precision: Precision,
        recompute: bool,
        kept_tokens: int = 0,
        packed: bool | None = None,
        recompute_layers: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            model: On the device where it will be trained.
            precision: Of its arithmetic: bf16 where the device has it, else float32.
            recompute: Forget activations until the backward pass.
            kept_tokens: So many tokens' activations are kept nonetheless.
            packed: Lay a chunk's tokens end to end, without padding; where that can be done and pays if None.
            recompute_layers: Keep of each layer what goes into it, and forget the rest until its backward pass.

        Raises:
            InputError: layers are to be recomputed, and a transformer's cannot be.
        """
        super().__init__()
        device = next(model.parameters()).device
        self.precision: Precision = precision if has_bf16(device) else "fp32"
        self.packed = packed
        self.packs = packs(model.encoder, self.precision) if packed is None else packed
        for transformer in model.transformers():
            if device.type == "cpu":
                transformer.set_attn_implementation("eager")
            if recompute_layers and not transformer.supports_gradient_checkpointing:
                kind = transformer.config.model_type
                raise InputError(f"recompute_layers: the layers of {kind} cannot be; right would be recompute: true alone")
            if recompute_layers:
                transformer.gradient_checkpointing_enable({"use_reentrant": False})
        if self.packs:
            model.encoder.set_attn_implementation(PACKED)
        self.model = model
        self.recompute = recompute
        self.kept_tokens = kept_tokens

    def rows(self, chunks: Chunks) -> torch.Tensor:
        """The embedding table's rows that this step needs, [distinct, H]: looked up once, differentiable."""
        return self.model.encoder.get_input_embeddings()(chunks.vocabulary)

    def cast(self, device: torch.device) -> torch.autocast:
        """Within it arithmetic is of the precision asked for."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def hidden(self, rows: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        """Last states [texts, width, H] that the transformer which reads tokens has of a chunk, float32 (or wider)."""
        with self.cast(rows.device):
            if self.packs and (self.packed or pays(chunk)):
                states = self._without_padding(rows, chunk)
            else:
                embedded = F.embedding(chunk.tokens, rows)
                states = self.model.encoder(inputs_embeds=embedded, attention_mask=chunk.mask).last_hidden_state
        return states.to(torch.promote_types(states.dtype, torch.float32))

    def _without_padding(self, rows: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        texts, width = chunk.tokens.shape
        embedded = F.embedding(chunk.tokens.flatten()[chunk.places], rows)
        more = arguments_of(self.model.encoder, chunk.places, chunk.starts, width)
        states = self.model.encoder(inputs_embeds=embedded[None], **more).last_hidden_state[0]
        return states.new_zeros(texts * width, states.shape[1]).index_copy(0, chunk.places, states).view(texts, width, -1)

    def embed(self, chunks: Chunks) -> torch.Tensor:
        """L2-normalised vectors [texts, D] in the order the texts were given."""
        rows = self.rows(chunks)
        found = [self.run(self._vectors, rows, chunk, keep=keep) for chunk, keep in zip(chunks.chunks, self.kept(chunks), strict=True)]
        return F.normalize(torch.cat(found)[chunks.order], dim=-1)

    def _vectors(self, rows: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        states = self.hidden(rows, chunk)
        with self.cast(rows.device):
            return self.model.vectors(states, chunk.mask, chunk.prompts)

    def kept(self, chunks: Chunks) -> list[bool]:
        """Which chunks keep their activations although `recompute` is set: the last ones, whose backward pass comes first."""
        sizes = [chunk.tokens.numel() for chunk in chunks.chunks]
        return [sum(sizes[place:]) <= self.kept_tokens for place in range(len(sizes))]

    def run(self, part: Callable[..., torch.Tensor], *arguments: Any, keep: bool = False) -> torch.Tensor:
        """Call `part`, and where `recompute` is set forget its activations until the backward pass, unless they are to be kept."""
        if self.recompute and not keep and torch.is_grad_enabled():
            return checkpoint(part, *arguments, use_reentrant=False, preserve_rng_state=True)
        return part(*arguments)


def chunked_encoder(model: Model, settings: Training) -> ChunkedEncoder:
    """A model on the device where it will be trained, as the settings have it.

    Raises:
        InputError: see ChunkedEncoder.
    """
    kept, layers = settings.kept_tokens, settings.recompute_layers
    return ChunkedEncoder(model, settings.precision, settings.recompute, kept_tokens=kept, recompute_layers=layers)
