"""Attention over texts laid end to end in one row: no padding is computed, and no text sees another.

One function under transformers' attention interface. On a GPU it calls the operators that torch itself calls for texts of unequal
length: FlashAttention in half precision, the memory-efficient kernel in float32. They are called by name because what torch has in
front of them knows no dropout (`torch.nn.attention.varlen`) or cannot be recomputed everywhere (nested tensors). On the CPU texts of
one length, which stand side by side in a chunk, are attended together: that takes a pass a length, and pays where much is padding.
"""

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from raysberta.training.chunks import Chunk

PACKED = "packed"
HALF = (torch.float16, torch.bfloat16)
FIRST_POSITION = {"bert": 0, "roberta": 1, "xlm-roberta": 1, "camembert": 1, "modernbert": 0}
"""The model types whose attention is known to be of this form, and how far after the padding id (or 0) their positions begin."""
MOST_TOKENS = 0.6
"""Of a padded chunk's places: up to so many are laid end to end on the CPU (docs/performance.md)."""


def packs(encoder: PreTrainedModel, precision: str) -> bool:
    """Whether an encoder can read texts laid end to end: where it is known how to, and a GPU has FlashAttention (Ampere and later)."""
    device = next(encoder.parameters()).device
    if encoder.config.model_type not in FIRST_POSITION:
        return False
    if device.type == "cpu":
        return True
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    heads: int = encoder.config.num_attention_heads
    windows = encoder.config.model_type == "modernbert"  # which the float32 kernel has only for causal attention
    return encoder.config.hidden_size // heads % 8 == 0 and not (windows and precision == "fp32")


def pays(chunk: Chunk) -> bool:
    """Whether to lay a chunk's tokens end to end, where that can be done: on a GPU always."""
    return chunk.tokens.device.type != "cpu" or chunk.places.numel() <= MOST_TOKENS * chunk.tokens.numel()


def arguments_of(encoder: PreTrainedModel, places: torch.Tensor, starts: torch.Tensor, width: int) -> dict[str, Any]:
    """What a packed encoder's forward takes beside the embeddings.

    Args:
        encoder: Of a type in FIRST_POSITION, with its attention set to PACKED.
        places: int64 [tokens]: where each token is in the padded [texts * width] layout.
        starts: int32 [texts + 1]: where each text begins among the tokens, and the number of all.
        width: Length of the longest text.
    """
    config = encoder.config
    first = config.pad_token_id + 1 if FIRST_POSITION[config.model_type] else 0
    lengths = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": width, "max_length_k": width}
    # ModernBERT would make a mask of tokens by tokens for its windows; none is needed
    mask = {"attention_mask": dict.fromkeys(set(config.layer_types))} if hasattr(config, "layer_types") else {}
    return {"position_ids": (places % width + first)[None], **lengths, **mask}


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    dropout: float = 0.0,
    scale: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Attention of each text's tokens to that text's tokens.

    Args:
        query: [tokens, heads, D]; of all texts, end to end.
        key: The same shape.
        value: The same shape.
        starts: int32 [texts + 1]: where each text begins, and the number of all tokens.
        longest: Length of the longest text.
        dropout: Probability, on the attention weights.
        scale: Of the products; 1 / sqrt(D) where None.
        window: How far a token sees to either side; all of its text where None.

    Returns:
        [tokens, heads, D], in the dtype of `value`.
    """
    if query.device.type == "cpu":
        return _by_length(query, key, value, starts=starts, dropout=dropout, scale=scale, window=window)
    aten, side = torch.ops.aten, -1 if window is None else window
    if query.dtype in HALF:
        more = {"is_causal": False, "return_debug_mask": False, "scale": scale, "window_size_left": side, "window_size_right": side}
        return aten._flash_attention_forward(query, key, value, starts, starts, longest, longest, dropout, **more)[0]
    assert window is None, "packs() lets no windows through in float32"
    more = {"bias": None, "custom_mask_type": 0, "compute_log_sumexp": torch.is_grad_enabled(), "scale": scale}
    texts = {"cu_seqlens_q": starts, "cu_seqlens_k": starts, "max_seqlen_q": longest, "max_seqlen_k": longest}
    return aten._efficient_attention_forward(query[None], key[None], value[None], dropout_p=dropout, **texts, **more)[0][0]


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    dropout: float,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    runs = [(length, len(list(texts))) for length, texts in groupby(starts.diff().tolist())]
    sizes = [length * texts for length, texts in runs]
    found = []
    for (length, texts), *parts in zip(runs, *(whole.split(sizes) for whole in (query, key, value)), strict=True):
        there = torch.arange(length)
        near = None if window is None else (there[:, None] - there).abs() <= window
        q, k, v = (part.unflatten(0, (texts, length)).transpose(1, 2) for part in parts)
        found.append(_plain(q, k, v, near, dropout, scale).transpose(1, 2).flatten(0, 1))
    return torch.cat(found)


def _plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None, dropout: float, scale: float | None
) -> torch.Tensor:
    """[texts, heads, T, D]; its backward pass is faster on a processor than the fused one's."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if seen is not None:
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return F.dropout(scores.softmax(-1), dropout).to(value.dtype) @ value


def _forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it, [texts, heads, T, D] to [texts, T, heads, D]; texts that are not laid end to end are attended as ever."""
    if cu_seq_lens_q is None and query.device.type == "cpu":
        return _plain(query, key, value, attention_mask, dropout, scaling).transpose(1, 2).contiguous(), None
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **more)
    query, key, value = (whole[0].transpose(0, 1) for whole in (query, key, value))
    window = None if sliding_window is None else sliding_window - 1  # transformers counts the token itself
    return attend(query, key, value, cu_seq_lens_q, max_length_q, dropout, scaling, window)[None], None


AttentionInterface.register(PACKED, _forward)
AttentionMaskInterface.register(PACKED, sdpa_mask)
