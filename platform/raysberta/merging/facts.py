"""What the manifest of a merge says."""

from raysberta.work import Facts


class MergeFacts(Facts):
    """Of a node of kind `merge`."""

    shares: list[float]
    """The weight of each model, in all 1."""
    tensors: int
    merged: int
    linear: int
    """Of the merged, those so nearly parallel that slerp interpolated them linearly."""
    copied: int
    """Outside the scope, or integer buffers: the first model's."""
    least_cosine: float
    """Between tensors of two models."""
    chosen: dict[str, float]
    """What the search found; empty without one."""
