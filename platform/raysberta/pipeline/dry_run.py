"""What a run would do, without doing it: the graph with states, places and times, and whatever is missing outside."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from raysberta.errors import InputError
from raysberta.nodes import nodes_of
from raysberta.pipeline.gpu_memory import gpu_memory, too_large
from raysberta.pipeline.plan import Plan, Planned, estimates, plan
from raysberta.pipeline.stages import missing
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Store
from raysberta.training.outside import GIB


def print_plan(recipes: Sequence[Recipe], until: Sequence[str]) -> int:
    """Print the plan and what is missing; the exit code: 2 where something is, otherwise 0."""
    store = Store(recipes[0].storage)
    made = plan(recipes, store, until)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_table(made, store))
    found = problems(recipes)
    for problem in found:
        print(f"missing: {problem}")
    return 2 if found else 0


def problems(recipes: Sequence[Recipe]) -> list[str]:
    """What is wrong outside of the recipes, a line each: sources and models that are not there, a storage that cannot be written, phases
    that do not fit on the GPUs."""
    found: dict[str, None] = {}
    for recipe in recipes:
        nodes = nodes_of(recipe)
        for node in nodes.values():
            found.update(dict.fromkeys(missing(node)))
        found.update(dict.fromkeys(too_large(recipe, nodes)))
    try:
        Store(recipes[0].storage).check_writable(max(recipe.limits.min_free_gib for recipe in recipes))
    except InputError as error:
        found[str(error)] = None
    return list(found)


def _table(made: Plan, store: Store) -> Table:
    times = estimates(made.nodes, store)
    known = sum(times.values())
    to_make = [item for item in made.nodes if item.artifact is None]
    unknown = sum(item.id not in times for item in to_make)
    title = f"{', '.join(recipe.name for recipe in made.recipes)}: {len(to_make)} of {len(made.nodes)} nodes to make"
    if times:
        title += f", about {_time(known)} one after the other" + (f" and {unknown} of unknown length" if unknown else "")
    table = Table(title=title, title_justify="left")
    for heading in ("node", "kind", "made from", "state", "fingerprint", "place"):
        table.add_column(heading, overflow="fold")
    table.add_column("time", justify="right")
    names = {item.id: item.title for item in made.nodes}
    for item in made.nodes:
        table.add_row(
            item.title,
            item.node.kind,
            _short([names[feed] for feed in item.inputs.values()]),
            "there" if item.artifact else "to make",
            item.fingerprint,
            _place(item, made.recipes),
            _time(item.artifact.manifest.seconds) if item.artifact else f"~ {_time(times[item.id])}" if item.id in times else "",
        )
    return table


def _short(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:4])} and {len(names) - 4} more"


def _place(item: Planned, recipes: Sequence[Recipe]) -> str:
    workers = item.workers
    gpus = f", {workers.gpus:g} GPU" if workers.gpus else ""
    all_nodes = ((recipe, nodes_of(recipe)) for recipe in recipes if gpus)
    owners = ((recipe, nodes) for recipe, nodes in all_nodes if nodes.get(item.node.name) == item.node)
    memory = next((gpu_memory(recipe, nodes, item.node.name) for recipe, nodes in owners), None)
    gpus += f" with {memory.total / GIB:.0f} GiB" if memory is not None else ""
    return f"{workers.workers} x ({workers.cpus:g} CPU{gpus})"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
