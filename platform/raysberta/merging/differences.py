"""Merges of what models differ by from their common start: theta_0 + norm * (c_1 V_1 + ... + c_n V_n), where V_i = theta_i - theta_0.

Whatever the weights, a merge along arcs is a sum of the differences with some coefficients, and these follow from the weights and the
products of the differences with one another alone. So n x n numbers are enough to know the merge, and to take its gradient.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from raysberta.errors import InputError
from raysberta.merging.settings import Method
from raysberta.merging.slerp import EPSILON, THRESHOLD

PIECE = 1 << 22
"""Numbers of a tensor that are widened to float64 at once."""


def add_products(products: Tensor, differences: Sequence[Tensor]) -> None:
    """Add one tensor's part to the products of the differences with one another.

    Args:
        products: float64 [n, n], changed.
        differences: n tensors of one shape.
    """
    flat = [each.reshape(-1) for each in differences]
    for start in range(0, len(flat[0]), PIECE):
        rows = torch.stack([each[start : start + PIECE].double().cpu() for each in flat])
        products += rows @ rows.T


def coefficients(weights: Tensor, products: Tensor, method: Method) -> Tensor:
    """What each difference is multiplied by, float64 [n]; differentiable in the weights, of which only the ratios count.

    With slerp it is Self Positioning's iteration (arXiv 2410.15035): V = [sin((1-b)A) V_so_far + sin(bA) V_next] / sin A with A their angle
    and b = a_next / (mean of the weights so far + a_next). Nearly parallel or antiparallel ones, |cos| > 0.9995, are interpolated
    linearly; a zero vector is at a right angle to everything.

    Args:
        weights: float64 [n], not negative, one at least above 0.
        products: float64 [n, n]: of the differences with one another.
        method: slerp, or linear: the weighted mean.
    """
    if method == "linear":
        return weights / weights.sum()
    units = torch.eye(len(weights), dtype=weights.dtype)
    found = units[0]
    for place in range(1, len(weights)):
        so_far = weights[:place].mean()
        if not float(so_far.detach() + weights[place].detach()):  # none of the models so far counts
            continue
        share = weights[place] / (so_far + weights[place])
        found = _between(found, units[place], share, _cosine(found, units[place], products))
    return found


def check_differ(folders: Sequence[Path], products: Tensor) -> None:
    """See that every model differs from the start.

    Raises:
        InputError: one does not.
    """
    for folder, square in zip(folders, products.diagonal().tolist(), strict=True):
        if not square:
            raise InputError(f"merge: {folder} is the start, it differs by nothing; right would be models trained from the start")


def cosines(products: Tensor) -> Tensor:
    """Of the differences to one another, float64 [n, n]; 0 where one is zero."""
    norms = products.diagonal().sqrt()
    known = (norms[:, None] > EPSILON) & (norms[None, :] > EPSILON)
    return torch.where(known, products / (norms[:, None] * norms[None, :]).clamp(min=EPSILON**2), 0.0)


def _between(first: Tensor, second: Tensor, share: Tensor, cosine: Tensor) -> Tensor:
    if abs(float(cosine.detach())) > THRESHOLD:
        return (1 - share) * first + share * second
    angle = torch.acos(cosine)
    return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)


def _cosine(first: Tensor, second: Tensor, products: Tensor) -> Tensor:
    """Of two sums of differences, by their coefficients."""
    squares = first @ products @ first, second @ products @ second
    if min(float(square.detach()) for square in squares) <= EPSILON**2:
        return products.new_zeros(())
    return (first @ products @ second) / (squares[0] * squares[1]).sqrt()
