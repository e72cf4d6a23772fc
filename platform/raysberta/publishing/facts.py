"""What the card and the report say, gathered from the manifests of the stages: numbers only, no wording."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysberta.artifacts import Artifact, Manifest
from raysberta.recipe import Recipe

STEPS = ("base", "vocabulary", "mlm", "mlm_merged", "contrastive", "final")


@dataclass(frozen=True)
class ScoreRow:
    """A task's scores, percent points."""

    task: str
    type: str
    metric: str
    scored: int | None
    scores: dict[str, float | None]
    """By step, in the order of the pipeline."""
    change: float | None
    """Final minus base; None where one of the two was not scored."""


@dataclass(frozen=True)
class Scores:
    """The whole table."""

    steps: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    means: dict[str, float | None]
    """Mean over the tasks, by step."""

    @property
    def worse(self) -> list[ScoreRow]:
        """Tasks on which the final model is behind the base."""
        return [row for row in self.rows if row.change is not None and round(row.change, 2) < 0]

    @property
    def change(self) -> float | None:
        """Change of the mean."""
        base, final = self.means.get("base"), self.means.get("final")
        return None if base is None or final is None else final - base

    def table(self) -> list[dict[str, Any]]:
        """Rows for the manifest and the terminal: task, type, each step, change."""
        return [{"task": row.task, "type": row.type, **row.scores, "change": row.change} for row in self.rows]


@dataclass(frozen=True)
class Span:
    """When a stage ran, seconds since the epoch."""

    stage: str
    started: float
    seconds: float

    @property
    def ended(self) -> float:
        """When it was over."""
        return self.started + self.seconds


def manifests(inputs: Mapping[str, Artifact]) -> dict[str, Manifest]:
    """Manifests by stage name."""
    return {name: artifact.manifest for name, artifact in inputs.items()}


def scores(stages: Mapping[str, Manifest]) -> Scores:
    """The table of scores from the stages `score_<step>`."""
    steps = tuple(step for step in STEPS if f"score_{step}" in stages)
    metrics = {step: stages[f"score_{step}"].metrics for step in steps}
    names = list(dict.fromkeys(name for step in steps for name in metrics[step]["scores"]))
    rows = []
    for name in names:
        found = {step: 100 * metrics[step]["scores"][name] if name in metrics[step]["scores"] else None for step in steps}
        detail: dict[str, Any] = next(
            (metrics[step]["details"][name] for step in reversed(steps) if name in metrics[step].get("details", {})), {}
        )
        base, final = found.get("base"), found.get("final")
        change = None if base is None or final is None else final - base
        rows.append(ScoreRow(name, detail.get("type", ""), main_metric(detail), detail.get("scored"), found, change))
    means = {step: _mean([row.scores[step] for row in rows]) for step in steps}
    return Scores(steps, tuple(rows), means)


def main_metric(detail: Mapping[str, Any]) -> str:
    """The name of the metric that is the main score: the first that has its value."""
    metrics = detail.get("metrics", {})
    for name in ("ndcg_at_10", "max_ap", "v_measure", "cosine_spearman", "accuracy", "f1"):
        if name in metrics and metrics[name] == metrics.get("main_score"):
            return name
    return "main_score"


def spans(stages: Mapping[str, Manifest]) -> list[Span]:
    """When each stage ran, in the order of their starts."""
    return sorted((Span(name, item.started, item.seconds) for name, item in stages.items()), key=lambda span: (span.started, span.stage))


def without_idle(found: Sequence[Span], longest: float = 60.0, shown: float = 10.0) -> tuple[list[Span], list[float]]:
    """Spans from 0 on, with idle stretches of more than `longest` seconds drawn as `shown` seconds, and where these are.

    Stages that an earlier run made lie hours apart; the picture is about what ran beside what.
    """
    moved: list[Span] = []
    cuts: list[float] = []
    reached = shift = found[0].started if found else 0.0
    for span in found:
        gap = span.started - reached
        if gap > longest:
            shift += gap - shown
            cuts.append(span.started - shift - shown / 2)
        moved.append(Span(span.stage, span.started - shift, span.seconds))
        reached = max(reached, span.ended)
    return moved, cuts


def overlaps(found: Sequence[Span]) -> list[tuple[str, str, float]]:
    """Pairs of stages that ran at the same time, with the seconds they shared, longest first."""
    shared = []
    for number, first in enumerate(found):
        for second in found[number + 1 :]:
            seconds = min(first.ended, second.ended) - max(first.started, second.started)
            if seconds > 0.5:
                shared.append((first.stage, second.stage, seconds))
    return sorted(shared, key=lambda item: (-item[2], item[0], item[1]))


def training_rows(stages: Mapping[str, Manifest]) -> dict[str, int]:
    """Examples that contrastive training read, by `source/kind`."""
    found: dict[str, int] = {}
    for name in ("mining", "mining_synthetic"):
        for key, count in (stages[name].metrics.get("examples", {}) if name in stages else {}).items():
            found[key] = found.get(key, 0) + count
    return found


def licence(recipe: Recipe, source: str) -> str:
    """The licence of a source's texts as far as it is known; "" where it is not."""
    known = {
        "wiki_ru_wordnet": "CC BY-SA 3.0 (Russian Wiktionary, through the MIT package wiki-ru-wordnet)",
        "rl_wsd": "package MIT; excerpts of RuTenTen and the Russian National Corpus",
        "home_assistant_intents": "Apache-2.0",
        "jupyterlab_strings": "BSD-3-Clause",
        "docstrings": "those of the packages read",
    }
    settings = recipe.sources.get(source)
    return known.get(settings.kind, "") if settings else ""


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean over the tasks; None where a task was not scored, because means over different tasks do not compare."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
