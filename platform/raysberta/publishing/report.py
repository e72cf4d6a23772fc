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
from raysberta.publishing.gather import Scores, Told
from raysberta.publishing.lineage import CorpusSources, Lineage
from raysberta.publishing.sections import Sample, Table
from raysberta.publishing.template import PAGE


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
        "verdict": verdict(scores),
        "best": {row.task: max((value for value in row.scores.values() if value is not None), default=None) for row in scores.rows},
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
        "pictures": _pictures(scores, lineage, spans, cuts),
        "foot": f"RaySBERTa, recipe {settings.recipe}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    }
    content["contents"] = _contents(content)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False).from_string(PAGE)
    return page.render(content)


def verdict(scores: Scores) -> list[dict[str, Any]]:
    """The result in a sentence or two, text and whether it is bad news; every task that got worse is named."""
    if scores.ends is None or scores.change is None:
        return [{"text": "Base and final model were not both scored on all tasks, so nothing can be said about the change.", "bad": True}]
    moved = f"{'gains' if scores.change >= 0 else 'loses'} {abs(scores.change):.2f} points"
    base, final = scores.ends
    first = f"On the mean of {len(scores.rows)} tasks the final model {moved}: {base:.2f} to {final:.2f}."
    if not scores.worse:
        return [{"text": f"{first} No task got worse.", "bad": scores.change < 0}]
    named = ", ".join(f"{row.task} ({row.change:+.2f})" for row in scores.worse)
    return [{"text": first, "bad": scores.change < 0}, {"text": f"Worse than the base: {named}.", "bad": True}]


def _contents(content: Mapping[str, Any]) -> list[dict[str, str]]:
    first = [{"id": "scores", "title": "Scores"}] if content["scores"].rows else []
    last = [{"id": name, "title": name.capitalize()} for name in ("timeline", "lineage")]
    return [*first, *({"id": group["id"], "title": group["title"]} for group in content["groups"]), *last]


def _figures(told: Told) -> list[dict[str, str]]:
    found = []
    scores, lineage = told.scores, told.lineage
    if scores.ends is not None:
        found.append({"value": f"{scores.ends[1]:.2f}", "label": f"mean score, {scores.change:+.2f} against the base"})
    sources = [source for _, _, facts in lineage.each(CorpusSources, CorpusFacts) for source in facts.sources.values()]
    if sources:
        read, kept = sum(source.read for source in sources), sum(source.kept for source in sources)
        found.append({"value": f"{kept:,}", "label": f"documents kept of {read:,} read"})
    learned = gather.learned(lineage, told.settings.final)
    if learned:
        found.append({"value": f"{sum(each.rows for each in learned):,}", "label": "examples that the final model learned from"})
    found.append({"value": f"{told.model.parameters / 1e6:.1f}M", "label": f"parameters, {told.model.dimension} dimensions"})
    return found


def _pictures(scores: Scores, lineage: Lineage, spans: Sequence[gather.Span], cuts: Sequence[float]) -> dict[str, Markup | None]:
    pairs = ((row.task, row.scores.get(scores.base), row.scores.get(scores.final)) for row in scores.rows)
    moved = [(task, base, final) for task, base, final in pairs if base is not None and final is not None]
    means = {model: mean for model, mean in scores.means.items() if mean is not None}
    bars = [(span.node, span.kind, span.started, span.seconds) for span in spans]
    graph = [(node.name, node.kind, [name for name in lineage.made_from(node) if lineage.get(name)]) for node in lineage]
    return {
        "changes": Markup(pictures.changes(moved, scores.base, scores.final)) if moved and scores.base != scores.final else None,
        "means": Markup(pictures.means(means)) if len(means) > 1 else None,
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
    prefixes = told.description.prefixes.model_dump().values()
    return [
        ("recipe", told.settings.recipe),
        ("final model", told.settings.final),
        ("base model", f"{told.settings.base}, {gather.origin_of(told.lineage, told.settings.base)}"),
        ("prefixes", ", ".join(repr(prefix) for prefix in prefixes)),
        ("pooling", told.description.pooling),
        ("longest text", f"{told.model.max_tokens} tokens"),
        ("languages", ", ".join(told.settings.languages)),
        ("seed", ", ".join(map(str, gather.seeds(told.lineage))) or "nothing was drawn"),
        ("commit", last.commit or "not in a checkout"),
        ("versions", ", ".join(f"{name} {version}" for name, version in last.versions.items())),
    ]
