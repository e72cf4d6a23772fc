"""What each kind of node is made by, and what of it lies outside of the recipe. A stage's code is imported where it runs, not before."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from raysberta.aligning import settings as aligning
from raysberta.centring import settings as centring
from raysberta.composing import settings as composing
from raysberta.corpus import settings as corpus
from raysberta.errors import InputError
from raysberta.evaluation import settings as evaluation
from raysberta.graph import Section
from raysberta.merging import settings as merging
from raysberta.mining import settings as mining
from raysberta.models import settings as models
from raysberta.nodes import Node
from raysberta.pairs import settings as pairs
from raysberta.pruning import settings as pruning
from raysberta.publishing import settings as publishing
from raysberta.recipe import Recipe
from raysberta.synthesis import settings as synthesis
from raysberta.training import settings as training
from raysberta.tuning import settings as tuning
from raysberta.vocabulary import settings as vocabulary
from raysberta.work import Facts, Work, Workers

Run = Callable[[Work[Any]], Facts]
ALONE = Workers()
"""One process of one core."""


@dataclass(frozen=True)
class Stage:
    """What makes the nodes of one kind."""

    run: Run
    version: int
    """Of the room's results."""
    seeded: bool = False
    """Whether the recipe's seed decides the result; otherwise the stage is given the same seed in every recipe."""
    memory_gib: float = 1.0
    """What the process that leads the stage needs; its workers ask for their own."""
    workers: Workers = ALONE
    """Where it runs unless the recipe says otherwise."""


def stage_of(node: Node) -> Stage:
    """The stage that makes a node."""
    match node.kind:
        case "model":
            return Stage(_model, models.VERSION, memory_gib=2)
        case "corpus":
            return Stage(_corpus, corpus.VERSION, memory_gib=2, workers=Workers(workers=2))
        case "natural":
            return Stage(_natural, pairs.VERSION, memory_gib=2)
        case "written":
            return Stage(_written, synthesis.VERSION, seeded=True)
        case "examples":
            return Stage(_examples, mining.VERSION, memory_gib=2)
        case "compose":
            return Stage(_compose, composing.VERSION, seeded=True, memory_gib=4)
        case "vocabulary":
            return Stage(_vocabulary, vocabulary.VERSION, seeded=True, memory_gib=2)
        case "mlm":
            return Stage(_mlm, training.VERSION, seeded=True, memory_gib=2)
        case "contrastive":
            return Stage(_contrastive, training.VERSION, seeded=True, memory_gib=3, workers=Workers(cpus=2))
        case "align":
            return Stage(_align, aligning.VERSION, seeded=True, memory_gib=3, workers=Workers(cpus=2))
        case "distil":
            return Stage(_distil, training.VERSION, seeded=True, memory_gib=2, workers=Workers(cpus=2))
        case "merge":
            return Stage(_merge, merging.VERSION)
        case "prune":
            return Stage(_prune, pruning.VERSION, memory_gib=2)
        case "centre":
            return Stage(_centre, centring.VERSION, memory_gib=2)
        case "search":
            return Stage(_search, tuning.VERSION, seeded=True, workers=Workers(cpus=2))
        case "tasks":
            return Stage(_tasks, evaluation.VERSION)
        case "benchmark":
            return Stage(_benchmark, evaluation.VERSION)
        case "score":
            return Stage(_score, evaluation.VERSION)
        case "release":
            return Stage(_release, publishing.VERSION)
        case _:
            raise AssertionError(f"{node.name}: no stage makes a {node.kind}")


def workers_of(recipe: Recipe, node: Node) -> Workers:
    """Where a node is made: as the recipe says for its name, else for its kind; what it leaves out is the stage's own."""
    said: dict[str, Any] = stage_of(node).workers.model_dump()
    for name in (node.kind, node.name):
        if name in recipe.resources:
            said |= recipe.resources[name].model_dump(exclude_unset=True)
    return Workers(**said)


