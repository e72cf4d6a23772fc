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
    """Between tensors of two models; with a start between two models' differences from it."""
    factors: tuple[float, ...] = ()
    """With a start: what each model's difference from it is multiplied by, `norm` included; empty without one."""
    chosen: dict[str, float]
    """What the search, or the choice of weights, found; empty without one."""
