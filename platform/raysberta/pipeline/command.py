"""What a job does: read recipes, check the environment and the inputs, print or run the plan, report errors in one line."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from raysberta.errors import InputError, StageFailed
from raysberta.nodes import names_data, nodes_of
from raysberta.parsing import load_all
from raysberta.pipeline.dry_run import print_plan, problems
from raysberta.pipeline.environment import check
from raysberta.pipeline.optional import with_what_is_there
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Store
from raysberta.storage.location import first_line, is_uri

if TYPE_CHECKING:  # a dry run does without Ray
    from raysberta.pipeline.execution import Outcome
    from raysberta.pipeline.plan import Plan

log = logging.getLogger(__name__)

DEFAULT_RECIPE = Path(__file__).parents[3] / "recipes" / "laptop.yaml"
EVENTS = "RAYSBERTA_EVENTS"
"""Set by the process that started this job and shows its events."""
RAYS_COPY = "runtime_resources"
"""Part of the path of the temporary copy that a submitted job runs in."""


def main(
    description: str, kinds: Sequence[str] = (), network: bool = False, ask_until: bool = False, argv: Sequence[str] | None = None
) -> int:
    """Make what a job is for; the exit code: 0 done, 1 a stage broke, 2 the input is wrong.

    Args:
        description: What the job does, for its help text.
        kinds: Make the nodes of these kinds; the release where empty.
        network: Whether models may be fetched from a hub.
        ask_until: Whether `--until` names the nodes to make.
        argv: The arguments; those of the process where None.
    """
    arguments = parser(description, ask_until).parse_args(argv)
    begun = time.monotonic()

    def action() -> int:
        check()
        read = load_all(arguments.recipe or [DEFAULT_RECIPE], arguments.set, arguments.vary)
        recipes = [with_what_is_there(with_lasting_storage(with_data_root(recipe)), fetch=not arguments.dry_run) for recipe in read]
        until = list(arguments.until) if ask_until else []
        until += [name for recipe in recipes for name, node in nodes_of(recipe).items() if node.kind in kinds]
        if arguments.dry_run:
            return print_plan(recipes, until)
        return _run(recipes, until, network, begun)

    return reported(action)


def reported(action: Callable[[], int]) -> int:
    """The exit code of what a job does; what is wrong is told in one line.

    Args:
        action: Gives the exit code where nothing is wrong.
    """
    try:
        return action()
    except StageFailed as error:
        print(f"failed: {error}", file=sys.stderr, flush=True)
        return 1
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except OSError as error:  # outside of a stage: a storage that does not answer, a full disk
        log.debug("failed", exc_info=True)
        print(f"failed: {first_line(error)}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was committed stays, the same command goes on from there", file=sys.stderr, flush=True)
        return 130


def parser(description: str, ask_until: bool = False) -> argparse.ArgumentParser:
    """The arguments that jobs share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--recipe", action="append", default=[], help="a recipe, a YAML file (default: recipes/laptop.yaml); several make one plan"
    )
    made.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="change one setting; may be repeated; null removes an entry"
    )
    made.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="A.B=C,D",
        help="one recipe for each value, in one plan; repeated: for each combination",
    )
    if ask_until:
        made.add_argument(
            "--until",
            action="append",
            default=[],
            metavar="NODE",
            help="make this node and what it needs, and nothing else; may be repeated",
        )
    made.add_argument(
        "--dry-run", action="store_true", help="print the graph: what is there, what would be made, where, how long it may take"
    )
    return made


def check_inputs(recipes: Sequence[Recipe]) -> Store:
    """The store of recipes whose sources and models are there and whose storage can be written.

    Raises:
        InputError: one of them is not.
    """
    for problem in problems(recipes):
        raise InputError(problem)
    return Store(recipes[0].storage)


def with_lasting_storage(recipe: Recipe) -> Recipe:
    """A relative storage of a submitted job would lie in Ray's temporary copy and vanish with it: on one node it goes to the home folder.

    Raises:
        InputError: the cluster has several nodes, so that no folder of this one will do.
    """
    if is_uri(recipe.storage) or Path(recipe.storage).is_absolute() or RAYS_COPY not in Path.cwd().parts:
        return recipe
    import ray

    from raysberta.pipeline.execution import connect

    connect()
    if len([node for node in ray.nodes() if node["Alive"]]) > 1:
        raise InputError(
            f"storage {recipe.storage}: is relative, and a submitted job runs in a temporary copy; right would be a folder or URI that all "
            "nodes reach: --set storage=s3://bucket/run"
        )
    place = Path.home() / "raysberta" / recipe.storage
    print(f"storage: {place} (a relative one would vanish with the job; --set storage=... chooses another)", flush=True)
    return recipe.model_copy(update={"storage": str(place)})


def with_data_root(recipe: Recipe) -> Recipe:
    """A relative data root of a submitted job would lie in Ray's temporary copy, which has no data.

    Raises:
        InputError: so it does, and the recipe names files there.
    """
    if is_uri(recipe.data) or Path(recipe.data).is_absolute() or RAYS_COPY not in Path.cwd().parts or not names_data(recipe):
        return recipe
    raise InputError(
        f"data {recipe.data}: is relative, and a submitted job runs in a temporary copy without it; right would be a folder or URI that "
        "all nodes reach: --set data=s3://bucket/data"
    )


def make(recipes: Sequence[Recipe], until: Sequence[str], store: Store, network: bool = False) -> "tuple[Plan, Outcome]":
    """Run the plan of recipes whose inputs are there, and show it on the way.

    Raises:
        InputError: a stage found its input to be wrong.
        StageFailed: a stage broke.
    """
    from raysberta.board import configure_logging
    from raysberta.pipeline.execution import connect, execute
    from raysberta.pipeline.plan import plan
    from raysberta.pipeline.view import Event, Events, view_here

    configure_logging()
    watched = os.environ.get(EVENTS) == "1"
    connect(network, show_logs=watched)
    made = plan(recipes, store, until)
    with Events() if watched else view_here() as view:
        view.show(Event("said", text=f"recipe {', '.join(recipe.name for recipe in recipes)}, storage {store.shown}"))
        return made, execute(made, store, view)


def _run(recipes: Sequence[Recipe], until: Sequence[str], network: bool, begun: float) -> int:
    store = check_inputs(recipes)
    made, outcome = make(recipes, until, store, network)
    from raysberta.pipeline.results import results

    table, result = results(made, outcome, store, until, time.monotonic() - begun)
    for part in table:
        Console(width=None if sys.stdout.isatty() else 140).print(part)
    print(json.dumps(result, ensure_ascii=False), flush=True)
    return 0
