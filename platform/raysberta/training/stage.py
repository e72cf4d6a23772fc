"""The training phases on Ray: tasks make what they train on; Ray Train trains, with restarts and checkpoints on the run's storage.

The only file here that imports Ray. Prepared data and checkpoints live beside the attempts, in `draft.checkpoints`, so that a run killed at
any point goes on from its last checkpoint when the same stage with the same fingerprint runs again; they are removed once the model is
written. The process that leads holds numbers of rows and texts (examples.py, survey.py), no texts.
"""

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer

from raysberta.board import attach
from raysberta.errors import InputError
from raysberta.models.describe import describe
from raysberta.prefixes import Prefixes
from raysberta.progress import progress
from raysberta.retrieval.mapped import Mapped
from raysberta.retrieval.vectors import Vectors, View
from raysberta.retrieval.workers import embed_blocks, vectors_folder
from raysberta.spread import results
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import filesystem, join
from raysberta.telemetry import gauge
from raysberta.training.arrays import Tokens
from raysberta.training.checkpoint import NotSaved, last_whole, read_state
from raysberta.training.contrastive import objectives_of, plan_of, train_contrastive
from raysberta.training.dev_curve import DevHalves, read_curve, score_task
from raysberta.training.distil import train_distil
from raysberta.training.engine import ALLOCATOR, NotFinite
from raysberta.training.examples import Each, Examples
from raysberta.training.facts import DevPoint, DistilFacts, TrainingFacts
from raysberta.training.fidelity import fidelity
from raysberta.training.loop import StepMetrics
from raysberta.training.mlm import train_mlm
from raysberta.training.prepare import SIDES, cleared, compare_texts, prepare_examples, prepare_texts, shared, store_texts, text_units
from raysberta.training.settings import Contrastive, ContrastivePhase, Distil, DistilPhase, Mlm, MlmPhase
from raysberta.training.survey import Known, Reading, Unit, known, reading_of, row_groups
from raysberta.training.teacher import Blocks, Lessons, in_blocks, range_ends, teacher_hashes, teacher_texts
from raysberta.tuning.choice import with_values
from raysberta.tuning.facts import SearchFacts
from raysberta.work import Work, Workers

log = logging.getLogger(__name__)

RESTARTS = 2
CURVE_POINTS = 400
LEAST_COMPARED = 3
CURVE_KEYS = ("step", "loss", "learning_rate", "seconds", "tokens_per_second")
DATA, RESULT, SCORES = "data", "result.json", "scores"


AnyPhase = MlmPhase | ContrastivePhase | DistilPhase


@dataclass(frozen=True)
class Fit:
    """What a worker of Ray Train is given. Picklable."""

    phase: Mlm | Contrastive | Distil
    """With the values that a search chose."""
    model: Artifact
    """To start from."""
    work: Work[AnyPhase]
    data: str
    """Folder or URI of the arrays that it trains on."""
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
    model, data = work.inputs[phase.from_], join(draft.checkpoints, DATA)
    tokens = prepare_texts(phase, model, text_units(phase, work.inputs), data, _each(work.workers))
    draft.rows_in = draft.rows_out = len(tokens)
    count = tokens.count
    log.info("%s: %d distinct texts, %d tokens", work.node, len(tokens), count)
    result, curve = _fit(_mlm_worker, Fit(phase, model, work, data, _halves(work)))
    return TrainingFacts(**result, dev_curve=curve, tokens=count, rows={"texts": len(tokens)}, chosen=best)


