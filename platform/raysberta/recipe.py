"""A recipe: one run, whole, as one frozen value. It composes the settings of the rooms; what follows from it stands in nodes.py."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from raysberta.aligning.settings import Align
from raysberta.centring.settings import Centre
from raysberta.composing.settings import Compose
from raysberta.corpus.settings import Corpus, TextSource
from raysberta.data_sets.settings import DatasetSource
from raysberta.evaluation.settings import Benchmark, OwnTask, Scoring
from raysberta.graph import EncoderRef, Language, NaturalNumber, PositiveNumber, Section
from raysberta.merging.settings import Merge
from raysberta.mining.settings import Examples
from raysberta.models.settings import Model
from raysberta.pairs.settings import Pairs
from raysberta.pruning.settings import Prune
from raysberta.publishing.settings import Publishing
from raysberta.synthesis.settings import Written
from raysberta.training.settings import Contrastive, Distil, Mlm
from raysberta.vocabulary.settings import Vocabulary
from raysberta.work import Workers

Phase = Annotated[Compose | Vocabulary | Mlm | Align | Distil | Contrastive | Merge | Prune | Centre, Field(discriminator="kind")]
Source = Annotated[TextSource | DatasetSource, Field(discriminator="kind")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=60)]
"""What the recipe calls something: letters, digits and _, a letter first."""


class Limits(Section):
    """What a run may expect of the place it runs in. Not identity."""

    min_free_gib: NaturalNumber = 3.0
    """Refuse to start with less free disk at a local `storage`."""
    gpu_gib: PositiveNumber | None = None
    """Memory of each GPU: a training phase that is estimated to take more is refused before anything starts. Not looked at where null."""
    wait_for_nodes: bool = False
    """Ask the autoscaler for what the cluster lacks, and use nodes as they come."""
    wait_minutes: PositiveNumber = 20.0
    """Give up when nothing runs and no node has come for so long."""
    lease_seconds: Annotated[float, Field(ge=2.0, strict=True)] = 60.0
    """A run that has not been heard of for so long is dead, and another on the same storage goes on with what it was making."""


class Recipe(Section):
    """One run, whole."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.=-]*$", max_length=120)
    """Names the run in logs and paths."""
    storage: str = "runs"
    """Where artifacts go: a folder or any URI that pyarrow.fs writes. Not identity."""
    data: str = "data"
    """Where files lie that the recipe names by relative paths (sources, evaluation sets, snapshots, vectors): a folder or any URI that
    pyarrow.fs reads, which every node reaches. Not identity."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 42
    """Of everything drawn while pairs are written and models are trained; each draw mixes in the id of what it is for."""
    languages: tuple[Language, ...] = ("ru", "en")
    """Two-letter codes of the languages kept."""
    sources: dict[Name, Source] = Field(min_length=1)
    """Raw text and data sets, by name."""
    corpus: Corpus = Corpus()
    """Filtering: the node `corpus` holds the documents."""
    pairs: Pairs = Pairs()
    """Pair making: the node `natural` holds the pairs of documents and data sets."""
    models: dict[Name, Model] = Field(default={})
    """Models from outside, by name."""
    written: dict[Name, Written] = Field(default={})
    """Pairs that models write, by name."""
    examples: dict[Name, Examples] = Field(default={})
    """Pairs with what a loss needs, by name."""
    phases: dict[Name, Phase] = Field(default={})
    """Each makes a model from models, by name."""
    final: EncoderRef | None = None
    """The model that is published; the last phase where null."""
    compare_with: EncoderRef | None = None
    """The model that the final one is compared with; where null, the one that it began with."""
    tasks: dict[Name, OwnTask] = Field(default={})
    """Tasks from held-out documents, by name; general ones where their source has `held_out`."""
    benchmarks: dict[Name, Benchmark] = Field(default={})
    """Registered mteb benchmarks, by a name of one's own."""
    scoring: Scoring = Scoring()
    """How models are scored."""
    score: tuple[EncoderRef, ...] | None = None
    """Which models are scored, in the order of the table; where null, the one compared with and the final one."""
    publishing: Publishing = Publishing()
    """What comes out."""
    resources: dict[Name, Workers] = Field(default={})
    """Where nodes are made, by kind of node (corpus, written, examples, mlm, ...) or by a node's name, which comes before. Not identity."""
    limits: Limits = Limits()
    """What the run may expect of where it runs."""

    @model_validator(mode="after")
    def _keeps_a_language(self) -> Self:
        if not self.languages:
            raise ValueError("languages: none is kept; right would be at least one, such as ru")
        return self

    @model_validator(mode="after")
    def _documents_are_there(self) -> Self:
        documents = {name: source for name, source in self.sources.items() if not isinstance(source, DatasetSource)}
        right = f"right would be {', '.join(documents) or 'a source that is no data set'}"
        for name, task in self.tasks.items():
            if task.source not in documents:
                raise ValueError(f"tasks.{name}.source: no source of documents is called {task.source!r}; {right}")
            kinds = documents[task.source].pairs
            if task.type in ("Retrieval", "BitextMining") and task.pair not in kinds:
                named = f"{task.pair!r} is not made from {task.source}; right would be {', '.join(kinds) or 'another source'}"
                raise ValueError(f"tasks.{name}.pair: {named}")
        for name, writing in self.written.items():
            for source in writing.about:
                if source not in documents:
                    raise ValueError(f"written.{name}.about: no source of documents is called {source!r}; {right}")
        return self

    @model_validator(mode="after")
    def _held_out_sources_are_not_trained_on(self) -> Self:
        held_out = {name for name, source in self.sources.items() if not isinstance(source, DatasetSource) and source.held_out}
        trained = ", ".join(name for name in self.sources if name not in held_out) or "a source with held_out: false"
        named = [(f"written.{name}.about", source) for name, writing in self.written.items() for source in writing.about]
        named += [("pairs.limits", key) for key in self.pairs.limits]
        for name, phase in self.phases.items():
            named += [(f"phases.{name}.source_weights", key) for key in phase.source_weights] if isinstance(phase, Contrastive) else []
        for key, what in named:
            if what.partition("/")[0] in held_out:
                why = "of a source that is held out whole, on which nothing is trained"
                raise ValueError(f"{key}: {what} is {why}; right would be {trained}")
        return self
