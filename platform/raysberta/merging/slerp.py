"""Spherical interpolation of two tensors, as the reference recipe's merges do it (gist dvschultz/3af50c40df002da3b751efab1daddf2c).

A tensor counts as one flat vector, whatever its shape. The angle is taken between the normalised vectors, the result is built from
the vectors as they are. Nearly parallel or antiparallel vectors, |cos| > 0.9995, are interpolated linearly; a zero vector is at a
right angle to everything.
"""

import math

import torch
from torch import Tensor

THRESHOLD = 0.9995
EPSILON = 1e-8


def slerp(newer: Tensor, older: Tensor, weight: float, threshold: float = THRESHOLD) -> tuple[Tensor, float]:
    """Interpolate from `newer` (weight 0) to `older` (weight 1).

    Args:
        newer: Floating-point tensor of any shape.
        older: One of the same shape.
        weight: Of the older, 0 to 1.
        threshold: |cos| above which the interpolation is linear.

    Returns:
        The tensor, in shape and dtype of `newer` (computed in float32, float64 where an input has it), and the cosine of the two.
    """
    exact = torch.float64 if torch.float64 in (newer.dtype, older.dtype) else torch.float32
    first, second = newer.detach().to(exact), older.detach().to(exact)
    cosine = cosine_of(first, second)
    if abs(cosine) > threshold:
        share, other = 1 - weight, weight
    else:
        angle = math.acos(cosine)
        share, other = math.sin((1 - weight) * angle) / math.sin(angle), math.sin(weight * angle) / math.sin(angle)
    return (share * first + other * second).to(newer.dtype), cosine


def cosine_of(first: Tensor, second: Tensor) -> float:
    """The cosine of two tensors as flat vectors; 0 where one of them is zero."""
    return float((_unit(first) * _unit(second)).sum())


def _unit(values: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(values)
    return values / norm if norm > EPSILON else values
