"""The rows of docs/quality.md: the recipe and its ablations, three seeds each, as one plan on one store, a JSON line a row; `make quality`.

What the variants share is made once. Stopped, or with further variants added, the same command goes on from what is there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plain_alternative import GOALS, kinds, means, scored
from plain_run import Finished, finished
from raysberta.errors import InputError
from raysberta.models.load import parameters
from raysberta.parsing import load
from raysberta.recipe import Recipe

JOB = Path(__file__).parents[1] / "jobs" / "full_pipeline.py"
Figure = dict[str, Any]

NO_BRANCH = ("phases.softened=null", "phases.adapted=null", "phases.settled=null", "phases.trimmed=null")
NOT_MERGED = ("phases.merged=null",)
SURGERY = ("final=settled", *NOT_MERGED, "phases.tuned=null", "phases.softened=null", "phases.adapted=null")
VARIANTS: dict[str, tuple[str, ...]] = {
    "without distil": ("phases.adapted.from=trimmed", "phases.softened.of=[adapted, trimmed]", "phases.settled=null"),
    "without general text": ("phases.trimmed.documents=null", "phases.settled.documents=null"),
    "without the branch": (
        *("phases.merged.of=[tuned, e5]", "phases.merged.weights=[1.0, 0.3]", "phases.merged.search.over={weights.1: [0.2, 0.6]}"),
        *NO_BRANCH,
    ),
    "without the merge towards the base": (
        "phases.merged.of=[tuned, softened]",
        "phases.merged.weights=[1.0, 0.15]",
        "phases.merged.search.over={weights.1: [0.0, 0.15]}",
    ),
    "without soup": ("final=tuned", *NOT_MERGED, *NO_BRANCH),
    "without prefixes": ("phases.tuned.prefixes=none",),
    "without hard negatives": ("phases.tuned.negatives=0",),
    "without frozen embeddings": ("phases.tuned.freeze_embeddings=false",),
    "20,000 pieces": (*SURGERY, "phases.trimmed.size=20000"),
    "48,000 pieces": (*SURGERY, "phases.trimmed.size=48000"),
    "90,000 pieces": (*SURGERY, "phases.trimmed.size=90000"),
}
"""Ablations: what each changes, as `--set` has it. The last three are what surgery costs once it is distilled back."""
WHOLE = "the recipe"
SEEDS = (42, 43, 44)


def recipes(path: Path, storage: str, folder: Path) -> dict[tuple[str, int], Path]:
    """A recipe file of every variant and seed, named after both. Of the ablations only the first and the final model are scored.

    Args:
        path: The recipe.
        storage: Of all of them.
        folder: Where the files are written.

    Raises:
        InputError: a variant sets what the recipe does not have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, files = load(path).name, {}
    for number, (variant, settings) in enumerate({WHOLE: (), **VARIANTS}.items()):
        common = [f"storage={storage}", *settings, *(() if variant == WHOLE else ("score=null",))]
        for seed in SEEDS:
            made = load(path, [*common, f"seed={seed}", f"name={name}-{number}-{seed}"])
            file = folder / f"{made.name}.yaml"  # JSON is YAML
            file.write_text(made.model_dump_json(by_alias=True, exclude_unset=True, indent=1), encoding="utf-8")
            files[variant, seed] = file
    return files


def lines(made: Mapping[tuple[str, int], Recipe]) -> Iterator[Figure]:
    """What finished runs came to, a line each: every scored model of the recipe and seed; every variant over its seeds."""
    runs = {key: finished(recipe) for key, recipe in made.items()}
    for (variant, seed), run in runs.items():
        if variant == WHOLE:
            yield from phases(run, seed)
    for variant in dict.fromkeys(variant for variant, _ in runs):
        own = [run for (other, _), run in runs.items() if other == variant]
        whole = [run for (other, _), run in runs.items() if other == WHOLE]
        cost = {"parameters": parameters(own[0].folder(own[0].final)), "seconds": [round(run.seconds, 1) for run in own]}
        for kind in GOALS:
            yield row(f"{variant}, {kind} tasks", finals(own, kind), finals(whole, kind) if variant != WHOLE else []) | cost


def phases(run: Finished, seed: int) -> Iterator[Figure]:
    """Every scored model of a run, with the seconds of its own node."""
    for name in run.known:
        seconds = run.models[name].manifest.seconds
        yield scored(f"{WHOLE}, seed {seed}, {name}", run.known[name], run, run.folder(name), seconds=round(seconds, 1))


def finals(runs: Sequence[Finished], kind: str) -> list[float]:
    """Mean x 100 of the final model over the tasks of a kind, one of each run; none where there is no such task."""
    found = [means(run.scores(run.final), kinds(run))[kind] for run in runs]
    return [value for value in found if value is not None]


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


def main() -> int:
    """Run what is not there yet, then print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/laptop.yaml"), help="the recipe")
    parser.add_argument("--store", default="runs/quality", help="folder or URI of all artifacts")
    arguments = parser.parse_args()
    try:
        files = recipes(arguments.recipe, arguments.store, Path("runs/quality-recipes"))
        words = [part for file in files.values() for part in ("--recipe", str(file))]
        code = subprocess.run([sys.executable, str(JOB), *words], stdout=sys.stderr, check=False).returncode
        if code:
            return code
        for line in lines({key: load(file) for key, file in files.items()}):
            print(json.dumps(line, ensure_ascii=False), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
