"""What one trial of a search does and which trial wins; no Ray here.

Searches read the dev halves of the recipe's own tasks and nothing else: the guard of the evaluation room refuses the rest.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raysberta.artifacts import Artifact
from raysberta.evaluation.score import dev_scores, mean
from raysberta.merging.merge import Merged, Scope, merge
from raysberta.recipe import Recipe
from raysberta.training.contrastive import train_contrastive
from raysberta.training.examples import Examples

Trial = dict[str, Any]
"""What a trial tells: the value tried under its name, "score" (the mean), "scores" {task: fraction}, "seconds"."""


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
