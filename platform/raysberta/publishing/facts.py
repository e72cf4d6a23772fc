"""What the manifest of a release says."""

from raysberta.work import Facts


class Row(Facts):
    """A task's scores x 100."""

    task: str
    type: str
    scores: dict[str, float | None]
    """By model, in the order of the recipe."""
    change: float | None
    """Final minus base."""


class Exported(Facts):
    """The published folder."""

    dimension: int
    max_tokens: int
    parameters: int
    difference: float
    """Greatest difference of a vector's value between the published model and the encoder itself."""


class ReleaseFacts(Facts):
    """Of the node `release`."""

    table: list[Row]
    base: str
    """Name of the model that the final one is compared with."""
    base_mean: float | None
    """x 100."""
    final_mean: float | None
    worse: list[str]
    """Tasks on which the final model is behind."""
    model: Exported
