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

from raysberta.artifacts import Artifact, filesystem, write_whole
from raysberta.recipe import Recipe
from raysberta.worker import configure_logging

log = logging.getLogger(__name__)


class Saved(Protocol):
    """A ray.train.Checkpoint, or whatever else has a folder `model`."""

    def as_directory(self) -> AbstractContextManager[str]:
        """The folder that `model` lies in, on this machine while the context lasts."""
        ...


def score_task(saved: Saved, step: int, recipe: Recipe, phase: str, benchmark: Artifact, home: str) -> dict[str, float]:
    """Score what a phase had made after so many steps, and write it down. A Ray task: training goes on meanwhile, and where it fails.

    Args:
        saved: What has the encoder, a plain Hugging Face folder, as its folder `model`.
        step: Steps finished.
        recipe: Of the run.
        phase: "mlm" or "contrastive".
        benchmark: The artifact of stage `benchmark`.
        home: Folder or URI for the scores; what an earlier attempt wrote of this step is replaced.

    Returns:
        Task name to main score, a fraction.
    """
    import torch

    from raysberta.evaluation.score import dev_scores, mean

    configure_logging()
    torch.set_num_threads(max(1, int(recipe.resources.evaluation.cpus)))
    begun = time.monotonic()
    with saved.as_directory() as folder:
        scores = dev_scores(recipe, Path(folder) / "model", benchmark)
    whole, seconds = mean(scores), round(time.monotonic() - begun, 1)
    point = {"step": step, "score": whole, "scores": scores, "seconds": seconds}
    fs, path = filesystem(home)
    fs.create_dir(path, recursive=True)
    write_whole(fs, f"{path}/{step:08d}.json", json.dumps(point).encode())
    told = ", ".join(f"{task} {100 * score:.2f}" for task, score in scores.items())
    log.info("%s: after step %d dev mean %.2f (%s), scored in %.0f s", phase, step, 100 * whole, told, seconds)
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
