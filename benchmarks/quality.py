"""The rows of docs/quality.md: the recipe and its ablations as plans on one store, a JSON line a row; `make quality`.

One seed of each first, then two more of those whose difference from the recipe is under one point. What the variants share is made once.
Stopped, or with further variants asked for, the same command goes on from what is there.
"""

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plain_alternative import GOALS, kinds, means, scored
from plain_run import Finished, finished, printed, run_recipes, write_recipe
from raysberta.evaluation.bootstrap import interval
from raysberta.models.load import parameters
from raysberta.parsing import load
from raysberta.recipe import Recipe

Figure = dict[str, Any]

NO_BRANCH = ("phases.softened=null", "phases.adapted=null", "phases.settled=null", "phases.trimmed=null")
NOT_MERGED = ("phases.merged=null",)
HALVED = ("phases.tuned.examples=[drawn]", "phases.tuned.negatives=0", *NO_BRANCH)  # and what `halves` adds
NOT_CENTRED = ("phases.centred=null",)
SURGERY = ("final=settled", *NOT_CENTRED, *NOT_MERGED, "phases.tuned=null", "phases.softened=null", "phases.adapted=null")
VARIANTS: dict[str, tuple[str, ...]] = {
    "without distil": ("phases.adapted.from=trimmed", "phases.softened.of=[adapted, trimmed]", "phases.settled=null"),
    "without general text": ("phases.trimmed.documents=null", "phases.settled.documents=null"),
    "without the branch": (
        *("phases.merged.of=[tuned, e5]", "phases.merged.weights=[1.0, 0.1]", "phases.merged.search.over={weights.1: [0.0, 0.2]}"),
        *NO_BRANCH,
    ),
    "without the merge towards the base": (
        "phases.merged.of=[tuned, softened]",
        "phases.merged.weights=[1.0, 0.15]",
        "phases.merged.search.over={weights.1: [0.0, 0.15]}",
    ),
    "without soup": ("phases.centred.from=tuned", *NOT_MERGED, *NO_BRANCH),
    "without centring": ("final=merged", *NOT_CENTRED),
    "two mixtures, a greedy soup": (
        *HALVED,
        "phases.merged={kind: merge, of: [tuned, found, e5], choose: {kind: greedy, "
        "tasks: [DictionaryRetrieval, IntentRussian, ToolAcross, NameBitext, LawAreas]}}",
    ),
    "two mixtures, weights learned": (
        *HALVED,
        "phases.merged={kind: merge, of: [tuned, found], start: e5, choose: {kind: learned, examples: mined}}",
    ),
    "without prefixes": ("phases.tuned.prefixes=none",),
    "without a prefix for classes": ("sources.intents.pairs={same_label: paraphrase}", "phases.tuned.prefixes=null"),
    "without the teacher beside": ("phases.tuned.distil=null",),
    "without hard negatives": ("phases.tuned.negatives=0",),
    "without frozen embeddings": ("phases.tuned.freeze_embeddings=false",),
    "20,000 pieces": (*SURGERY, "phases.trimmed.size=20000"),
    "48,000 pieces": (*SURGERY, "phases.trimmed.size=48000"),
    "90,000 pieces": (*SURGERY, "phases.trimmed.size=90000"),
}
"""Ablations: what each changes, as `--set` has it. The last three are what surgery costs once it is distilled back."""
WHOLE = "the recipe"
SEEDS = (42, 43, 44)
NEAR = 1.0
"""Points: a difference below it is told over all seeds."""


def recipes(path: Path, storage: str, folder: Path, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], Path]:
    """A recipe file of every variant and seed, named after both. What lies between the first model and the last is scored once: of the
    recipe itself, with the first seed.

    Args:
        path: The recipe.
        storage: Of all of them.
        folder: Where the files are written.
        wanted: Variants with their seeds.

    Raises:
        InputError: a variant sets what the recipe does not have.
    """
    given = load(path)
    name, files = given.name, {}
    for number, (variant, settings) in enumerate({WHOLE: (), **VARIANTS}.items()):
        added = halves(given) if set(HALVED) <= set(settings) else ()
        for seed in [seed for seed in SEEDS if (variant, seed) in wanted]:
            ends = () if (variant, seed) == (WHOLE, SEEDS[0]) else ("score=null",)
            made = load(path, [f"storage={storage}", *added, *settings, *ends, f"seed={seed}", f"name={name}-{number}-{seed}"])
            files[variant, seed] = write_recipe(made, folder)
    return files


