"""The two training phases on Ray Train: workers, restarts, checkpoints on the run's storage. The only file here that imports Ray.

Prepared data and checkpoints live beside the attempt, under `checkpoints`, so that a run killed at any point goes on from its
last checkpoint when the same stage with the same fingerprint runs again; they are removed once the model is written.
"""

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as pads
import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer

from raysberta.artifacts import Artifact, Draft, filesystem, sibling
from raysberta.encoder.load import load_tokenizer
from raysberta.errors import InputError
from raysberta.recipe import Recipe
from raysberta.telemetry import gauge
from raysberta.training.checkpoint import NotSaved, last_whole, read_state
from raysberta.training.contrastive import objectives_of, plan_of, train_contrastive
from raysberta.training.dev_curve import read_curve, score_task
from raysberta.training.engine import ALLOCATOR, NotFinite
from raysberta.training.examples import Examples, Ragged, prepared, ragged, read_arrays, tokenise, write_arrays
from raysberta.training.loop import StepMetrics
from raysberta.training.mlm import train_mlm

log = logging.getLogger(__name__)

VERSION: int = 5
RESTARTS = 2
MINED = ("mining", "mining_synthetic")
CURVE_POINTS = 400
CURVE_KEYS = ("step", "loss", "learning_rate", "seconds", "tokens_per_second")
DATA, RESULT, SCORES = "data.safetensors", "result.json", "scores"


