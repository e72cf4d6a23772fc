"""How a phase's loop runs on Ray Train: workers, restarts, checkpoints on the run's storage, scores beside the training.

Prepared data and checkpoints live beside the attempts, in `draft.checkpoints`, so that a run killed at any point goes on from its last
checkpoint when the same stage with the same fingerprint runs again; they are removed once the model is written.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer

from raysberta.board import attach
from raysberta.errors import InputError
from raysberta.progress import progress
from raysberta.retrieval.vectors import Vectors, View
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import filesystem, join
from raysberta.telemetry import gauge
from raysberta.training.checkpoint import NotSaved, last_whole, read_state
from raysberta.training.dev_curve import DevHalves, read_curve, score_task
from raysberta.training.engine import ALLOCATOR, NotFinite
from raysberta.training.facts import DevPoint
from raysberta.training.loop import StepMetrics
from raysberta.training.settings import Training
from raysberta.work import Work

log = logging.getLogger(__name__)

RESTARTS = 2
CURVE_POINTS = 400
CURVE_KEYS = ("step", "loss", "learning_rate", "seconds", "tokens_per_second")
RESULT, SCORES = "result.json", "scores"


@dataclass(frozen=True)
class Fit:
    """What a worker of Ray Train is given. Picklable."""

    phase: Training
    """With the values that a search chose."""
    model: Artifact
    """To start from."""
    work: Work[Any]
    """Of a node whose settings have the phase, and as `given` what it needs beside."""
    data: str
    """Folder or URI of the arrays that it trains on."""
    halves: DevHalves | None
    """What checkpoints are scored on; not at all where None."""
    teacher: Vectors | None = None
    """The teacher's, where there is one."""
    compared: tuple[tuple[str, ...], View] | None = None
    """Texts on which a student is compared with its teacher, and the teacher's vectors of them; not at all where None."""


def halves_of(work: Work[Any]) -> DevHalves | None:
    """What checkpoints are scored on; None where the phase names no task."""
    names, given = work.settings.phase.dev_tasks, work.settings.given
    if not names or given.tasks is None:
        return None
    return DevHalves(work.node, work.inputs[given.tasks], names, given.scoring, join(work.draft.checkpoints, SCORES))


def fit_on_ray(loop: Callable[[dict[str, Any]], None], fit: Fit) -> tuple[dict[str, Any], list[DevPoint]]:
    """Run a worker loop on Ray Train, from the last checkpoint where there is one: what the first worker tells, and the dev curve."""
    workers = fit.work.workers
    fs, path = filesystem(fit.work.draft.checkpoints)
    if fs.get_file_info(f"{path}/{RESULT}").is_file:
        fs.delete_file(f"{path}/{RESULT}")
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    # Ray Train takes both, its type hints are still those of the Train before
    start: dict[str, Any] = {"worker_runtime_env": {"env_vars": ALLOCATOR}}
    scored: dict[str, Any] = {"validation_config": _validation(fit)}
    trainer = TorchTrainer(
        loop,
        train_loop_config={"fit": fit},
        scaling_config=ray.train.ScalingConfig(num_workers=workers.workers, use_gpu=workers.gpus > 0, resources_per_worker=resources),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=path,
            storage_filesystem=fs,  # a URI's options are in it: Ray would take them for a part of the path
            failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            **start,
        ),
        **scored,
    )
    trainer.fit()
    with fs.open_input_stream(f"{path}/{RESULT}") as stream:
        result = json.loads(stream.read())
    if "input_error" in result:
        raise InputError(result["input_error"])
    if "error" in result:
        raise RuntimeError(result["error"])
    curve = _dev_curve(fit, fit.halves, result["steps"]) if fit.halves else []
    fs.delete_dir(path)
    return result, curve


def _validation(fit: Fit) -> ray.train.ValidationConfig | None:
    """How Ray Train has checkpoints scored while training goes on."""
    if fit.halves is None:
        return None
    return ray.train.ValidationConfig(partial(score_task, halves=fit.halves), ray_remote_kwargs=_scoring(fit))


