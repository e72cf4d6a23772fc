"""What every job does: read the recipe, check the environment and the inputs, print or run the plan, report errors in one line."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from raysberta.artifacts import Manifest, Store
from raysberta.environment import check
from raysberta.errors import InputError
from raysberta.recipe import Recipe, load

log = logging.getLogger(__name__)

DEFAULT_RECIPE = Path(__file__).parents[2] / "recipes" / "laptop.yaml"


def main(description: str, targets: Sequence[str], network: bool = False, argv: Sequence[str] | None = None) -> int:
    """Run the stages that `targets` need; the exit code: 0 done, 1 a stage broke, 2 the input is wrong.

    Args:
        description: What the job does, for its help text.
        targets: Names of stages of the pipeline.
        network: Whether models may be fetched from a hub.
        argv: The arguments; those of the process where None.
    """
    arguments = parser(description).parse_args(argv)
    begun = time.monotonic()
    try:
        check()
        recipe = load(arguments.recipe, tuple(arguments.set))
        return _dry_run(recipe, targets) if arguments.dry_run else _run(recipe, targets, network, begun)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was committed stays, the same command goes on from there", file=sys.stderr, flush=True)
        return 130


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all jobs share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--recipe", default=str(DEFAULT_RECIPE), help="the recipe, a YAML file (default: recipes/laptop.yaml)")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        help="change one setting of the recipe; may be repeated; null removes a source",
    )
    made.add_argument("--dry-run", action="store_true", help="print the plan: what is there, what would be made, with what resources")
    return made


def _dry_run(recipe: Recipe, targets: Sequence[str]) -> int:
    from raysberta.pipeline import plan

    store = Store(recipe.storage)
    table = Table(title=f"{recipe.name}: plan for {', '.join(targets)}", title_justify="left")
    for heading in ("stage", "state", "fingerprint", "reads", "resources"):
        table.add_column(heading)
    for item in plan(recipe, store, targets):
        workers = item.stage.resources(recipe)
        gpus = f", {workers.gpus:g} GPU" if workers.gpus else ""
        table.add_row(
            item.stage.name,
            "there" if item.artifact else "to make",
            item.fingerprint,
            ", ".join(item.stage.inputs),
            f"{workers.workers} x ({workers.cpus:g} CPU{gpus})",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for problem in problems(recipe):
        print(f"missing: {problem}")
    return 0


def problems(recipe: Recipe) -> list[str]:
    """What is wrong outside the recipe, a line each: sources and models that are not there."""
    from raysberta.corpus.evaluation_sets import check_evaluation_sets
    from raysberta.corpus.read import check_source
    from raysberta.encoder.fetch import check_models
    from raysberta.encoder.wechsel import check_files

    found = []
    checks = [partial(check_source, name, source) for name, source in recipe.sources.items()]
    for check_one in (*checks, partial(check_evaluation_sets, recipe), partial(check_models, recipe), partial(check_files, recipe)):
        try:
            check_one()
        except InputError as error:
            found.append(str(error))
    return found


def check_inputs(recipe: Recipe) -> Store:
    """The store of a recipe whose sources and models are there and whose storage can be written.

    Raises:
        InputError: one of them is not.
    """
    for problem in problems(recipe):
        raise InputError(problem)
    store = Store(recipe.storage)
    store.check_writable(recipe.resources.min_free_gib)
    return store


def _run(recipe: Recipe, targets: Sequence[str], network: bool, begun: float) -> int:
    store = check_inputs(recipe)
    from raysberta.execution import StageFailed, connect, execute, link_latest, summary
    from raysberta.pipeline import plan
    from raysberta.worker import configure_logging

    configure_logging()
    log.info("recipe %s, storage %s", recipe.name, store.uri)
    connect(network)
    try:
        outcome = execute(recipe, store, plan(recipe, store, targets))
    except StageFailed as error:
        print(f"failed: {error}", file=sys.stderr, flush=True)
        return 1
    for name in targets:
        if name in outcome.artifacts and name != "publish":
            print(f"{name}: {outcome.artifacts[name].uri}")
    if "publish" in outcome.artifacts:
        published = outcome.artifacts["publish"]
        link = link_latest(store, recipe, published)
        print_scores(published.manifest)
        result = summary(outcome, link, time.monotonic() - begun)
        print(f"model:  {result['model']}\nreport: {result['report']}")
        print(json.dumps(result, ensure_ascii=False), flush=True)
    return 0


def print_scores(manifest: Manifest) -> None:
    """Print the table of scores, percent points: tasks down, models across, the change at the end."""
    rows = manifest.metrics["table"]
    steps = [name for name in rows[0] if name not in ("task", "type", "change")]
    table = Table(title="test halves, main score x 100", title_justify="left")
    table.add_column("task")
    table.add_column("type")
    for step in steps:
        table.add_column(step, justify="right")
    table.add_column("change", justify="right")
    for row in rows:
        cells = [f"{row[step]:.2f}" if row[step] is not None else "" for step in steps]
        table.add_row(row["task"], row.get("type", ""), *cells, "" if row["change"] is None else f"{row['change']:+.2f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    worse = manifest.metrics["worse"]
    print(f"got worse: {', '.join(worse)}" if worse else "no task got worse")
