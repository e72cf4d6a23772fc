"""Held-out tasks, registered benchmarks, and how models are scored on them."""

from typing import Annotated, Literal

from raysberta.graph import EXECUTION, PLACE, BenchmarkRef, DocumentsRef, EncoderRef, Language, PairsRef, Positive, Section, TasksRef

VERSION: int = 4
"""Of the results; bumped when the same settings and inputs give another result."""


TaskType = Literal["Retrieval", "BitextMining", "PairClassification", "Classification", "Clustering"]


class OwnTask(Section):
    """A task made from held-out documents of the recipe's sources."""

    type: TaskType
    """The mteb task type."""
    source: str
    """The source whose held-out documents it uses."""
    pair: str | None = None
    """Kind of the pairs that Retrieval and BitextMining use."""
    language: Language
    """Two-letter code of the texts; of the queries where they differ."""
    queries: Positive = 500
    """Queries, pairs or texts at most, in each half."""
    documents: Positive = 1500
    """Passages at most in the corpus of a retrieval half (every query's own is always in)."""


class HeldOutTasks(Section):
    """A node of kind `tasks`: held-out documents and pairs to mteb tasks, a dev and a test half each."""

    documents: DocumentsRef
    pairs: PairsRef
    tasks: dict[str, OwnTask]
    """By name."""
    general: tuple[str, ...] = ()
    """Names of those whose source is held out whole."""


class Benchmark(Section):
    """A registered mteb benchmark, read from a folder and from nowhere else."""

    name: str
    """Its name in mteb, e.g. MTEB(rus, v1.1)."""
    snapshot: Annotated[str, EXECUTION, PLACE]
    """Folder that `jobs/fetch_benchmark.py` filled, or a URI that it was copied to."""
    in_domain: tuple[str, ...] = ()
    """Tasks of it whose training parts a model of the recipe has learned from, its teacher too: they count as own tasks, all others as
    general ones."""


class Scoring(Section):
    """How models are scored."""

    max_tokens: Positive = 128
    """Longer texts are cut."""
    precision: Literal["bf16", "tf32", "fp32"] = "fp32"
    """Of the encoder while scoring. bf16 is about twice as fast and moves scores in the fourth digit; tf32 multiplies with eleven bits on
    NVIDIA GPUs from Ampere on. Each is fp32 where the device has it not."""


class ModelScores(Section):
    """A node of kind `score`: the test halves of the held-out tasks and the registered benchmarks, for one model."""

    model: EncoderRef
    tasks: TasksRef | None
    benchmarks: tuple[BenchmarkRef, ...]
    how: Scoring
