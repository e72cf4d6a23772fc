"""The training phases on Ray Train: workers, restarts, checkpoints on the run's storage. The only file here that imports Ray.

Prepared data and checkpoints live beside the attempts, in `draft.checkpoints`, so that a run killed at any point goes on from its last
checkpoint when the same stage with the same fingerprint runs again; they are removed once the model is written.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer

from raysberta.board import attach
from raysberta.errors import InputError
from raysberta.models.describe import describe
from raysberta.models.load import load_tokenizer
from raysberta.progress import progress
from raysberta.retrieval.mapped import Mapped
from raysberta.retrieval.vectors import Vectors, View
from raysberta.retrieval.workers import by_length, embed_to_storage, vectors_folder
from raysberta.storage.artifacts import Artifact, Draft
from raysberta.storage.location import filesystem, join
from raysberta.telemetry import gauge
from raysberta.training.checkpoint import NotSaved, last_whole, read_state
from raysberta.training.contrastive import objectives_of, plan_of, train_contrastive
from raysberta.training.dev_curve import DevHalves, read_curve, score_task
from raysberta.training.distil import train_distil
from raysberta.training.engine import ALLOCATOR, NotFinite
from raysberta.training.examples import Examples, Ragged, TeacherRows, prepared, prepared_texts, read_arrays, write_arrays
from raysberta.training.facts import DevPoint, DistilFacts, TrainingFacts
from raysberta.training.fidelity import fidelity
from raysberta.training.loop import StepMetrics
from raysberta.training.mlm import train_mlm
from raysberta.training.settings import Contrastive, ContrastivePhase, Distil, DistilPhase, Mlm, MlmPhase
from raysberta.training.teacher import Lessons, Readers, Reading, make_lessons, some
from raysberta.tuning.choice import with_values
from raysberta.tuning.facts import SearchFacts
from raysberta.work import Work

log = logging.getLogger(__name__)

RESTARTS = 2
CURVE_POINTS = 400
LEAST_COMPARED = 3
SIDES = ["task", "query", "positive"]
CURVE_KEYS = ("step", "loss", "learning_rate", "seconds", "tokens_per_second")
DATA, RESULT, SCORES = "data.safetensors", "result.json", "scores"


AnyPhase = MlmPhase | ContrastivePhase | DistilPhase


@dataclass(frozen=True)
class Fit:
    """What a worker of Ray Train is given. Picklable."""

    phase: Mlm | Contrastive | Distil
    """With the values that a search chose."""
    model: Artifact
    """To start from."""
    work: Work[AnyPhase]
    halves: DevHalves | None
    """What checkpoints are scored on; not at all where None."""
    teacher: Vectors | None = None
    """The teacher's, where there is one."""
    compared: tuple[tuple[str, ...], View] | None = None
    """Texts on which a student is compared with its teacher, and the teacher's vectors of them; not at all where None."""


def mlm(work: Work[MlmPhase]) -> TrainingFacts:
    """The training texts of pairs, and a model, to the folder `model`.

    Raises:
        InputError: there is no text, or it does not fit the model.
    """
    best = _best(work)
    phase, draft = with_values(work.settings.phase, best), work.draft
    model = work.inputs[phase.from_]
    tokens = prepared_texts(phase, model.folder("model", weights=False), [work.inputs[name] for name in phase.pairs])
    draft.rows_in = draft.rows_out = len(tokens)
    fs, path = _beside(draft)
    write_arrays({"values": tokens.values, "offsets": tokens.offsets}, f"{path}/{DATA}", fs)
    log.info("%s: %d distinct texts, %d tokens", work.node, len(tokens), len(tokens.values))
    result, curve = _fit(_mlm_worker, Fit(phase, model, work, _halves(work)))
    return TrainingFacts(**result, dev_curve=curve, tokens=len(tokens.values), rows={"texts": len(tokens)}, chosen=best)