def outside(node: Node) -> Any:
    """What decides a result beyond settings and inputs: versions of packages, sizes and dates of files. None where nothing does."""
    settings = node.settings
    match node.kind:
        case "model":
            from raysberta.models.outside import model_state

            return model_state(cast(models.Model, settings))
        case "corpus":
            from raysberta.corpus.read import documents_state

            return documents_state(cast(corpus.Documents, settings))
        case "natural":
            from raysberta.pairs.outside import pairs_state

            return pairs_state(cast(pairs.NaturalPairs, settings))
        case "vocabulary":
            from raysberta.vocabulary.outside import vocabulary_state

            return vocabulary_state(cast(vocabulary.Vocabulary, settings))
        case "benchmark":
            from raysberta.evaluation.outside import benchmark_state

            return benchmark_state(cast(evaluation.Benchmark, settings))
        case _:
            return None


def missing(node: Node) -> list[str]:
    """What a node needs from outside and does not find, a line each."""
    settings, name = node.settings, node.name
    match node.kind:
        case "model":
            from raysberta.models.outside import check_model

            return _problems(lambda: check_model(name, cast(models.Model, settings)))
        case "corpus":
            from raysberta.corpus.read import check_documents

            return check_documents(cast(corpus.Documents, settings))
        case "natural":
            from raysberta.pairs.outside import check_pairs

            return check_pairs(cast(pairs.NaturalPairs, settings))
        case "vocabulary":
            from raysberta.vocabulary.outside import check_vocabulary

            return _problems(lambda: check_vocabulary(name, cast(vocabulary.Vocabulary, settings)))
        case "benchmark":
            from raysberta.evaluation.outside import check_benchmark

            return check_benchmark(name, cast(evaluation.Benchmark, settings))
        case _:
            return []


def _problems(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except InputError as error:
        return [str(error)]
    return []


def _model(work: Work[models.Model]) -> Facts:
    from raysberta.models.stage import fetch

    return fetch(work)


def _corpus(work: Work[corpus.Documents]) -> Facts:
    from raysberta.corpus.stage import run

    return run(work)


def _natural(work: Work[pairs.NaturalPairs]) -> Facts:
    from raysberta.pairs.stage import run

    return run(work)


def _written(work: Work[synthesis.WrittenPairs]) -> Facts:
    from raysberta.synthesis.stage import run

    return run(work)


def _examples(work: Work[mining.Examples]) -> Facts:
    from raysberta.mining.stage import run

    return run(work)


def _compose(work: Work[composing.Compose]) -> Facts:
    from raysberta.composing.stage import run

    return run(work)


def _vocabulary(work: Work[vocabulary.Vocabulary]) -> Facts:
    from raysberta.vocabulary.stage import run

    return run(work)


def _mlm(work: Work[training.MlmPhase]) -> Facts:
    from raysberta.training.stage import mlm

    return mlm(work)


def _contrastive(work: Work[training.ContrastivePhase]) -> Facts:
    from raysberta.training.stage import contrastive

    return contrastive(work)


def _align(work: Work[aligning.AlignPhase]) -> Facts:
    from raysberta.aligning.stage import run

    return run(work)


def _distil(work: Work[training.DistilPhase]) -> Facts:
    from raysberta.training.stage import distil

    return distil(work)


def _merge(work: Work[merging.MergePhase]) -> Facts:
    from raysberta.merging.stage import run

    return run(work)


def _prune(work: Work[pruning.Prune]) -> Facts:
    from raysberta.pruning.stage import run

    return run(work)


def _centre(work: Work[centring.Centre]) -> Facts:
    from raysberta.centring.stage import run

    return run(work)


def _search(work: Work[Section]) -> Facts:
    from raysberta.tuning.stage import run

    return run(work)  # type: ignore[arg-type]


def _tasks(work: Work[evaluation.HeldOutTasks]) -> Facts:
    from raysberta.evaluation.stage import tasks

    return tasks(work)


def _benchmark(work: Work[evaluation.Benchmark]) -> Facts:
    from raysberta.evaluation.stage import benchmark

    return benchmark(work)


def _score(work: Work[evaluation.ModelScores]) -> Facts:
    from raysberta.evaluation.stage import score

    return score(work)


def _release(work: Work[publishing.Release]) -> Facts:
    from raysberta.publishing.stage import release

    return release(work)
