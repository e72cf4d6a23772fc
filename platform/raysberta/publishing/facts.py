"""What the manifest of a release says."""

from pydantic import Field

from raysberta.work import Facts


class Estimate(Facts):
    """A score, a mean or a change, x 100."""

    value: float
    interval: tuple[float, float] | None
    """95 % by bootstrap, of a change by the paired one; None where it cannot be told."""

    @property
    def clear(self) -> bool:
        """Of a change: whether its interval leaves out 0, without which it is not called one."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


class Row(Facts):
    """A task's scores."""

    task: str
    type: str
    metric: str
    scored: int | None
    """Queries, pairs or texts, of a held-out task."""
    scores: dict[str, Estimate | None]
    """By model, in the order of the recipe."""
    change: Estimate | None
    """Final minus base; None where one of the two was not scored."""


class TaskTable(Facts):
    """The own or the general tasks."""

    rows: list[Row]
    means: dict[str, Estimate | None]
    """By model; None where a task was not scored, because means over different tasks do not compare."""
    change: Estimate | None
    """Of the mean."""

    @property
    def worse(self) -> list[Row]:
        """Tasks on which the final model is clearly behind the base."""
        return [row for row in self.rows if row.change is not None and row.change.clear and row.change.value < 0]


class Exported(Facts):
    """The published folder."""

    dimension: int
    max_tokens: int
    parameters: int
    difference: float
    """Greatest difference of a vector's value between the published model and the encoder itself."""
    own_parts: bool
    """Whether it has parts that sentence-transformers loads from this package."""
    not_served: str
    """Why vLLM does not serve it; "" where it does."""


class ReleaseFacts(Facts):
    """Of the node `release`."""

    own: TaskTable
    """Tasks from sources that are trained on as well."""
    general: TaskTable
    """Tasks from sources that are held out whole, and registered ones."""
    base: str
    """Name of the model that the final one is compared with."""
    final: str
    """Name of the published model."""
    model: Exported
    beside: dict[str, Exported] = Field(default={})
    """Models published beside it, by name."""