def contrastive(work: Work[ContrastivePhase]) -> TrainingFacts:
    """Examples, and a model, to the folder `model`.

    Raises:
        InputError: there are no examples, they do not fit the model, or settings name sources that are not there.
    """
    best = _best(work)
    phase, draft = with_values(work.settings.phase, best), work.draft
    model = work.inputs[phase.from_]
    mined = [work.inputs[name] for name in phase.examples]
    vectors, at = _taught(work, phase, mined) if phase.distil is not None else (None, None)
    examples = prepared(phase, model.folder("model", weights=False), mined, at)
    plan_of(examples, phase, work.seed)
    objectives_of(examples, phase)
    draft.rows_in = draft.rows_out = len(examples)
    rows = {name: int((examples.source == number).sum()) for number, name in enumerate(examples.sources)}
    log.info("%s: %d rows, %d distinct texts, temperature %g", work.node, len(examples), len(examples.tokens), phase.temperature)
    fs, path = _beside(draft)
    examples.save(f"{path}/{DATA}", fs)
    result, curve = _fit(_contrastive_worker, Fit(phase, model, work, _halves(work), vectors))
    return TrainingFacts(**result, dev_curve=curve, tokens=len(examples.tokens.values), rows=rows, chosen=best)


def distil(work: Work[DistilPhase]) -> DistilFacts:
    """The training texts of pairs, examples and documents, a teacher, and a model, to the folder `model`.

    Raises:
        InputError: there is no text, or it does not fit the model.
    """
    phase, draft = work.settings.phase, work.draft
    model, teacher = work.inputs[phase.from_], work.inputs[phase.teacher]
    readers = Readers(
        describe(teacher.folder("model", weights=False)).prefixes,
        describe(model.folder("model", weights=False), prefixes=phase.prefixes).prefixes,
    )
    every = _readings(work, readers)
    # what no step reads is given no vector
    readings = set(every if phase.steps is None else some(every, phase.steps * phase.batch_size))
    ordered, vectors, counts = _embedded(work, teacher, readings, phase.max_tokens)
    lessons = make_lessons(readings, ordered, load_tokenizer(model.folder("model", weights=False)), phase.max_tokens)
    del readings, ordered
    draft.rows_in = draft.rows_out = len(lessons)
    fs, path = _beside(draft)
    write_arrays({"values": lessons.tokens.values, "offsets": lessons.tokens.offsets, "row": lessons.row}, f"{path}/{DATA}", fs)
    log.info(
        "%s: %d distinct texts, %d tokens, vectors of %d dimensions", work.node, len(lessons), len(lessons.tokens.values), vectors.dimension
    )
    compared = _compared(work, readers, teacher)
    result, curve = _fit(_distil_worker, Fit(phase, model, work, _halves(work), vectors, compared))
    told = {**result, **counts, "dev_curve": curve, "chosen": {}}
    return DistilFacts(**told, tokens=len(lessons.tokens.values), rows={"texts": len(lessons)})


def _taught(work: Work[ContrastivePhase], phase: Contrastive, mined: Sequence[Artifact]) -> tuple[Vectors, TeacherRows]:
    """A teacher's vectors of all texts of examples, and where each is."""
    assert phase.distil is not None
    teacher = work.inputs[phase.distil.teacher]
    prefixes = describe(teacher.folder("model", weights=False)).prefixes
    tables = (artifact.dataset("examples").to_batches(columns=[*SIDES, "negatives"]) for artifact in mined)
    readings = {reading for batches in tables for reading in Readers(prefixes, prefixes).of_pairs(batches)}
    ordered, vectors, _ = _embedded(work, teacher, readings, max(phase.query_tokens, phase.document_tokens))
    return vectors, TeacherRows(prefixes, {text: row for row, text in enumerate(ordered)})


def _readings(work: Work[DistilPhase], readers: Readers) -> Iterator[Reading]:
    """What is learned, with repetitions."""
    phase = work.settings.phase
    train = pads.field("split") == "train"
    for name in phase.pairs:
        yield from readers.of_pairs(work.inputs[name].dataset("pairs").to_batches(columns=SIDES, filter=train))
    for mined in phase.examples:
        yield from readers.of_pairs(work.inputs[mined].dataset("examples").to_batches(columns=[*SIDES, "negatives"]))
    if phase.documents is not None:
        documents = work.inputs[phase.documents].dataset("documents").to_batches(columns=["text"], filter=train)
        yield from readers.of_documents(documents, phase.max_tokens)


