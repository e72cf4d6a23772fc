"""What one trial of a search does and which trial wins; no Ray here.

Searches read the dev halves of the recipe's own tasks and nothing else: the guard of the evaluation room refuses the rest.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raysberta.artifacts import Artifact
from raysberta.errors import InputError
from raysberta.evaluation.guard import Half, check_readable
from raysberta.evaluation.score import mean, score_model
from raysberta.merging.merge import Merged, Scope, merge
from raysberta.recipe import Recipe
from raysberta.training.contrastive import train_contrastive
from raysberta.training.examples import Examples

Trial = dict[str, Any]
"""What a trial tells: the value tried under its name, "score" (the mean), "scores" {task: fraction}, "seconds"."""


def readable_tasks(recipe: Recipe, half: Half = "dev") -> tuple[str, ...]:
    """The tasks that a search of this recipe scores.

    Raises:
        InputError: `tuning.tasks` names a public or unknown task, there is none at all, or another half than dev is asked for.
    """
    tasks = recipe.tuning.tasks or tuple(recipe.evaluation.tasks)
    if not tasks:
        raise InputError("tuning: a search needs dev halves, and evaluation.tasks is empty")
    check_readable(half, "tuning", recipe.evaluation.tasks, tasks)
    return tasks


def dev_scores(recipe: Recipe, folder: Path, benchmark: Artifact | Path) -> dict[str, float]:
    """Dev scores of a model that knows the recipe's prefixes, as fractions by task."""
    return score_model(
        folder,
        pooling=recipe.encoder.pooling,
        prefixes=recipe.prefixes,
        benchmark=benchmark,
        half="dev",
        evaluation=recipe.evaluation,
        tasks=readable_tasks(recipe),
        purpose="tuning",
    )


def merge_scope(recipe: Recipe) -> Scope:
    """Which tensors the final merge covers."""
    return "all" if recipe.tuning.merge.include_embeddings else "encoder_layers"


def merge_trial(recipe: Recipe, newer: Path, older: Path, benchmark: Artifact | Path, weight: float) -> Trial:
    """Merge at one weight of the older model, aside, and score the result."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="raysberta-merge-") as aside:
        done: Merged = merge(newer, older, Path(aside) / "model", weight, merge_scope(recipe))
        scores = dev_scores(recipe, Path(aside) / "model", benchmark)
    return {"weight": weight, **_told(scores, begun), "linear_share": done.metrics()["linear_share"]}


def temperature_trial(recipe: Recipe, encoder: Path, examples: Examples, benchmark: Artifact | Path, temperature: float) -> Trial:
    """A short contrastive training at one temperature, in this process, and its scores. All trials see the same batches."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="raysberta-temperature-") as aside:
        model = Path(aside) / "model"
        curve = train_contrastive(recipe, encoder, examples, model, temperature=temperature, steps=recipe.tuning.temperature.steps)
        scores = dev_scores(recipe, model, benchmark)
    return {"temperature": temperature, **_told(scores, begun), "loss": curve[-1]["loss"]}


def best_trial(trials: Sequence[Trial], name: str) -> Trial:
    """The trial with the highest score; of equal ones that with the smallest value."""
    return min(trials, key=lambda trial: (-trial["score"], trial[name]))


def _told(scores: dict[str, float], begun: float) -> Trial:
    return {"score": mean(scores), "scores": scores, "seconds": round(time.monotonic() - begun, 2)}