def mlm(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """`vocabulary` and the training texts of `pairs` to the folder `model`; copied through where `mlm.enabled` is false.

    Checkpoints are scored where `benchmark` is among the inputs; so in both phases.
    """
    model = inputs["vocabulary"]
    if not recipe.mlm.enabled:
        log.info("mlm: off, the model goes on as it is")
        with draft.folder("model") as folder:
            shutil.copytree(model.folder("model"), folder, dirs_exist_ok=True)
        draft.metrics["curve"] = []
        return
    texts = _texts(inputs["pairs"])
    draft.rows_in = draft.rows_out = len(texts)
    if not texts:
        raise InputError("mlm: the pairs have no training text at all; right would be sources with pairs in their training split")
    tokens = ragged(tokenise(load_tokenizer(model.folder("model")), [(text, recipe.mlm.max_tokens) for text in texts]))
    fs, path = _beside(draft)
    write_arrays({"values": tokens.values, "offsets": tokens.offsets}, f"{path}/{DATA}", fs)
    log.info("mlm: %d distinct texts, %d tokens", len(tokens), len(tokens.values))
    draft.metrics["tokens"] = len(tokens.values)
    _fit("mlm", _mlm_worker, recipe, model, inputs.get("benchmark"), draft)


def contrastive(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """`mlm_merged` and the examples of `mining` and `mining_synthetic` to the folder `model`, at the temperature that was found."""
    model = inputs["mlm_merged"]
    settings = recipe.contrastive
    examples = prepared(recipe, model.folder("model"), [inputs[name] for name in MINED if name in inputs])
    plan = plan_of(examples, settings, recipe.seed)
    objectives_of(examples, settings)
    draft.rows_in = draft.rows_out = len(examples)
    temperature = float(inputs["temperature"].manifest.metrics["best"]) if "temperature" in inputs else settings.temperature
    shares = {name: int((examples.source == number).sum()) for number, name in enumerate(examples.sources)}
    draft.metrics.update(temperature=temperature, rows=shares, batches_per_epoch=len(plan.epoch(0)), tokens=len(examples.tokens.values))
    log.info("contrastive: %d rows, %d distinct texts, temperature %g", len(examples), len(examples.tokens), temperature)
    fs, path = _beside(draft)
    examples.save(f"{path}/{DATA}", fs)
    _fit("contrastive", _contrastive_worker, recipe, model, inputs.get("benchmark"), draft, temperature=temperature)


def _texts(pairs: Artifact) -> list[str]:
    """The distinct texts of both sides of the training pairs, sorted: the order owes nothing to files or workers."""
    table = pairs.dataset("pairs").to_table(columns=["query", "positive"], filter=pads.field("split") == "train")
    found = set(pc.unique(table["query"]).to_pylist()) | set(pc.unique(table["positive"]).to_pylist())
    return sorted(found)


def _beside(draft: Draft) -> tuple[Any, str]:
    fs, path = filesystem(sibling(draft, "checkpoints"))
    fs.create_dir(path, recursive=True)
    return fs, path


def _fit(
    phase: str,
    loop: Callable[[dict[str, Any]], None],
    recipe: Recipe,
    model: Artifact,
    benchmark: Artifact | None,
    draft: Draft,
    **more: Any,
) -> None:
    """Run a worker loop on Ray Train, from the last checkpoint where there is one, and take its result over into the draft."""
    workers = getattr(recipe.resources, phase)
    home = sibling(draft, "checkpoints")
    scores = f"{home}/{SCORES}"
    fs, path = filesystem(home)
    if fs.get_file_info(f"{path}/{RESULT}").is_file:
        fs.delete_file(f"{path}/{RESULT}")
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    # Ray Train takes both, its type hints are still those of the Train before
    start: dict[str, Any] = {"worker_runtime_env": {"env_vars": ALLOCATOR}}
    scored: dict[str, Any] = {"validation_config": _validation(recipe, phase, benchmark, scores)}
    trainer = TorchTrainer(
        loop,
        train_loop_config={
            "recipe": recipe,
            "model": model,
            "draft": draft,
            "threads": max(1, int(workers.cpus)),
            "scored": benchmark is not None,
            **more,
        },
        scaling_config=ray.train.ScalingConfig(num_workers=workers.workers, use_gpu=workers.gpus > 0, resources_per_worker=resources),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=home,
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
    draft.metrics.update(result)
    if benchmark is not None:
        draft.metrics["dev_curve"] = _dev_curve(recipe, phase, benchmark, draft, result["steps"], scores)
    fs.delete_dir(path)


def _validation(recipe: Recipe, phase: str, benchmark: Artifact | None, scores: str) -> ray.train.ValidationConfig | None:
    """How Ray Train has checkpoints scored while training goes on."""
    if benchmark is None:
        return None
    score = partial(score_task, recipe=recipe, phase=phase, benchmark=benchmark, home=scores)
    return ray.train.ValidationConfig(score, ray_remote_kwargs=_scoring(recipe, phase))


def _scoring(recipe: Recipe, phase: str) -> dict[str, Any]:
    place = recipe.resources.evaluation
    return {"num_cpus": place.cpus, "num_gpus": place.gpus, "name": f"{phase}_dev_scores"}


def _dev_curve(recipe: Recipe, phase: str, benchmark: Artifact, draft: Draft, steps: int, scores: str) -> list[dict[str, Any]]:
    """Score the trained model as its checkpoints were, and read all scores; those that are missing are named in the log."""
    fs, folder = filesystem(draft.uri)
    score = ray.remote(score_task).options(**_scoring(recipe, phase))
    try:
        ray.get(score.remote(ray.train.Checkpoint(folder, fs), steps, recipe, phase, benchmark, scores))
    except ray.exceptions.RayError as error:
        log.warning("%s: the trained model is not scored: %s", phase, str(error).strip().splitlines()[-1])
    curve = read_curve(scores)
    every = getattr(recipe, phase).checkpoint_every
    missing = sorted({*range(every, steps, every), steps} - {point["step"] for point in curve})
    if missing:
        log.warning("%s: no dev scores of step %s", phase, ", ".join(map(str, missing)))
    return curve


def _mlm_worker(config: dict[str, Any]) -> None:
    recipe, model = config["recipe"], config["model"]

    def run(fs: Any, path: str, output: Path | None, **running: Any) -> list[dict[str, float]]:
        arrays = read_arrays(f"{path}/{DATA}", fs)
        return train_mlm(recipe, model.folder("model"), Ragged(arrays["values"], arrays["offsets"]), output, **running)

    _work("mlm", config, run)


def _contrastive_worker(config: dict[str, Any]) -> None:
    recipe, model = config["recipe"], config["model"]

    def run(fs: Any, path: str, output: Path | None, **running: Any) -> list[dict[str, float]]:
        examples = Examples.load(f"{path}/{DATA}", fs)
        return train_contrastive(recipe, model.folder("model"), examples, output, temperature=config["temperature"], **running)

    _work("contrastive", config, run)


def _work(phase: str, config: dict[str, Any], run: Callable[..., list[dict[str, float]]]) -> None:
    """What both loops do on a worker: threads, logging, resuming, reporting; the first worker writes model and result."""
    _log_to_stderr()
    torch.set_num_threads(config["threads"])
    first = ray.train.get_context().get_world_rank() == 0
    draft: Draft = config["draft"]
    fs, path = filesystem(sibling(draft, "checkpoints"))

    def show(metrics: StepMetrics, steps: int) -> None:
        if first:
            gauge("loss", metrics.loss, phase=phase)
            gauge("tokens_per_second", metrics.tokens_per_second, phase=phase)
            gauge("training_progress", metrics.step / steps, phase=phase)

    def keep(folder: Path, step: int) -> None:
        checkpoint = ray.train.Checkpoint.from_directory(folder) if first else None
        score = ray.train.ValidationTaskConfig({"step": step}) if first and config["scored"] else False
        ray.train.report({"step": step}, checkpoint=checkpoint, validation=score)
        shutil.rmtree(folder, ignore_errors=True)

    with ExitStack() as stack:
        saved = ray.train.CheckpointConsistencyMode.COMMITTED  # scored or not: scoring may wait for the very cores that this worker holds
        reported = ray.train.get_all_reported_checkpoints(consistency_mode=saved) if ray.train.get_checkpoint() else []
        resume = last_whole(Path(stack.enter_context(found.checkpoint.as_directory())) for found in reversed(reported))
        resumed_after = read_state(resume)["step"] if resume else 0  # now: Ray Train may delete it once there are newer ones
        aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"raysberta-{phase}-")))
        output = stack.enter_context(draft.folder("model")) if first else None
        try:
            curve = run(fs, path, output, checkpoints=aside, resume=resume, on_step=show, on_checkpoint=keep)
            result: dict[str, Any] = {"curve": _thin(curve), "seconds": round(curve[-1]["seconds"], 1), "steps": len(curve)}
            result["resumed_after"] = resumed_after
            result["trained_tokens"] = int(sum(point["tokens"] for point in curve))
        except (NotFinite, NotSaved) as error:  # the same again would be the same again: no restart
            result = {"error": str(error)}
        except InputError as error:
            result = {"input_error": str(error)}
        if first:
            with fs.open_output_stream(f"{path}/{RESULT}") as stream:
                stream.write(json.dumps(result).encode())


def _thin(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most CURVE_POINTS points, the first and the last among them."""
    every = -(-len(curve) // CURVE_POINTS)
    kept = [point for number, point in enumerate(curve) if number % every == 0 or number == len(curve) - 1]
    return [{key: round(point[key], 8) for key in CURVE_KEYS} for point in kept]


def _log_to_stderr() -> None:
    """Ray forwards what workers print; this package's lines are worth reading."""
    room = logging.getLogger("raysberta")
    room.setLevel(logging.INFO)
    if not room.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        room.addHandler(handler)
        room.propagate = False
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