def contrastive(work: Work[ContrastivePhase]) -> TrainingFacts:
    """Examples, and a model, to the folder `model`.

    Raises:
        InputError: there are no examples, they do not fit the model, or settings name sources that are not there.
    """
    best = _best(work)
    phase, draft = with_values(work.settings.phase, best), work.draft
    model, data = work.inputs[phase.from_], join(draft.checkpoints, DATA)
    mined = [work.inputs[name] for name in phase.examples]
    vectors, at = taught(work, phase, mined) if phase.distil is not None else (None, None)
    examples = prepare_examples(phase, model, mined, data, _each(work.workers), at)
    plan_of(examples, phase, work.seed)
    objectives_of(examples, phase)
    draft.rows_in = draft.rows_out = len(examples)
    count = examples.tokens.count
    rows = {name: int((examples.source == number).sum()) for number, name in enumerate(examples.sources)}
    log.info("%s: %d rows, %d distinct texts, temperature %g", work.node, len(examples), len(examples.tokens), phase.temperature)
    result, curve = _fit(_contrastive_worker, Fit(phase, model, work, data, _halves(work), vectors))
    return TrainingFacts(**result, dev_curve=curve, tokens=count, rows=rows, chosen=best)


def distil(work: Work[DistilPhase]) -> DistilFacts:
    """The training texts of pairs, examples and documents, a teacher, and a model, to the folder `model`.

    Raises:
        InputError: there is no text, or it does not fit the model.
    """
    phase, draft, each = work.settings.phase, work.draft, _each(work.workers)
    model, teacher, data = work.inputs[phase.from_], work.inputs[phase.teacher], join(draft.checkpoints, DATA)
    student = describe(model.folder("model", weights=False), prefixes=phase.prefixes).prefixes
    reads = describe(teacher.folder("model", weights=False)).prefixes
    reading = reading_of({"query": phase.max_tokens, "document": phase.max_tokens}, student, [reads], sys.maxsize)
    units = text_units(phase, work.inputs)
    dev = [unit for name in phase.pairs for unit in row_groups(work.inputs[name], "pairs", SIDES, "dev")]
    cleared(data)
    # what no step reads is given no vector
    stored = store_texts(units, reading, model, data, each, None if phase.steps is None else phase.steps * phase.batch_size)
    compared = compare_texts(dev, reading, each)
    apart = [np.unique(np.asarray([mark for _, _, mark in of_unit], np.uint64)) for of_unit in compared]
    vectors, at, counts = _teach(work, teacher, reads, [*units, *dev], reading, [*stored.marks, *apart], phase.max_tokens)
    lessons = Lessons(stored.tokens, at.rows(stored.others[:, -1]))
    lessons.save(data)
    draft.rows_in = draft.rows_out = len(lessons)
    tokens = lessons.tokens.count
    log.info("%s: %d distinct texts, %d tokens, vectors of %d dimensions", work.node, len(lessons), tokens, vectors.dimension)
    told = sorted(text for of_unit in compared for text in of_unit)
    view = View(vectors, at.rows(np.asarray([mark for _, _, mark in told], np.uint64)))
    seen = (tuple(text for _, text, _ in told), view) if len(told) >= LEAST_COMPARED else None
    result, curve = _fit(_distil_worker, Fit(phase, model, work, data, _halves(work), vectors, seen))
    facts: dict[str, Any] = {**result, **counts, "dev_curve": curve, "chosen": {}}
    return DistilFacts(**facts, tokens=tokens, rows={"texts": len(lessons)})


def taught(work: Work[Any], phase: Contrastive, mined: Sequence[Artifact]) -> tuple[Vectors, Known]:
    """The vectors that the phase's teacher has of all texts of its examples, and where each is. Those that an earlier run made are there.

    Args:
        work: Of the phase, or of trials of it.
        phase: With a teacher.
        mined: Its examples.
    """
    assert phase.distil is not None
    teacher, longest = work.inputs[phase.distil.teacher], max(phase.query_tokens, phase.document_tokens)
    prefixes = describe(teacher.folder("model", weights=False)).prefixes
    reading = reading_of({"query": longest, "document": longest}, prefixes, [prefixes], phase.negatives)
    units = [unit for artifact in mined for unit in row_groups(artifact, "examples", (*SIDES, "negatives"))]
    marks = list(_each(work.workers)(teacher_hashes, [(unit, reading) for unit in units]))
    return _teach(work, teacher, prefixes, units, reading, marks, longest)[:2]


