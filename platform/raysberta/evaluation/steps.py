"""What scoring a model is made of: steps, each over one task or one unit of texts, that any process of any node does.

What a step gives lies on storage, so the steps of one model may be done by one process or by many, and none is done twice after a kill.
A process holds the vectors of one task (encoder.py names the bounds), or those of one unit, and never more than 4 GiB of its own.
"""

import logging
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.fs as pafs
import torch
from mteb.abstasks import AbsTask

from raysberta.evaluation import items, snapshot, task_folder
from raysberta.evaluation import tasks as held_out_tasks
from raysberta.evaluation.job import Job, Wanted
from raysberta.evaluation.kept import Score
from raysberta.evaluation.score import score_tasks
from raysberta.evaluation.texts import list_texts
from raysberta.evaluation.units import Places, Stored, Unit, UnitEmbedder, embed, missing, plan
from raysberta.progress import progress
from raysberta.storage.artifacts import OBJECT_STORES
from raysberta.storage.location import filesystem

NOISY = ("mteb", "datasets", "transformers")
HALF: Final = "test"


Run = Callable[[Callable[..., None], Iterable[tuple[Any, ...]]], None]
"""Calls a function with each of some arguments, here or elsewhere."""


def score_here(job: Job, wanted: Sequence[Wanted]) -> None:
    """All steps, in this process."""

    def run(step: Callable[..., None], arguments: Iterable[tuple[Any, ...]]) -> None:
        for each in arguments:
            step(*each)

    def embed_all(units: list[Unit]) -> None:
        embedder, done = UnitEmbedder(job) if units else None, 0
        for unit in units:
            assert embedder is not None, "there is one where there are units"
            done += embed(unit, embedder.embedder)
            progress(job.node, "texts embedded", done, sum(len(unit.rows) for unit in units))

    score_all(job, wanted, run, embed_all)


def score_all(job: Job, wanted: Sequence[Wanted], run: Run, embed_all: Callable[[list[Unit]], None]) -> None:
    """Score a model on each task, as far as it is not yet, and keep each score.

    Args:
        job: What is scored.
        wanted: The tasks, in the order that decides which of them a shared text is embedded with.
        run: Does the steps of tasks.
        embed_all: Embeds units.
    """
    run(list_task, [(job, one) for one in wanted])
    units, places = plan([job.texts_of(one) for one in wanted], job.vectors)
    left = [(job, one, of_it) for one, of_it in zip(wanted, places, strict=True) if job.score_of(one) is None]
    needed = {number for _, _, of_it in left for number in np.unique(of_it.units).tolist()}
    embed_all(missing([unit for number, unit in enumerate(units) if number in needed], job.vectors))
    run(score_task, sorted(left, key=lambda each: -len(each[2].units)))  # the largest first: the others fill what is left


def list_task(job: Job, wanted: Wanted) -> None:
    """Write the texts that a task asks, unless they are there."""
    fs, path = filesystem(job.texts_of(wanted))
    if fs.get_file_info(path).type == pafs.FileType.File:
        return
    _prepare(job)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.parquet"
        list_texts(_load(job, wanted), job.prefixes, _overrides(job, wanted), file)
        target = path if fs.type_name in OBJECT_STORES else f"{path}.{uuid.uuid4().hex[:8]}.new"  # it appears whole
        fs.create_dir(path.rpartition("/")[0], recursive=True)
        pafs.copy_files(str(file), target, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=fs)
        if target != path:
            fs.move(target, path)


def score_task(job: Job, wanted: Wanted, places: Places) -> None:
    """Score a task whose vectors are there, and keep the score."""
    _prepare(job)
    task = {wanted.key: _load(job, wanted)}
    revision = job.model.manifest.fingerprint
    scored = score_tasks(task, Stored(places), job.prefixes, overrides=_overrides(job, wanted), revision=revision)
    table, result = scored.items[wanted.key], scored.results[wanted.key]
    drawn = None if table is None else items.draws(table, items.seed_of(wanted.key, result["dataset_revision"]))
    of_it = scored.scores[wanted.key], result, scored.seconds[wanted.key], scored.types[wanted.key]
    job.keep(wanted, Score(*of_it, table, drawn))


def _prepare(job: Job) -> None:
    """This process, for whatever step comes."""
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    torch.set_num_threads(max(1, int(job.cpus)))


def _load(job: Job, wanted: Wanted) -> AbsTask:
    """A fresh instance of a task."""
    if wanted.benchmark is not None:
        return snapshot.load(wanted.benchmark.name, wanted.benchmark.snapshot, [wanted.task])[wanted.task]
    assert job.tasks is not None, "it is a held-out task"
    folder, index = task_folder.read(job.tasks)
    return held_out_tasks.load(folder, index, HALF, [wanted.task])[wanted.task]


def _overrides(job: Job, wanted: Wanted) -> dict[str, str] | None:
    """Prefixes of single tasks."""
    return None if wanted.benchmark is None else snapshot.overrides(job.prefixes)
