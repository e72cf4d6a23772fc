"""What the card and the report say, gathered from the nodes: numbers and names only, no wording."""

from collections.abc import Sequence
from dataclasses import dataclass

from raysberta.corpus.facts import CorpusFacts
from raysberta.errors import InputError
from raysberta.evaluation.facts import ScoreDetail, ScoresFacts
from raysberta.evaluation.settings import ModelScores
from raysberta.mining.facts import ExamplesFacts
from raysberta.mining.settings import Examples
from raysberta.models.describe import Description
from raysberta.models.facts import ModelFacts
from raysberta.pairs.facts import PairsFacts
from raysberta.publishing.facts import Exported, Row
from raysberta.publishing.lineage import CorpusSources, DataSets, Lineage
from raysberta.publishing.settings import Release
from raysberta.synthesis.facts import WrittenFacts
from raysberta.synthesis.settings import WrittenPairs
from raysberta.training.facts import TrainingFacts
from raysberta.training.settings import ContrastivePhase
from raysberta.tuning.facts import SearchFacts
from raysberta.vocabulary.facts import VocabularyFacts

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
    "docstrings": "those of the packages read",
}
"""Of the texts of a kind of source, as far as it is known."""


@dataclass(frozen=True)
class ScoreRow:
    """A task's scores, x 100."""

    task: str
    type: str
    metric: str
    scored: int | None
    scores: dict[str, float | None]
    """By model, in the order of the recipe."""
    change: float | None
    """Final minus base; None where one of the two was not scored."""


@dataclass(frozen=True)
class Scores:
    """The whole table."""

    models: tuple[str, ...]
    """The scored ones, in the order of the recipe."""
    base: str
    final: str
    rows: tuple[ScoreRow, ...]
    means: dict[str, float | None]
    """Mean over the tasks, by model."""
    details: dict[str, ScoreDetail]
    """What a model card says of the final model's scores, by task."""

    @property
    def worse(self) -> list[ScoreRow]:
        """Tasks on which the final model is behind the base."""
        return [row for row in self.rows if row.change is not None and round(row.change, 2) < 0]

    @property
    def ends(self) -> tuple[float, float] | None:
        """Means of the base and of the final model; None where one was not scored on every task."""
        base, final = self.means.get(self.base), self.means.get(self.final)
        return None if base is None or final is None else (base, final)

    @property
    def change(self) -> float | None:
        """Change of the mean."""
        return None if self.ends is None else self.ends[1] - self.ends[0]

    def table(self) -> list[Row]:
        """Rows for the manifest and the terminal."""
        return [Row(task=row.task, type=row.type, scores=row.scores, change=row.change) for row in self.rows]


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


def scores(settings: Release, lineage: Lineage) -> Scores:
    """The table of the scored models.

    Raises:
        InputError: a model that was scored is not among the nodes.
    """
    found = _scored(settings, lineage)
    rows = []
    for task in dict.fromkeys(task for told in found.values() for task in told.scores):
        values = {model: 100 * told.scores[task] if task in told.scores else None for model, told in found.items()}
        detail = next(told.details[task] for told in reversed(found.values()) if task in told.scores)
        base, final = values.get(settings.base), values.get(settings.final)
        change = None if base is None or final is None else final - base
        rows.append(ScoreRow(task, detail.type, main_metric(detail), detail.scored, values, change))
    means = {model: _mean([row.scores[model] for row in rows]) for model in found}
    details = found[settings.final].details if settings.final in found else {}
    return Scores(tuple(found), str(settings.base), str(settings.final), tuple(rows), means, details)


def _scored(settings: Release, lineage: Lineage) -> dict[str, ScoresFacts]:
    """What was scored, by the model's name."""
    found: dict[str, ScoresFacts] = {}
    told = {name: (how, facts) for name, how, facts in lineage.each(ModelScores, ScoresFacts)}
    for name in settings.scores:
        how, facts = told[name]
        names = lineage.names_of(how.model)
        if not names:
            raise InputError(f"{name}: the model that it scored, {how.model}, is none of the nodes; right would be to list it in nodes")
        found[next((each for each in names if each not in found), names[0])] = facts
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


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean over the tasks; None where a task was not scored, because means over different tasks do not compare."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