def _teach(
    work: Work[Any],
    teacher: Artifact,
    prefixes: Prefixes,
    units: Sequence[Unit],
    reading: Reading,
    marks: Sequence[np.ndarray],
    max_tokens: int,
) -> tuple[Vectors, Known, dict[str, int]]:
    """A teacher's vectors of texts, where each is, and how many were made: those of an earlier run are there.

    The teacher is started once. The object store holds each text once, on its way from the unit that has it to its range; a process holds
    the texts of a range.

    Args:
        work: Of the stage.
        teacher: A model.
        prefixes: What it reads before a text.
        units: What has the texts.
        reading: How they are read.
        marks: uint64, rising: for each unit, hashes of its texts as the teacher has them.
        max_tokens: Longer texts are cut.
    """
    rising, wanted = shared(marks)
    folder, ends = vectors_folder(work.draft, teacher, max_tokens), range_ends(rising)
    cut = ray.remote(num_cpus=min(1.0, work.workers.cpus), num_returns=len(ends) + 1)(_in_ranges)
    join_up = ray.remote(num_cpus=min(1.0, work.workers.cpus), num_returns=2)(_joined)
    parts = [cut.remote(unit, reading, of_unit, ends) for unit, of_unit in zip(units, wanted, strict=True)]
    by_unit = [refs if isinstance(refs, list) else [refs] for refs in parts]
    joined = [join_up.remote(folder, *of_range) for of_range in zip(*by_unit, strict=True)]
    del parts, by_unit
    told: list[Blocks] = ray.get([blocks for blocks, _ in joined])
    fresh = sum(blocks.fresh for blocks in told)
    todo = [texts for blocks, (_, texts) in zip(told, joined, strict=True) if blocks.fresh]
    made, bad = embed_blocks(todo, teacher, max_tokens, work.workers, work.node, fresh)
    dimension = made or max(blocks.dimension for blocks in told)
    vectors = Vectors(tuple(path for blocks in told for path in blocks.paths), len(rising), dimension)
    at = known(prefixes, np.concatenate([blocks.hashes for blocks in told]))
    return vectors, at, {"embedded": fresh, "reused": len(rising) - fresh, "bad_vectors": bad}


def _in_ranges(*arguments: Any) -> Any:
    """As many values as there are ranges."""
    found = teacher_texts(*arguments)
    return found if len(found) > 1 else found[0]


def _joined(folder: str, *parts: pa.Table) -> tuple[Blocks, pa.Table]:
    return in_blocks(parts, folder)


def _each(workers: Workers) -> Each:
    return lambda function, arguments: results(function, arguments, workers)


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


def _fit(loop: Callable[[dict[str, Any]], None], fit: Fit) -> tuple[dict[str, Any], list[DevPoint]]:
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


def _mlm_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase = fit.phase
    assert isinstance(phase, Mlm)

    def run(output: Path | None, **running: Any) -> list[dict[str, float]]:
        return train_mlm(phase, fit.model.folder("model"), Tokens.load(fit.data), output, **running)

    _train(fit, run)


def _contrastive_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase = fit.phase
    assert isinstance(phase, Contrastive)
    teacher = Mapped(fit.teacher) if fit.teacher is not None else None

    def run(output: Path | None, **running: Any) -> list[dict[str, float]]:
        return train_contrastive(phase, fit.model.folder("model"), Examples.load(fit.data), output, teacher=teacher, **running)

    _train(fit, run)


def _distil_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase, model = fit.phase, fit.model.folder("model")
    assert isinstance(phase, Distil) and fit.teacher is not None
    teacher = Mapped(fit.teacher)

    def run(output: Path | None, **running: Any) -> list[dict[str, float]]:
        return train_distil(phase, model, Lessons.load(fit.data), teacher, output, **running)

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
