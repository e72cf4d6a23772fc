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
import pyarrow as pa
from mteb.abstasks import AbsTask
from sklearn.exceptions import UndefinedMetricWarning

from raysberta.evaluation import task_folder
from raysberta.evaluation import tasks as held_out_tasks
from raysberta.evaluation.encoder import Embed, PrefixedEncoder, Remembered
from raysberta.evaluation.guard import Half, Purpose, check_readable, readable_tasks
from raysberta.evaluation.recorder import Recorder
from raysberta.evaluation.settings import Scoring
from raysberta.prefixes import Prefixes
from raysberta.retrieval.embed import Embedder
from raysberta.storage.artifacts import Artifact

log = logging.getLogger(__name__)

BATCH = 4096
"""Texts that mteb hands over at once; the embedder makes its own batches by length."""
MODEL, REVISION = "raysberta/model", "local"
"""How mteb's results name a model that nobody named."""


@dataclass
class Scored:
    """What one model scored."""

    scores: dict[str, float] = field(default_factory=dict)
    """Main score of each task, a fraction."""
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """mteb's full result of each task."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each task, embedding included where the function embeds."""
    types: dict[str, str] = field(default_factory=dict)
    """mteb's type of each task."""
    items: dict[str, pa.Table | None] = field(default_factory=dict)
    """What each query, pair or text of a task adds to its score (see items.py); None where it cannot be told."""

    def add(self, other: "Scored") -> None:
        """Take in the scores of further tasks."""
        self.scores.update(other.scores)
        self.results.update(other.results)
        self.seconds.update(other.seconds)
        self.types.update(other.types)
        self.items.update(other.items)


def score_model(
    folder: Path, tasks: Artifact | Path, half: Half, how: Scoring, names: Sequence[str] = (), purpose: Purpose = "report"
) -> dict[str, float]:
    """Main scores of a model folder on one half of held-out tasks, with the pooling and the prefixes that the folder says.

    Args:
        folder: A folder of an encoder that describes itself.
        tasks: The artifact of held-out tasks, or its folder.
        half: "dev" for searches and trainings, "test" for the final table.
        how: Where texts are cut, and the precision.
        names: Of the tasks to score on; all where empty.
        purpose: "tuning" where the score chooses something: test halves and public tasks are refused then.

    Returns:
        Task name to main score, a fraction (0 to 1), in the order of the tasks.

    Raises:
        InputError: the guard refuses, a task is unknown, or the folder is no model.
    """
    location, index = task_folder.read(tasks)
    check_readable(half, purpose, index.tasks, names)
    embedder = Embedder(folder, how.max_tokens, how.precision)
    found = held_out_tasks.load(location, index, half, list(names) or list(index.tasks))
    return score_tasks(found, Remembered(embedder.encode), embedder.description.prefixes).scores


def dev_scores(folder: Path, tasks: Artifact | Path, names: Sequence[str], how: Scoring) -> dict[str, float]:
    """Scores of a model folder on dev halves, fractions by task: what searches and trainings look at.

    Args:
        folder: A folder of an encoder that describes itself.
        tasks: The artifact of held-out tasks, or its folder.
        names: Of the tasks; all where empty.
        how: Where texts are cut, and the precision.

    Raises:
        InputError: a name is a public task's or unknown, there is no task, or the folder is no model.
    """
    readable = readable_tasks(task_folder.read(tasks)[1].tasks, names)
    return score_model(folder, tasks, "dev", how, readable, "tuning")


def score_own(
    embed: Embed,
    prefixes: Prefixes,
    tasks: Artifact | Path,
    half: Half,
    names: Sequence[str] = (),
    model: str = MODEL,
    revision: str = REVISION,
) -> Scored:
    """As score_model for the report, with full results, over any embedding function.

    Args:
        embed: Texts with their prefix to L2-normalised float32 vectors [n, d].
        prefixes: The prefixes that the model was trained with.
        tasks: The artifact of held-out tasks, or its folder.
        half: Which half to read.
        names: Of the tasks; all where empty.
        model: How mteb's results name the model, `owner/name`.
        revision: Of the model, for mteb's results.
    """
    location, index = task_folder.read(tasks)
    check_readable(half, "report", index.tasks, names)
    found = held_out_tasks.load(location, index, half, list(names) or list(index.tasks))
    return score_tasks(found, Remembered(embed), prefixes, model=model, revision=revision)


def score_tasks(
    tasks: Mapping[str, AbsTask],
    embed: Embed,
    prefixes: Prefixes,
    *,
    overrides: dict[str, str] | None = None,
    model: str = MODEL,
    revision: str = REVISION,
) -> Scored:
    """Run mteb on task instances; scores are keyed as the tasks are."""
    encoder = PrefixedEncoder(embed, prefixes, model, revision, overrides)
    scored = Scored()
    datasets.disable_progress_bars()
    for key, task in tasks.items():
        started = time.monotonic()
        recorder = Recorder(task)
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
        scored.items[key] = recorder.items(scored.scores[key])
        scored.types[key] = str(task.metadata.type)
        scored.seconds[key] = round(time.monotonic() - started, 2)
        log.info("%s: %s %.2f in %.1f s", task.metadata.name, task.metadata.main_score, 100 * scored.scores[key], scored.seconds[key])
    return scored
