"""What the manifests of tasks, benchmarks and scores say."""

from pydantic import Field

from raysberta.evaluation.settings import TaskType
from raysberta.work import Facts


class HalfFacts(Facts):
    """One half of a task."""

    revision: str
    """A hash of its texts."""
    scored: int
    """Queries, pairs or texts that are scored."""
    rows: dict[str, int]
    """By table."""


class TaskFacts(Facts):
    """A held-out task."""

    type: TaskType
    source: str
    pair: str | None
    language: str
    general: bool
    """Whether its source is held out whole, so that nothing of its kind was trained on."""
    halves: dict[str, HalfFacts]
    """dev and test."""


class TasksFacts(Facts):
    """Of a node of kind `tasks`."""

    tasks: dict[str, TaskFacts]


class BenchmarkFacts(Facts):
    """Of a node of kind `benchmark`."""

    name: str
    """Its name in mteb."""
    snapshot: str
    """The folder it is read from."""
    tasks: list[str]
    """Names of those that the folder holds, sorted."""
    in_domain: list[str] = Field(default=[])
    """Names of those that count as own tasks, sorted."""


class ScoreDetail(Facts):
    """What a model card says of one score."""

    dataset: str
    """Of a registered task its name in mteb."""
    held_out: bool
    general: bool
    """Whether it is of a source that is held out whole, or a registered task that is not in domain: nothing of its kind was trained on."""
    type: str
    config: str
    split: str
    revision: str
    languages: list[str]
    metrics: dict[str, float]
    scored: int | None
    """Queries, pairs or texts, of a held-out task."""
    interval: tuple[float, float] | None
    """95 % interval of the main score by bootstrap over queries, pairs or texts; None where mteb does not tell what each scores."""


class ScoresFacts(Facts):
    """Of a node of kind `score`."""

    scores: dict[str, float]
    """Main score of each task, a fraction."""
    details: dict[str, ScoreDetail]
    """Of each task."""
    seconds: dict[str, float]
    """Of each task, embedding included."""
    pooling: str
    """How the model pooled: as its folder says."""
    prefixes: dict[str, str]
    """What it was given to read before a text: as its folder says, fields of Prefixes."""
    content: str = ""
    """A hash of the model's weights, tokenizer and description."""
    taken_from: str | None = None
    """Id of the scores that these are: of a model of the same content, under another name; None where the model was scored itself."""
