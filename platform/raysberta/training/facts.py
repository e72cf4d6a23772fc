"""What the manifest of a training phase says."""

from raysberta.work import Facts


class Point(Facts):
    """One step of a training curve."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    tokens_per_second: float


class DevPoint(Facts):
    """Scores on dev halves after so many steps, fractions."""

    step: int
    own: float | None
    """The mean of the own tasks; None where none is read."""
    general: float | None
    """The mean of the general tasks; None where none is read."""
    scores: dict[str, float]
    seconds: float


class TrainingFacts(Facts):
    """Of a node of kind `mlm` or `contrastive`."""

    steps: int
    seconds: float
    curve: list[Point]
    """At most some hundred points, the first and the last among them."""
    dev_curve: list[DevPoint]
    resumed_after: int
    """Steps that an earlier attempt had made."""
    trained_tokens: int
    tokens: int
    """Of the distinct texts."""
    rows: dict[str, int]
    """Examples by `source/kind`; of masked language modelling distinct texts under "texts"."""
    chosen: dict[str, float]
    """What the search found; empty without one."""
