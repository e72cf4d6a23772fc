"""How a model in training does on the dev halves: the scores of each checkpoint, a file each until the phase is done.

Ray Train's controller imports this file, and the training's own processes do: what scoring needs is imported where it happens.
"""

import json
import logging
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from pyarrow import fs as pafs

from raysberta.artifacts import Artifact, filesystem
from raysberta.recipe import Recipe
from raysberta.worker import configure_logging

log = logging.getLogger(__name__)


class Saved(Protocol):
    """A ray.train.Checkpoint, or whatever else has a folder `model`."""

    def as_directory(self) -> AbstractContextManager[str]:
        """The folder that `model` lies in, on this machine while the context lasts."""
        ...


def score_task(saved: Saved, step: int, recipe: Recipe, phase: str, benchmark: Artifact, home: str) -> dict[str, float]:
    """A Ray task of its own: training goes on meanwhile, and also where this fails. See score_step."""
    import torch

    configure_logging()
    torch.set_num_threads(max(1, int(recipe.resources.evaluation.cpus)))
    with saved.as_directory() as folder:
        return score_step(recipe, phase, Path(folder) / "model", step, benchmark, home)


def score_step(recipe: Recipe, phase: str, folder: Path, step: int, benchmark: Artifact | Path, home: str) -> dict[str, float]:
    """Score what a phase had made after so many steps, and write it down.

    Args:
        recipe: Of the run.
        phase: "mlm" or "contrastive".
        folder: The encoder, a plain Hugging Face folder.
        step: Steps finished.
        benchmark: The artifact of stage `benchmark`, or its folder of tasks.
        home: Folder or URI for the scores; what an earlier attempt wrote of this step is replaced.

    Returns:
        Task name to main score, a fraction.
    """
    from raysberta.evaluation.score import (
        dev_scores,
        mean,
    )  # mteb takes seconds to import, and the training's own processes need none of it

    begun = time.monotonic()
    scores = dev_scores(recipe, folder, benchmark)
    score, seconds = mean(scores), round(time.monotonic() - begun, 1)
    point = {"step": step, "score": score, "scores": scores, "seconds": seconds}
    fs, path = filesystem(home)
    fs.create_dir(path, recursive=True)
    with fs.open_output_stream(f"{path}/{step:08d}.new") as stream:
        stream.write(json.dumps(point).encode())
    fs.move(f"{path}/{step:08d}.new", f"{path}/{step:08d}.json")
    told = ", ".join(f"{task} {100 * score:.2f}" for task, score in scores.items())
    log.info("%s: after step %d dev mean %.2f (%s), scored in %.0f s", phase, step, 100 * score, told, seconds)
    return scores


def read_curve(home: str) -> list[dict[str, Any]]:
    """What was written, by step: step, score (the mean), scores {task: fraction}, seconds."""
    fs, path = filesystem(home)
    points = []
    for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        if info.path.endswith(".json"):
            with fs.open_input_stream(info.path) as stream:
                points.append(json.loads(stream.read()))
    return sorted(points, key=lambda point: point["step"])