def halves(recipe: Recipe) -> tuple[str, ...]:
    """Two phases of half the steps in place of `tuned`: itself, and `found` with the mined examples, whose temperature is not searched."""
    tuned = recipe.phases["tuned"].model_dump(mode="json", by_alias=True, exclude_unset=True)
    half = {"steps": tuned["steps"] // 2, "warmup_steps": tuned["warmup_steps"] // 2}
    found = {**tuned, **half, "examples": ["mined"], "source_weights": {}, "search": None}
    return (*(f"phases.tuned.{key}={value}" for key, value in half.items()), f"phases.found={json.dumps(found)}")


def lines(made: Mapping[tuple[str, int], Recipe]) -> Iterator[Figure]:
    """What finished runs came to, a line each: every scored model of the recipe by seed; every variant over its seeds."""
    runs = {key: finished(recipe) for key, recipe in made.items()}
    for (variant, seed), run in runs.items():
        if variant == WHOLE:
            yield from phases(run, seed)
    for variant in dict.fromkeys(variant for variant, _ in runs):
        seeds = [seed for other, seed in runs if other == variant]
        own, whole = ([runs[each, seed] for seed in seeds] for each in (variant, WHOLE))
        cost = {"parameters": parameters(own[0].folder(own[0].final)), "seconds": [round(run.seconds, 1) for run in own]}
        for kind in GOALS:
            name, values = f"{variant}, {kind} tasks", finals(own, kind)
            if variant == WHOLE:
                yield row(name, values, []) | cost
            else:
                yield row(name, values, finals(whole, kind)) | paired(own, whole, kind) | cost


def near(runs: Mapping[str, Finished]) -> list[str]:
    """The variants that are under NEAR points from the recipe on either kind of task."""
    whole = runs[WHOLE]
    return [
        variant
        for variant, run in runs.items()
        if variant != WHOLE
        and any(abs(one - other) < NEAR for kind in GOALS for one, other in zip(finals([run], kind), finals([whole], kind), strict=True))
    ]


def phases(run: Finished, seed: int) -> Iterator[Figure]:
    """Every scored model of a run, with the seconds of its own node."""
    for name in run.known:
        seconds = run.models[name].manifest.seconds
        yield scored(f"{WHOLE}, seed {seed}, {name}", run.known[name], run, run.folder(name), seconds=round(seconds, 1))


def finals(runs: Sequence[Finished], kind: str) -> list[float]:
    """Mean x 100 of the final model over the tasks of a kind, one of each run; none where there is no such task."""
    found = [means(run.scores(run.final), kinds(run))[kind] for run in runs]
    return [value for value in found if value is not None]


def paired(runs: Sequence[Finished], whole: Sequence[Finished], kind: str) -> Figure:
    """The middle 95 % of the change of the final models' mean, seed by seed on the same draws of the tasks' items, then their mean."""
    names = kinds(runs[0])[kind]
    if not all(set(names) <= run.drawn.get(run.final, {}).keys() for run in (*runs, *whole)) or not names:
        return {}
    apart = [
        np.mean([one.drawn[one.final][task] - other.drawn[other.final][task] for task in names], axis=0)
        for one, other in zip(runs, whole, strict=True)
    ]
    changes = [after - before for after, before in zip(finals(runs, kind), finals(whole, kind), strict=True)]
    low, high = interval(float(np.mean(changes)), 100 * np.mean(apart, axis=0))
    return {"interval": [round(low, 2), round(high, 2)], "clear": low > 0 or high < 0}


def row(name: str, values: Sequence[float], whole: Sequence[float]) -> Figure:
    """A row of the table: the mean over seeds, and where `whole` is given the change against it.

    An ablation is to be behind the whole recipe: else what it leaves out earns nothing.
    """
    if not values:
        return {"name": name, "value": None, "goal": None, "met": None}
    mean = sum(values) / len(values)
    line: Figure = {"name": name, "value": round(mean, 2), "by_seed": [round(value, 2) for value in values]}
    if not whole:
        return line | {"goal": None, "met": None}
    change = mean - sum(whole) / len(whole)
    return line | {"change": round(change, 2), "goal": "change < 0", "met": change < 0}


def run_all(recipe: Path, store: str, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], Recipe]:
    """Run variants and seeds as one plan; what is there stays.

    Raises:
        InputError: a variant sets what the recipe does not have.
        subprocess.CalledProcessError: the run ended with an error, which it has told.
    """
    return run_recipes(recipes(recipe, store, Path("runs/quality-recipes"), wanted))


def rows(recipe: Path, store: str, variants: Collection[str], seeds: int) -> Iterator[Figure]:
    """Run what is not there yet, at most so many seeds of a variant that is near; the rows."""
    wanted = {(variant, SEEDS[0]) for variant in (WHOLE, *variants)}
    made = run_all(recipe, store, wanted)
    again = near({variant: finished(each) for (variant, _), each in made.items()})
    if more := {(variant, seed) for variant in (WHOLE, *again) for seed in SEEDS[:seeds]} - wanted:
        made = run_all(recipe, store, wanted | more)
    yield from lines(made)


def main() -> int:
    """Run what is not there yet, then print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/laptop.yaml"), help="the recipe")
    parser.add_argument("--store", default="runs/quality", help="folder or URI of all artifacts")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="which ablations")
    parser.add_argument("--seeds", type=int, choices=range(1, len(SEEDS) + 1), default=len(SEEDS), help="so many of a near variant at most")
    arguments = parser.parse_args()
    return printed(rows(arguments.recipe, arguments.store, arguments.only, arguments.seeds))


if __name__ == "__main__":
    sys.exit(main())