def _compared(work: Work[DistilPhase], readers: Readers, teacher: Artifact) -> tuple[tuple[str, ...], View] | None:
    """Some texts of dev pairs and the teacher's vectors of them; None where they are too few to be put in an order."""
    dev = pads.field("split") == "dev"
    tables = (work.inputs[name].dataset("pairs").to_batches(columns=SIDES, filter=dev) for name in work.settings.phase.pairs)
    readings = some(reading for batches in tables for reading in readers.of_pairs(batches))
    if len(readings) < LEAST_COMPARED:
        return None
    ordered, vectors, _ = _embedded(work, teacher, readings, work.settings.phase.max_tokens)
    at = {text: row for row, text in enumerate(ordered)}
    return tuple(student for _, student in readings), View(vectors, np.asarray([at[text] for text, _ in readings]))


def _embedded(
    work: Work[AnyPhase], teacher: Artifact, readings: Iterable[Reading], max_tokens: int
) -> tuple[list[str], Vectors, dict[str, int]]:
    """What a teacher reads in the order of its vectors, these, and how many were made: those of an earlier run are there."""
    ordered = sorted({text for text, _ in readings}, key=by_length)
    folder = vectors_folder(work.draft, teacher, max_tokens)
    return ordered, *embed_to_storage(ordered, folder, teacher, max_tokens, work.workers, work.node)


def _best(work: Work[MlmPhase | ContrastivePhase]) -> dict[str, float]:
    """What the phase's search found; empty without one."""
    choice = work.settings.given.choice
    return work.inputs[choice].told(SearchFacts).best if choice is not None else {}


def _halves(work: Work[AnyPhase]) -> DevHalves | None:
    """What checkpoints are scored on; None where the phase names no task."""
    names, given = work.settings.phase.dev_tasks, work.settings.given
    if not names or given.tasks is None:
        return None
    return DevHalves(work.node, work.inputs[given.tasks], names, given.scoring, join(work.draft.checkpoints, SCORES))


def _beside(draft: Draft) -> tuple[pafs.FileSystem, str]:
    """Where data, checkpoints and results of the phase are kept, created."""
    fs, path = filesystem(draft.checkpoints)
    fs.create_dir(path, recursive=True)
    return fs, path


def _fit(loop: Callable[[dict[str, Any]], None], fit: Fit) -> tuple[dict[str, Any], list[DevPoint]]:
    """Run a worker loop on Ray Train, from the last checkpoint where there is one: what the first worker tells, and the dev curve."""
    workers = fit.work.workers
    fs, path = _beside(fit.work.draft)
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


def _mlm_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase = fit.phase
    assert isinstance(phase, Mlm)

    def run(fs: pafs.FileSystem, path: str, output: Path | None, **running: Any) -> list[dict[str, float]]:
        arrays = read_arrays(f"{path}/{DATA}", fs)
        return train_mlm(phase, fit.model.folder("model"), Ragged(arrays["values"], arrays["offsets"]), output, **running)

    _train(fit, run)


def _contrastive_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase = fit.phase
    assert isinstance(phase, Contrastive)
    teacher = Mapped(fit.teacher) if fit.teacher is not None else None

    def run(fs: pafs.FileSystem, path: str, output: Path | None, **running: Any) -> list[dict[str, float]]:
        return train_contrastive(phase, fit.model.folder("model"), Examples.load(f"{path}/{DATA}", fs), output, teacher=teacher, **running)

    _train(fit, run)


def _distil_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase, model = fit.phase, fit.model.folder("model")
    assert isinstance(phase, Distil) and fit.teacher is not None
    teacher = Mapped(fit.teacher)

    def run(fs: pafs.FileSystem, path: str, output: Path | None, **running: Any) -> list[dict[str, float]]:
        arrays = read_arrays(f"{path}/{DATA}", fs)
        lessons = Lessons(Ragged(arrays["values"], arrays["offsets"]), arrays["row"])
        return train_distil(phase, model, lessons, teacher, output, **running)

    def told(output: Path) -> dict[str, Any]:
        if fit.compared is None:
            return {"fidelity": None}
        texts, vectors = fit.compared
        return {"fidelity": fidelity(model, output, texts, vectors[:], phase.max_tokens).model_dump()}

    _train(fit, run, told)


def _train(fit: Fit, run: Callable[..., list[dict[str, float]]], told: Callable[[Path], dict[str, Any]] | None = None) -> None:
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
            result = {**_told(run(fs, path, output, **running)), "resumed_after": resumed_after}
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
