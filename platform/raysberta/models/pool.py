"""From token states to one vector."""

import torch

from raysberta.models.parts import ends
from raysberta.models.settings import Pooling


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """Pool hidden states [B, T, H] under a mask [B, T] of 0 and 1 to [B, H], in the dtype of the states, not normalised.

    `mean` averages over the unmasked tokens, `cls` takes the first of them, `last` the last; padding may be on either side.
    """
    if how != "mean":
        places = mask.argmax(1) if how == "cls" else ends(mask) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), places]
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
