"""The job that leaves one source out after the other: read the recipe, run all variants as one plan, print one table."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from raysberta.errors import InputError
from raysberta.mining.facts import ExamplesFacts
from raysberta.parsing import load
from raysberta.pipeline import leave_one_out
from raysberta.pipeline.command import DEFAULT_RECIPE, check_inputs, make, parser, reported, with_lasting_storage
from raysberta.pipeline.dry_run import print_plan
from raysberta.pipeline.environment import check
from raysberta.pipeline.leave_one_out import Left
from raysberta.pipeline.optional import with_what_is_there
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Store
from raysberta.training.facts import DevPoint, TrainingFacts
from raysberta.training.settings import Contrastive


def main(description: str, argv: Sequence[str] | None = None) -> int:
    """Ablate the sources of one phase; the exit code: 0 done, 1 a stage broke, 2 the input is wrong.

    Args:
        description: What the job does, for its help text.
        argv: The arguments; those of the process where None.
    """
    made = parser(description)
    made.add_argument("--phase", required=True, help="the contrastive phase whose sources are left out, one after the other")
    made.add_argument("--steps", type=int, default=None, help="steps of each training (default: the phase's own)")
    arguments = made.parse_args(argv)
    return reported(lambda: _ablate(arguments.recipe, arguments.set, arguments.vary, arguments.phase, arguments.steps, arguments.dry_run))


def _ablate(paths: Sequence[str], changes: Sequence[str], vary: Sequence[str], phase: str, steps: int | None, dry_run: bool) -> int:
    begun = time.monotonic()
    check()
    if len(paths) > 1 or vary:
        raise InputError("--recipe: sources of one recipe are left out; right would be one --recipe, and no --vary")
    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps}: right would be a whole number above 0")
    read = with_what_is_there(load(paths[0] if paths else DEFAULT_RECIPE, changes), fetch=not dry_run)
    recipe = with_lasting_storage(leave_one_out.everything(read, phase, steps))
    if dry_run:
        return print_plan([recipe, *leave_one_out.variants(recipe, phase, leave_one_out.sources(recipe, phase)).values()], [phase])
    store = check_inputs([recipe])
    rows = _rows(recipe, phase, store)
    variants = leave_one_out.variants(recipe, phase, list(rows))
    plan, outcome = make([recipe, *variants.values()], [phase], store)
    ends = {
        each.name: outcome.artifacts[plan.ids[each.name][phase]].told(TrainingFacts).dev_curve[-1] for each in (recipe, *variants.values())
    }
    whole = ends[recipe.name]
    found = leave_one_out.judged(whole, {key: ends[each.name] for key, each in variants.items()}, rows)
    Console(width=None if sys.stdout.isatty() else 140).print(table(phase, whole, found))
    result = {"recipe": recipe.name, "phase": phase, "steps": whole.step, "all": whole.scores}
    result |= {"all_own": whole.own, "all_general": whole.general}
    result |= {"without": [asdict(left) for left in found], "seconds": round(time.monotonic() - begun, 1), "reused": outcome.reused}
    print(json.dumps(result, ensure_ascii=False), flush=True)
    return 0


def _rows(recipe: Recipe, name: str, store: Store) -> Mapping[str, int]:
    """Examples of the phase by `source/kind`, which are made for it where they are not there."""
    phase = recipe.phases[name]
    assert isinstance(phase, Contrastive)
    plan, outcome = make([recipe], phase.examples, store)
    rows: dict[str, int] = {}
    for ref in phase.examples:
        for key, count in outcome.artifacts[plan.ids[recipe.name][ref]].told(ExamplesFacts).examples.items():
            rows[key] = rows.get(key, 0) + count
    return {key: count for key, count in rows.items() if count}


def table(phase: str, whole: DevPoint, found: Sequence[Left]) -> Table:
    """A line for each source, and the phase with all of them at the end."""
    made = Table(title=f"{phase}: dev halves x 100, with one source left out", title_justify="left")
    headings = ("left out", "rows", "own mean", "difference", "general mean", "difference", *whole.scores)
    for heading in headings:
        made.add_column(heading, justify="left" if heading == "left out" else "right", overflow="fold")
    for left in found:
        means = _shown(left.own), _shown(left.own_difference, "+"), _shown(left.general), _shown(left.general_difference, "+")
        made.add_row(left.source, f"{left.rows:,}", *means, *(_shown(left.scores[task]) for task in whole.scores))
    made.add_row("nothing", "", _shown(whole.own), "", _shown(whole.general), "", *(_shown(score) for score in whole.scores.values()))
    return made


def _shown(score: float | None, sign: str = "") -> str:
    """A fraction x 100; nothing where there is none."""
    return "" if score is None else f"{100 * score:{sign}.2f}"
