"""What a run prints at its end: the table of scores, where things lie, and one object for programs."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from raysberta.nodes import RELEASE
from raysberta.pipeline.execution import Outcome, link_latest
from raysberta.pipeline.plan import Plan
from raysberta.publishing.facts import ReleaseFacts
from raysberta.storage.artifacts import Store
from raysberta.storage.location import join, shown


def results(
    plan: Plan, outcome: Outcome, store: Store, until: Sequence[str], seconds: float
) -> tuple[list[RenderableType], dict[str, Any]]:
    """What to print, and the object of the last line: of one recipe its own, of several a list of them under `recipes`."""
    parts: list[RenderableType] = []
    found = []
    for recipe in plan.recipes:
        ids = plan.ids[recipe.name]
        one: dict[str, Any] = {"recipe": recipe.name}
        for name in until:
            if name in ids and name != RELEASE:
                one.setdefault("nodes", {})[name] = shown(outcome.artifacts[ids[name]].uri)
        if RELEASE in ids:
            release = outcome.artifacts[ids[RELEASE]]
            link = link_latest(store, recipe.name, release)
            facts = release.told(ReleaseFacts)
            if len(plan.recipes) == 1 and facts.table:
                parts.append(_scores(facts))
                parts.append(f"got worse: {', '.join(facts.worse)}" if facts.worse else "no task got worse")
            home = str(link) if link else release.uri
            one |= {"model": shown(join(home, "model")), "report": shown(join(home, "report", "report.html"))}
            one |= {"base": facts.base, "base_mean": facts.base_mean, "final_mean": facts.final_mean}
        found.append(one)
    if len(found) > 1:
        parts.append(_recipes(found))
    for one in found:
        parts += [f"{name}: {place}" for name, place in one.get("nodes", {}).items()]
        parts += [f"{name + ':':<7} {one[name]}" for name in ("model", "report") if name in one]
    whole = {"seconds": round(seconds, 1), "reused": outcome.reused}
    return parts, {**found[0], **whole} if len(found) == 1 else {"recipes": found, **whole}


def _scores(facts: ReleaseFacts) -> Table:
    """Tasks down, models across, the change at the end."""
    models = list(facts.table[0].scores)
    table = Table(title="test halves, main score x 100", title_justify="left")
    table.add_column("task")
    table.add_column("type")
    for model in models:
        table.add_column(model, justify="right")
    table.add_column("change", justify="right")
    for row in facts.table:
        change = "" if row.change is None else f"{row.change:+.2f}"
        table.add_row(row.task, row.type, *(_number(row.scores[model]) for model in models), change)
    return table


def _recipes(found: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="means of the test halves, x 100", title_justify="left")
    for heading in ("recipe", "compared with", "its mean", "final", "change"):
        table.add_column(heading, justify="left" if heading in ("recipe", "compared with") else "right")
    for one in found:
        base, final = one.get("base_mean"), one.get("final_mean")
        change = f"{final - base:+.2f}" if base is not None and final is not None else ""
        table.add_row(one["recipe"], one.get("base", ""), _number(base), _number(final), change)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
