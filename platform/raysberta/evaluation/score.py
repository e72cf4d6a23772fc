"""Scores of one model: plain functions without Ray, so a Tune trial, a stage and a test call the same code."""

import json
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import mteb
from mteb.abstasks import AbsTask
from sklearn.exceptions import UndefinedMetricWarning

from raysberta.artifacts import Artifact
from raysberta.encoder.pool import Pooling
from raysberta.evaluation import benchmark as held_out
from raysberta.evaluation import tasks as held_out_tasks
from raysberta.evaluation.encoder import Embed, PrefixedEncoder
from raysberta.evaluation.guard import Half, Purpose, check_readable, readable_tasks
from raysberta.prefixes import Prefixes
from raysberta.recipe import Evaluation, Recipe
from raysberta.retrieval.embed import Embedder

log = logging.getLogger(__name__)

BATCH = 4096
"""Texts that mteb hands over at once; the embedder makes its own batches by length."""


@dataclass
class Scored:
    """What one model scored."""

    scores: dict[str, float] = field(default_factory=dict)
    """Main score of each task, a fraction."""
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """mteb's full result of each task."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each task, embedding included."""
    types: dict[str, str] = field(default_factory=dict)
    """mteb's type of each task."""

    def add(self, other: "Scored") -> None:
        """Take in the scores of further tasks."""
        self.scores.update(other.scores)
        self.results.update(other.results)
        self.seconds.update(other.seconds)
        self.types.update(other.types)


def score_model(
    folder: Path,
    *,
    pooling: Pooling,
    prefixes: Prefixes,
    benchmark: Artifact | Path,
    half: Half,
    evaluation: Evaluation,
    tasks: Sequence[str] = (),
    purpose: Purpose = "report",
) -> dict[str, float]:
    """Main scores of a model folder on one half of the recipe's own held-out tasks.

    Args:
        folder: A Hugging Face encoder folder.
        pooling: "mean" or "cls".
        prefixes: The prefixes that the model was trained with.
        benchmark: The artifact of stage `benchmark`, or its folder of tasks.
        half: "dev" for searches and merges, "test" for the final table.
        evaluation: `recipe.evaluation`: max_tokens and precision are read.
        tasks: Names of the tasks to score on; all where empty.
        purpose: "tuning" where the score chooses something: test halves and public tasks are refused then.

    Returns:
        Task name to main score, a fraction (0 to 1), in the order of the tasks.

    Raises:
        InputError: the guard refuses, a task is unknown, or the folder is no model.
    """
    names, found, location = _open(benchmark, half, tasks, purpose)
    embedder = Embedder(Path(folder), pooling, evaluation.max_tokens, evaluation.precision)
    scored = score_tasks(held_out_tasks.load(location, found, half, names), embedder.encode, prefixes)
    return scored.scores


def dev_scores(recipe: Recipe, folder: Path, benchmark: Artifact | Path) -> dict[str, float]:
    """Dev scores of a model that knows the recipe's prefixes, as fractions by task: what searches and trainings look at."""
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


def score_own(
    embed: Embed,
    prefixes: Prefixes,
    benchmark: Artifact | Path,
    half: Half,
    tasks: Sequence[str] = (),
    name: str = "raysberta/model",
    revision: str = "local",
) -> Scored:
    """As score_model for the report, with full results, over any embedding function.

    Args:
        embed: Texts with their prefix to L2-normalised float32 vectors [n, d].
        prefixes: The prefixes that the model was trained with.
        benchmark: The artifact of stage `benchmark`, or its folder of tasks.
        half: Which half to read.
        tasks: Names of the tasks; all where empty.
        name: Of the model, for mteb's results.
        revision: Of the model, for mteb's results.
    """
    names, found, location = _open(benchmark, half, tasks, "report")
    return score_tasks(held_out_tasks.load(location, found, half, names), embed, prefixes, name=name, revision=revision)


def score_tasks(
    tasks: Mapping[str, AbsTask],
    embed: Embed,
    prefixes: Prefixes,
    *,
    overrides: dict[str, str] | None = None,
    name: str = "raysberta/model",
    revision: str = "local",
) -> Scored:
    """Run mteb on task instances; scores are keyed as the tasks are."""
    encoder = PrefixedEncoder(embed, prefixes, name, revision, overrides)
    scored = Scored()
    datasets.disable_progress_bars()
    for key, task in tasks.items():
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # a label that a probe never predicts; it counts as 0
            result = mteb.evaluate(
                encoder,
                task,
                cache=None,
                co2_tracker=False,
                show_progress_bar=False,
                encode_kwargs={"batch_size": BATCH, "show_progress_bar": False},
            ).task_results[0]
        scored.scores[key] = float(result.get_score())
        scored.results[key] = json.loads(result.model_dump_json())
        scored.types[key] = str(task.metadata.type)
        scored.seconds[key] = round(time.monotonic() - started, 2)
        log.info("%s: %s %.2f in %.1f s", task.metadata.name, task.metadata.main_score, 100 * scored.scores[key], scored.seconds[key])
    return scored


def mean(scores: dict[str, float]) -> float:
    """Mean over tasks."""
    return sum(scores.values()) / len(scores)


def _open(benchmark: Artifact | Path, half: Half, tasks: Sequence[str], purpose: Purpose) -> tuple[list[str], held_out.Index, Path]:
    location, index = held_out.read(benchmark)
    check_readable(half, purpose, index.tasks, tasks)
    return list(tasks) or list(index.tasks), index, location
