"""A model to score, the tasks to score it on, and where what is made of both lies. No torch, no mteb: a stage's own process reads it."""

from dataclasses import dataclass, field

from raysberta.evaluation.facts import BenchmarkFacts
from raysberta.evaluation.kept import Score, keep, kept
from raysberta.evaluation.settings import Scoring
from raysberta.prefixes import Prefixes
from raysberta.schema import text_id
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import join


@dataclass(frozen=True)
class Wanted:
    """A task to score on."""

    key: str
    """What its score is kept under."""
    task: str
    """Its own name."""
    source: str
    """Id of the artifact that has it."""
    benchmark: BenchmarkFacts | None
    """The registered benchmark it is of; None of a held-out task."""


@dataclass(frozen=True)
class Job:
    """A model to score. Picklable."""

    node: str
    """Of the recipe, for who watches."""
    model: Artifact
    prefixes: Prefixes
    """That it is given to read."""
    tasks: Artifact | None
    """The held-out tasks."""
    how: Scoring
    cpus: float
    """Of a process."""
    texts: str = field(repr=False)
    """Folder of the texts of tasks with these prefixes."""
    vectors: str = field(repr=False)
    """Folder of the vectors of models of this content."""
    scores: str = field(repr=False)
    """Folder of the finished scores of this model on these tasks."""

    def texts_of(self, wanted: Wanted) -> str:
        """The file of a task's texts."""
        return join(self.texts, f"{text_id(wanted.source, wanted.task)}.parquet")

    def score_of(self, wanted: Wanted) -> Score | None:
        """The finished score of a task; None where there is none."""
        return kept(self._place(wanted))

    def keep(self, wanted: Wanted, score: Score) -> None:
        """Keep a finished score."""
        keep(self._place(wanted), score)

    def _place(self, wanted: Wanted) -> str:
        return join(self.scores, f"{text_id(wanted.key)}.arrow")