def _scoring(fit: Fit) -> dict[str, Any]:
    return {"num_cpus": 1, "num_gpus": fit.work.workers.gpus, "name": f"{fit.work.node}_dev_scores"}


def _dev_curve(fit: Fit, halves: DevHalves, steps: int) -> list[DevPoint]:
    """Score the trained model as its checkpoints were, and read all scores; those that are missing are named in the log."""
    fs, folder = filesystem(fit.work.draft.uri)
    score = ray.remote(score_task).options(**_scoring(fit))
    try:
        ray.get(score.remote(ray.train.Checkpoint(folder, fs), steps, halves))
    except ray.exceptions.RayError as error:
        log.warning("%s: the trained model is not scored: %s", fit.work.node, str(error).strip().splitlines()[-1])
    curve, every = read_curve(halves.home), fit.phase.checkpoint_every
    missing = sorted({*range(every, steps, every), steps} - {point.step for point in curve})
    if missing:
        log.warning("%s: no dev scores of step %s", fit.work.node, ", ".join(map(str, missing)))
    return curve


def train_on_worker(fit: Fit, run: Callable[..., list[dict[str, float]]], told: Callable[[Path], dict[str, Any]] | None = None) -> None:
    """What all loops do on a worker: threads, logging and progress, resuming, reporting; the first worker writes model and result.

    What `told` says of the model that was written becomes a part of the result.
    """
    attach()
    torch.set_num_threads(max(1, int(fit.work.workers.cpus)))
    first, node = ray.train.get_context().get_world_rank() == 0, fit.work.node
    fs, path = filesystem(fit.work.draft.checkpoints)

    def show(metrics: StepMetrics, steps: int) -> None:
        if first:
            progress(node, "steps", metrics.step, steps)
            gauge("loss", metrics.loss, phase=node)
            gauge("tokens_per_second", metrics.tokens_per_second, phase=node)
            gauge("training_progress", metrics.step / steps, phase=node)

    def keep(folder: Path, step: int) -> None:
        checkpoint = ray.train.Checkpoint.from_directory(folder) if first else None
        score = ray.train.ValidationTaskConfig({"step": step}) if first and fit.halves else False
        ray.train.report({"step": step}, checkpoint=checkpoint, validation=score)
        shutil.rmtree(folder, ignore_errors=True)

    with ExitStack() as stack:
        saved = ray.train.CheckpointConsistencyMode.COMMITTED  # scored or not: scoring may wait for the very cores that this worker holds
        reported = ray.train.get_all_reported_checkpoints(consistency_mode=saved) if ray.train.get_checkpoint() else []
        resume = last_whole(Path(stack.enter_context(found.checkpoint.as_directory())) for found in reversed(reported))
        resumed_after = read_state(resume)["step"] if resume else 0  # now: Ray Train may delete it once there are newer ones
        running: dict[str, Any] = {"seed": fit.work.seed, "name": node, "resume": resume, "on_step": show, "on_checkpoint": keep}
        running["checkpoints"] = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raysberta-training-")))
        output = stack.enter_context(fit.work.draft.folder("model")) if first else None
        try:
            result = {**_told(run(output, **running)), "resumed_after": resumed_after}
            result |= told(output) if told is not None and output is not None else {}
        except (NotFinite, NotSaved) as error:  # the same again would be the same again: no restart
            result = {"error": str(error)}
        except InputError as error:
            result = {"input_error": str(error)}
        if first:
            with fs.open_output_stream(f"{path}/{RESULT}") as stream:
                stream.write(json.dumps(result).encode())


def _told(curve: list[dict[str, float]]) -> dict[str, Any]:
    """What TrainingFacts says of a whole curve."""
    steps, seconds = len(curve), round(curve[-1]["seconds"], 1)
    return {"curve": _thin(curve), "seconds": seconds, "steps": steps, "trained_tokens": int(sum(point["tokens"] for point in curve))}


def _thin(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most CURVE_POINTS points, the first and the last among them."""
    every = -(-len(curve) // CURVE_POINTS)
    kept = [point for number, point in enumerate(curve) if number % every == 0 or number == len(curve) - 1]
    return [{key: round(point[key], 8) for key in CURVE_KEYS} for point in kept]
