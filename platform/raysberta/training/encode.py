"""One forward over all chunks of a step, so that there is one backward and one gradient reduction a step.

With `recompute`, each chunk goes through `torch.utils.checkpoint`: only its embeddings are kept, and the backward pass encodes
it again with the random state of the first time. That is GradCache (arXiv 2101.06983) with exact gradients, dropout included,
without the two separate passes that make gradient reduction fire twice. Chunks within `kept_tokens` keep their activations, as far
as memory allows: they are encoded once. Without `recompute` all are.

With `recompute_layers`, the layers of a chunk are such segments themselves: what is kept of a chunk are the states between its layers. With
both, a chunk that is encoded again keeps those and no more, so a chunk may be large where memory is not.

Each chunk casts the weights for itself, so gradients are summed over the chunks in float32 even under bf16 autocast.

A chunk is a padded matrix. Where it pays the encoder reads only its tokens, laid end to end (attention.py); what comes back is the same
matrix of states, 0 where there is padding, so that nothing else knows of it.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from raysberta.errors import InputError
from raysberta.models.arithmetic import has_bf16
from raysberta.models.pool import pool
from raysberta.models.settings import Pooling
from raysberta.training.attention import PACKED, arguments_of, packs, pays
from raysberta.training.chunks import Chunk, Chunks
from raysberta.training.settings import Training

Precision = Literal["bf16", "fp32"]


class ChunkedEncoder(nn.Module):
    """A Hugging Face encoder that takes the chunks of a step."""

    def __init__(
        self,
        encoder: PreTrainedModel,
        precision: Precision,
        recompute: bool,
        kept_tokens: int = 0,
        packed: bool | None = None,
        recompute_layers: bool = False,
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: On the device where it will be trained.
            precision: Of its arithmetic: bf16 where the device has it, else float32.
            recompute: Forget activations until the backward pass.
            kept_tokens: So many tokens' activations are kept nonetheless.
            packed: Lay a chunk's tokens end to end, without padding; where that can be done and pays if None.
            recompute_layers: Keep of each layer what goes into it, and forget the rest until its backward pass.

        Raises:
            InputError: layers are to be recomputed, and the encoder's cannot be.
        """
        super().__init__()
        device = next(encoder.parameters()).device
        self.precision: Precision = precision if has_bf16(device) else "fp32"
        self.packed = packed
        self.packs = packs(encoder, self.precision) if packed is None else packed
        if self.packs:
            encoder.set_attn_implementation(PACKED)
        elif device.type == "cpu":
            encoder.set_attn_implementation("eager")
        if recompute_layers and not encoder.supports_gradient_checkpointing:
            raise InputError(f"recompute_layers: the layers of {encoder.config.model_type} cannot be; right would be recompute: true alone")
        if recompute_layers:
            encoder.gradient_checkpointing_enable({"use_reentrant": False})
        self.encoder = encoder
        self.recompute = recompute
        self.kept_tokens = kept_tokens

    def rows(self, chunks: Chunks) -> torch.Tensor:
        """The embedding table's rows that this step needs, [distinct, H]: looked up once, differentiable."""
        return self.encoder.get_input_embeddings()(chunks.vocabulary)

    def hidden(self, rows: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        """Last hidden states [texts, width, H] of a chunk, float32 (or wider)."""
        with torch.autocast(rows.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            if self.packs and (self.packed or pays(chunk)):
                states = self._without_padding(rows, chunk)
            else:
                states = self.encoder(inputs_embeds=F.embedding(chunk.tokens, rows), attention_mask=chunk.mask).last_hidden_state
        return states.to(torch.promote_types(states.dtype, torch.float32))

    def _without_padding(self, rows: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        texts, width = chunk.tokens.shape
        embedded = F.embedding(chunk.tokens.flatten()[chunk.places], rows)
        more = arguments_of(self.encoder, chunk.places, chunk.starts, width)
        states = self.encoder(inputs_embeds=embedded[None], **more).last_hidden_state[0]
        return states.new_zeros(texts * width, states.shape[1]).index_copy(0, chunk.places, states).view(texts, width, -1)

    def embed(self, chunks: Chunks, pooling: Pooling) -> torch.Tensor:
        """L2-normalised embeddings [texts, H] in the order the texts were given."""
        rows = self.rows(chunks)

        def pooled(rows: torch.Tensor, chunk: Chunk) -> torch.Tensor:
            return pool(self.hidden(rows, chunk), chunk.mask, pooling)

        found = [self.run(pooled, rows, chunk, keep=keep) for chunk, keep in zip(chunks.chunks, self.kept(chunks), strict=True)]
        return F.normalize(torch.cat(found)[chunks.order], dim=-1)

    def kept(self, chunks: Chunks) -> list[bool]:
        """Which chunks keep their activations although `recompute` is set: the last ones, whose backward pass comes first."""
        sizes = [chunk.tokens.numel() for chunk in chunks.chunks]
        return [sum(sizes[place:]) <= self.kept_tokens for place in range(len(sizes))]

    def run(self, part: Callable[..., torch.Tensor], *arguments: Any, keep: bool = False) -> torch.Tensor:
        """Call `part`, and where `recompute` is set forget its activations until the backward pass, unless they are to be kept."""
        if self.recompute and not keep and torch.is_grad_enabled():
            return checkpoint(part, *arguments, use_reentrant=False, preserve_rng_state=True)
        return part(*arguments)


def chunked_encoder(encoder: PreTrainedModel, settings: Training) -> ChunkedEncoder:
    """An encoder on the device where it will be trained, as the settings have it.

    Raises:
        InputError: see ChunkedEncoder.
    """
    how = {"kept_tokens": settings.kept_tokens, "recompute_layers": settings.recompute_layers}
    return ChunkedEncoder(encoder, settings.precision, settings.recompute, **how)


def trainable(encoder: PreTrainedModel, settings: Training) -> PreTrainedModel:
    """The same encoder, its embeddings of pieces left out of training where the settings say so."""
    encoder.get_input_embeddings().weight.requires_grad_(not settings.freeze_embeddings)
    return encoder
