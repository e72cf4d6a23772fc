"""An encoder's arithmetic arranged for a processor, for inference in bf16: the same products, and less around them.

- Weights lie in oneDNN's blocks from the start; `torch.nn.Linear` brings them there anew in every call.
- Attention goes by plain products and one exponential. On texts of some 40 tokens the fused kernel and the softmax take as long for
  what is left of a row after whole vectors of 32 as for the rest (docs/performance.md).
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "raysberta_processor"
FAMILIES = ("bert", "roberta", "xlm-roberta")
"""Model types whose attention is nothing but softmax(scores) values, with padding as its only mask."""
LARGEST = 75.0
"""Scores up to it, either way, have exponentials whose sums and products are far from either end of bf16."""


def arranged(model: PreTrainedModel, tokens: int) -> None:
    """Arrange a bf16 model in place, on a processor that has bf16; it can then only be run.

    Args:
        model: In bf16, on the CPU.
        tokens: Usual tokens of a batch, for which the weights are laid out.
    """
    if model.config.model_type in FAMILIES:
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, _Blocked(child, tokens))


class _Blocked(nn.Module):
    """A linear layer whose weight lies in oneDNN's blocks. Gives the bits that the layer gave."""

    def __init__(self, layer: nn.Linear, tokens: int) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), tokens)
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        return found


def attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float, **_: Any
) -> tuple[torch.Tensor, None]:
    """softmax(query key' scaling) value, as transformers asks for it.

    Args:
        module: The layer that asks.
        query: [B, heads, T, D].
        key: [B, heads, T, D].
        value: [B, heads, T, D].
        mask: bool, to [B, 1, T, T]: what is seen; all where None.
        scaling: Of the scores.

    Returns:
        [B, T, heads, D], and no weights.
    """
    scores = (query * scaling) @ key.transpose(2, 3)
    least, most = torch.aminmax(scores)
    if float(least) > -LARGEST and float(most) < LARGEST:
        weights = scores.exp_()
        if mask is not None:
            weights.mul_(mask)
        weighed = (weights @ value) / weights.sum(-1, keepdim=True)
    else:
        seen = scores if mask is None else scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        weighed = seen.softmax(-1) @ value
    return weighed.transpose(1, 2).contiguous(), None
