"""The platform against what a user would do by hand with sentence-transformers from the same pairs, one JSON line a figure.

`python benchmarks/plain_alternative.py --store runs/laptop --recipe recipes/laptop.yaml`; `make bench-plain`. The run of the recipe must
be finished. By hand: hard negatives by mine_hard_negatives with the unchanged base encoder, then SentenceTransformerTrainer with
CachedMultipleNegativesRankingLoss on the same rows. Base, that, and the run's final model are scored on the same test halves by one scorer.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from plain_run import Finished, finished, general, printed, with_prompts
from raysberta.evaluation.means import two_means
from raysberta.evaluation.score import dev_scores, score_model
from raysberta.models.load import parameters
from raysberta.parsing import load

MEASURE = Path(__file__).with_name("plain_measure.py")
Figure = dict[str, Any]

SCALE, RATE, STEPS = 50.0, 5e-5, 40
SCALES, RATES, CHOOSING_STEPS = (20.0, 50.0, 100.0), (2e-5, 5e-5, 1e-4), 10
GENERAL_WEIGHT = 0.5
"""Of the general tasks in what scale and learning rate are chosen by, as in the recipe's own searches."""
GOALS = {"own": 1.0, "general": 0.5}
"""Points that the platform's final model is to be ahead, in the mean of each kind of task."""
FROM_MANIFESTS = 0.0
"""`--minutes` without a number."""


def measure(what: str, ask: dict[str, Any]) -> dict[str, Any]:
    """Run a part of the plain alternative and take what it printed last."""
    done = subprocess.run([sys.executable, str(MEASURE), what, json.dumps(ask)], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {what} {ask} ended with {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def kinds(run: Finished) -> dict[str, list[str]]:
    """Names of the tasks of each kind in GOALS."""
    wide = general(run.told)
    return {"own": [name for name in run.told if name not in wide], "general": wide}


def means(scores: Mapping[str, float], tasks: Mapping[str, Sequence[str]]) -> dict[str, float | None]:
    """Mean x 100 of each kind of task; None where there is no task of it."""
    return {kind: 100 * sum(scores[name] for name in names) / len(names) if names else None for kind, names in tasks.items()}


def scored(name: str, scores: Mapping[str, float], run: Finished, model: Path, **more: Any) -> Figure:
    """The line of one model."""
    found = {kind: None if value is None else round(value, 2) for kind, value in means(scores, kinds(run)).items()}
    by_task = {task: round(100 * value, 2) for task, value in scores.items()}
    return {"name": name, "value": found, "unit": "mean main score x 100", "goal": None, "met": None, "scores": by_task,
            "parameters": parameters(model), **more}  # fmt: skip


def ahead(kind: str, final: float | None, plain: float | None) -> Figure:
    """The line of a goal; its value is None where the recipe has no task of that kind."""
    points = None if final is None or plain is None else final - plain
    return {
        "name": f"{kind} tasks, the platform's final model minus the plain alternative",
        "value": None if points is None else round(points, 2),
        "unit": "points",
        "goal": f">= {GOALS[kind]:g}",
        "met": None if points is None else points >= GOALS[kind],
    }


def chosen(run: Finished, ask: dict[str, Any]) -> Iterator[tuple[Figure, dict[str, float]]]:
    """Short runs of every scale and learning rate: the line of each by the mean of the dev halves, and what it ran with."""
    for scale, rate in itertools.product(SCALES, RATES):
        values = {"scale": scale, "rate": rate}
        done = measure("train", ask | values | {"steps": CHOOSING_STEPS, "seconds": None})
        dev = two_means(dev_scores(Path(ask["out"]), run.tasks, (), run.how), kinds(run)["general"]).weighted(GENERAL_WEIGHT)
        name = f"dev halves after {CHOOSING_STEPS} steps, scale {scale:g}, learning rate {rate:g}"
        line = {"name": name, "value": round(100 * dev, 2), "unit": "mean main score x 100", "goal": None, "met": None}
        yield line | {"seconds": done["seconds"]}, values


def figures(arguments: argparse.Namespace, work: Path) -> Iterator[Figure]:
    """All lines."""
    run = finished(load(arguments.recipe, [f"storage={arguments.store}"]))
    base, final = run.folder(run.base), run.folder(run.final)
    pq.write_table(with_prompts(run.pairs, base), work / "pairs.parquet")
    ask = {"model": str(base), "pairs": str(work / "pairs.parquet"), "mined": str(work / "mined"), "out": str(work / "model")}
    mined = measure("mine", ask)
    ask |= {"sets": mined["sets"], "seed": arguments.seed, "scale": SCALE, "rate": RATE, "steps": arguments.steps, "seconds": None}
    if arguments.choose:
        trials = []
        for line, values in chosen(run, ask):
            trials.append((line["value"], values))
            yield line
        ask |= max(trials, key=lambda trial: trial[0])[1]
    if arguments.minutes is not None:
        ask["seconds"] = (60 * arguments.minutes or run.seconds) - mined["seconds"]
    done = measure("train", ask)
    plain = score_model(Path(ask["out"]), run.tasks, "test", run.how)
    yield scored("base encoder", run.scores(run.base), run, base)
    how = {name: ask[name] for name in ("scale", "rate", "seed")} | {name: done[name] for name in ("steps", "precision")}
    cost = {"seconds": round(mined["seconds"] + done["seconds"], 1), "mining_seconds": mined["seconds"]}
    cost |= {"peak_mib": max(mined["peak_mib"], done["peak_mib"]), "device": f"CPU, {torch.get_num_threads()} threads"}
    rows = {"pairs": run.pairs.num_rows, "trained_on": sum(one["mined"] for one in mined["sets"])}
    yield scored("plain alternative", plain, run, Path(ask["out"]), **how, **cost, **rows)
    ours = run.scores(run.final)
    yield scored("platform's final model", ours, run, final, seconds=round(run.seconds, 1))
    sides = means(ours, kinds(run)), means(plain, kinds(run))
    for kind in GOALS:
        yield ahead(kind, sides[0][kind], sides[1][kind])


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="runs/laptop", help="folder or URI of the run's artifacts")
    parser.add_argument("--recipe", default="recipes/laptop.yaml", help="the recipe that was run there")
    parser.add_argument("--seed", type=int, default=42, help="of the plain alternative's training")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the plain alternative")
    parser.add_argument(
        "--minutes",
        type=float,
        nargs="?",
        const=FROM_MANIFESTS,
        help="as many steps as fit, mining included; without a number the run's own time",
    )
    parser.add_argument("--choose", action="store_true", help="choose scale and learning rate by short runs on the dev halves first")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        return printed(figures(arguments, Path(work)))


if __name__ == "__main__":
    sys.exit(main())
