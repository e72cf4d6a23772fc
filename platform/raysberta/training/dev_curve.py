"""How a model in training does on the dev halves: the scores of each checkpoint, a file each until the phase is done.

Ray Train's controller imports this file, and the training's own processes do: what scoring needs is imported where it happens.
"""

import logging
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pyarrow import fs as pafs

from raysberta.evaluation.settings import Scoring
from raysberta.storage.artifacts import Artifact, write_whole
from raysberta.storage.location import filesystem
from raysberta.training.facts import DevPoint

log = logging.getLogger(__name__)


class Saved(Protocol):
    """A ray.train.Checkpoint, or whatever else has a folder `model`."""

    def as_directory(self) -> AbstractContextManager[str]:
        """The folder that `model` lies in, on this machine while the context lasts."""
        ...


@dataclass(frozen=True)
class DevHalves:
    """What checkpoints of a phase are scored on, and where the scores are kept. Picklable."""

    node: str
    """The phase's name, for log lines."""
    tasks: Artifact | Path
    """Held-out tasks."""
    names: tuple[str, ...]
    """Those to score on."""
    how: Scoring
    home: str
    """Folder or URI for the scores."""


def score_task(saved: Saved, step: int, halves: DevHalves) -> dict[str, float]:
    """Score what a phase had made after so many steps, and write it down. A Ray task: training goes on meanwhile, and where it fails.

    Args:
        saved: What has the model, which says how it is used, as its folder `model`.
        step: Steps finished. What an earlier attempt wrote of this step is replaced.
        halves: What to score on.

    Returns:
        Task name to main score, a fraction.
    """
    import torch

    from raysberta.board import attach
    from raysberta.evaluation import task_folder
    from raysberta.evaluation.means import two_means
    from raysberta.evaluation.score import dev_scores

    attach()
    torch.set_num_threads(1)  # the task asks for one core
    begun = time.monotonic()
    with saved.as_directory() as folder:
        scores = dev_scores(Path(folder) / "model", halves.tasks, halves.names, halves.how)
    means = two_means(scores, [name for name, task in task_folder.read(halves.tasks)[1].tasks.items() if task.general])
    point = DevPoint(step=step, own=means.own, general=means.general, scores=scores, seconds=round(time.monotonic() - begun, 1))
    fs, path = filesystem(halves.home)
    fs.create_dir(path, recursive=True)
    write_whole(fs, f"{path}/{step:08d}.json", point.model_dump_json().encode())
    told = ", ".join(f"{task} {100 * score:.2f}" for task, score in scores.items())
    log.info("%s: after step %d dev %s (%s), scored in %.0f s", halves.node, step, means, told, point.seconds)
    return scores


def read_curve(home: str) -> list[DevPoint]:
    """What was written, by step."""
    fs, path = filesystem(home)
    points = []
    for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        if info.path.endswith(".json"):
            with fs.open_input_stream(info.path) as stream:
                points.append(DevPoint.model_validate_json(stream.read()))
    return sorted(points, key=lambda point: point.step)
