"""From token states to one vector."""

import torch

from raysberta.models.settings import Pooling


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """Pool hidden states [B, T, H] under a mask [B, T] of 0 and 1 to [B, H], in the dtype of the states, not normalised.

    `mean` averages over the unmasked tokens, `cls` takes the first token, `last` the last unmasked one (padding is on the right).
    """
    if how == "cls":
        return hidden[:, 0]
    if how == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1).long().clamp(min=1) - 1]
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
