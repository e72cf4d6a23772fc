"""What a run prints at its end: the table of scores, where things lie, and one object for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from raysberta.nodes import RELEASE
from raysberta.pipeline.execution import Outcome, link_latest
from raysberta.pipeline.plan import Plan
from raysberta.publishing.facts import ReleaseFacts, TaskTable
from raysberta.publishing.verdict import changed, scored, verdict
from raysberta.storage.artifacts import Store
from raysberta.storage.location import join, shown


def results(
    plan: Plan, outcome: Outcome, store: Store, until: Sequence[str], seconds: float
) -> tuple[list[RenderableType], dict[str, Any]]:
    """What to print, and the object of the last line: of one recipe its own, of several a list of them under `recipes`."""
    parts: list[RenderableType] = []
    found = []
    releases: dict[str, ReleaseFacts] = {}
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
            if len(plan.recipes) == 1:
                parts += _scores(facts)
            releases[recipe.name] = facts
            home = str(link) if link else release.uri
            one |= {"model": shown(join(home, "model")), "report": shown(join(home, "report", "report.html"))}
            one |= {f"model_{name}": shown(join(home, f"model_{name}")) for name in facts.beside}
            one |= {"base": facts.base, **_means(facts)}
        found.append(one)
    if len(found) > 1:
        parts += _recipes(releases)
    for one in found:
        parts += [f"{name}: {place}" for name, place in one.get("nodes", {}).items()]
        parts += [f"{name + ':':<7} {one[name]}" for name in one if name.split("_")[0] in ("model", "report")]
    whole = {"seconds": round(seconds, 1), "reused": outcome.reused}
    return parts, {**found[0], **whole} if len(found) == 1 else {"recipes": found, **whole}


def _means(facts: ReleaseFacts) -> dict[str, float | None]:
    """For programs: the means of the model compared with and of the final one, x 100; null where there is none."""
    ends = {"base": facts.base, "final": facts.final}
    means = {name: table.means for name, table in (("own", facts.own), ("general", facts.general))}
    found = {f"{name}_{end}": side.get(model) for name, side in means.items() for end, model in ends.items()}
    return {name: None if mean is None else mean.value for name, mean in found.items()}


def _scores(facts: ReleaseFacts) -> list[RenderableType]:
    """The verdict, then the own and the general tasks, a table each, then the means of all models where there are more than two."""
    tables = {name: table for name, table in (("own", facts.own), ("general", facts.general)) if table.rows}
    said: list[RenderableType] = [sentence.text for sentence in verdict(facts.own, facts.general, facts.base, facts.final)]
    ends = list(dict.fromkeys((facts.base, facts.final)))
    shown = [_tasks(name, table, ends) for name, table in tables.items()]
    return [*said, *shown, *_models(tables, ends)] if tables else []


def _tasks(name: str, given: TaskTable, ends: Sequence[str]) -> Table:
    """Tasks down, the first and the final model across, the change at the end, the means below."""
    table = Table(title=f"{name} tasks: test halves, main score x 100", title_justify="left", show_footer=True)
    table.add_column("task", "mean")
    table.add_column("type")
    for model in ends:
        table.add_column(model, scored(given.means.get(model)), justify="right")
    table.add_column("change", changed(given.change), justify="right")
    for row in given.rows:
        table.add_row(row.task, row.type, *(scored(row.scores.get(model)) for model in ends), changed(row.change))
    return table


def _models(tables: Mapping[str, TaskTable], ends: Sequence[str]) -> list[Table]:
    """The means of every scored model, in the order of the recipe."""
    models = list(dict.fromkeys(model for given in tables.values() for model in given.means))
    if len(models) <= len(ends):
        return []
    table = Table(title="means of every scored model", title_justify="left")
    table.add_column("model")
    for name in tables:
        table.add_column(f"{name} tasks", justify="right")
    for model in models:
        table.add_row(model, *(scored(given.means.get(model)) for given in tables.values()))
    return [table]


def _recipes(releases: Mapping[str, ReleaseFacts]) -> list[RenderableType]:
    """The means of several recipes: a table for own and one for general tasks, a recipe a row."""
    found: list[RenderableType] = []
    for name in ("general", "own"):
        tables = {recipe: (facts, facts.own if name == "own" else facts.general) for recipe, facts in releases.items()}
        if not any(given.rows for _, given in tables.values()):
            continue
        table = Table(title=f"means of the {name} tasks' test halves, x 100", title_justify="left")
        for heading in ("recipe", "compared with", "its mean", "final", "change"):
            table.add_column(heading, justify="left" if heading in ("recipe", "compared with") else "right")
        for recipe, (facts, given) in tables.items():
            means = (given.means.get(facts.base), given.means.get(facts.final))
            table.add_row(recipe, facts.base, *(scored(mean) for mean in means), changed(given.change))
        found.append(table)
    return found
