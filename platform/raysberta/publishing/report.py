"""One self-contained page: what came out, what it was made from, what each node did and when. Opens without a network.

A section that no node has anything to say in is left out; a number is shown as the manifests hold it.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from raysberta import pictures
from raysberta.corpus.facts import CorpusFacts
from raysberta.publishing import gather, sections
from raysberta.publishing.facts import TaskTable
from raysberta.publishing.gather import Scores, Told
from raysberta.publishing.lineage import CorpusSources, Lineage
from raysberta.publishing.sections import Sample, Table
from raysberta.publishing.template import PAGE
from raysberta.publishing.verdict import changed, scored

ABOUT = {
    "own": (
        "Own tasks",
        "From other documents of sources that are trained on as well, and registered tasks said to be in domain.",
    ),
    "general": ("General tasks", "From sources that are held out whole, and other registered tasks: nothing of these is trained on."),
}
"""Title and a sentence on each table."""


def report(told: Told, samples: Mapping[str, Sequence[Sample]] | None = None) -> str:
    """The page.

    Args:
        told: Everything that it is made from.
        samples: By node of kind `written`, a few of its generations: kind, passage, output, reason.
    """
    settings, scores, lineage = told.settings, told.scores, told.lineage
    spans, cuts = gather.without_idle(gather.spans(lineage))
    content: dict[str, Any] = {
        "name": settings.about.model_name,
        "description": settings.about.description or f"A sentence-embedding model made with the recipe {settings.recipe}.",
        "figures": _figures(told),
        "scores": scores,
        "verdict": scores.verdict(),
        "tables": [_scores(scores, name, table) for name, table in scores.tables.items()],
        "steps": _steps(scores),
        "tasks": sections.tasks(lineage),
        "groups": [
            {"id": name, "title": title, "parts": parts}
            for name, title, parts in (
                ("data", "Documents and pairs", sections.documents(lineage)),
                ("written", "Written pairs", sections.written(lineage, samples or {})),
                ("examples", "Examples", sections.examples(lineage)),
                ("phases", "Phases", sections.trained(lineage)),
                ("searches", "Searches", sections.searches(lineage)),
            )
            if parts
        ],
        "beside": _beside(lineage),
        "paused": bool(cuts),
        "models": sections.models(lineage),
        "lineage": _lineage(lineage),
        "facts": _facts(told),
        "pictures": _pictures(lineage, spans, cuts),
        "foot": f"RaySBERTa, recipe {settings.recipe}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    }
    content["contents"] = _contents(content)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    environment.filters.update(scored=scored, changed=changed)
    return environment.from_string(PAGE).render(content)


def _scores(scores: Scores, name: str, table: TaskTable) -> dict[str, Any]:
    """The own or the general tasks: their table with its pictures."""
    means = {model: mean.value for model, mean in table.means.items() if mean is not None}
    pairs = ((row, row.scores.get(scores.base), row.scores.get(scores.final)) for row in table.rows)
    moved = [(row.task, base.value, final.value, bool(row.change and row.change.clear)) for row, base, final in pairs if base and final]
    title, about = ABOUT[name]
    before_and_after, of_each = f"{title}: score of each before and after", f"{title}: mean score of each model"
    return {
        "title": title,
        "about": about,
        "rows": table.rows,
        "best": {row.task: max((each.value for each in row.scores.values() if each), default=None) for row in table.rows},
        "means": table.means,
        "change": table.change,
        "changes": Markup(pictures.changes(moved, scores.base, scores.final, before_and_after))
        if moved and scores.base != scores.final
        else None,
        "drawn": Markup(pictures.means(means, of_each)) if len(means) > 1 else None,
    }


def _steps(scores: Scores) -> Table | None:
    """What each phase gave or cost."""
    sides = list(scores.tables)
    rows = [
        [step.model, step.before, *(changed(step.changes.get(side)) for side in sides), f"{step.seconds:,.0f}"] for step in scores.steps
    ]
    return Table(["model", "against", *(f"{side} tasks" for side in sides), "seconds"], rows, (len(sides) + 2,)) if rows else None


def _contents(content: Mapping[str, Any]) -> list[dict[str, str]]:
    first = [{"id": "scores", "title": "Scores"}] if content["tables"] else []
    last = [{"id": name, "title": name.capitalize()} for name in ("timeline", "lineage")]
    return [*first, *({"id": group["id"], "title": group["title"]} for group in content["groups"]), *last]


def _figures(told: Told) -> list[dict[str, str]]:
    found = []
    scores, lineage = told.scores, told.lineage
    for name, table in scores.tables.items():
        mean = table.means.get(scores.final)
        if mean is not None and table.change is not None:
            found.append({"value": scored(mean), "label": f"mean of {name} tasks, {changed(table.change)} against the base"})
    sources = [source for _, _, facts in lineage.each(CorpusSources, CorpusFacts) for source in facts.sources.values()]
    if sources:
        read, kept = sum(source.read for source in sources), sum(source.kept for source in sources)
        found.append({"value": f"{kept:,}", "label": f"documents kept of {read:,} read"})
    learned = gather.learned(lineage, told.settings.final)
    if learned:
        found.append({"value": f"{sum(each.rows for each in learned):,}", "label": "examples that the final model learned from"})
    found.append({"value": f"{told.model.parameters / 1e6:.1f}M", "label": f"parameters, {told.model.dimension} dimensions"})
    return found


def _pictures(lineage: Lineage, spans: Sequence[gather.Span], cuts: Sequence[float]) -> dict[str, Markup | None]:
    bars = [(span.node, span.kind, span.started, span.seconds) for span in spans]
    graph = [(node.name, node.kind, [name for name in lineage.made_from(node) if lineage.get(name)]) for node in lineage]
    return {
        "timeline": Markup(pictures.timeline(bars, cuts, "When each node was made")),
        "graph": Markup(pictures.graph(graph)),
    }


def _beside(lineage: Lineage) -> str:
    """What was made at the same time, in words."""
    shared = gather.overlaps(gather.spans(lineage))
    if not shared:
        return "The nodes were made one after the other."
    longest = ", ".join(f"{first} and {second} {seconds:,.0f} s" for first, second, seconds in shared[:3])
    return f"What does not depend on one another is made side by side: {len(shared)} pairs of nodes shared time, {longest} the longest."


def _lineage(lineage: Lineage) -> Table:
    rows = []
    for node in sorted(lineage, key=lambda node: (node.manifest.started, node.name)):
        made, seconds = node.manifest, f"{node.manifest.seconds:,.1f}"
        rows.append([node.name, node.kind, made.fingerprint, ", ".join(lineage.made_from(node)), made.rows_in, made.rows_out, seconds])
    return Table(["node", "kind", "fingerprint", "made from", "rows in", "rows out", "seconds"], rows, (4, 5, 6), (2,))


def _facts(told: Told) -> list[tuple[str, str]]:
    last = max(told.lineage, key=lambda node: node.manifest.started).manifest
    prefixes = told.description.prefixes.model_dump(exclude_none=True).values()
    return [
        ("recipe", told.settings.recipe),
        ("final model", told.settings.final),
        ("base model", f"{told.settings.base}, {gather.origin_of(told.lineage, told.settings.base)}"),
        ("prefixes", ", ".join(repr(prefix) for prefix in prefixes)),
        ("pooling", told.description.pooling + ("" if told.description.include_prompt else ", without the prefix")),
        ("longest text", f"{told.model.max_tokens} tokens"),
        ("languages", ", ".join(told.settings.languages)),
        ("seed", ", ".join(map(str, gather.seeds(told.lineage))) or "nothing was drawn"),
        ("commit", last.commit or "not in a checkout"),
        ("versions", ", ".join(f"{name} {version}" for name, version in last.versions.items())),
    ]
