"""A teacher's vectors of what a phase trains on, made on Ray once and kept: for the phase, and for trials of it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from raysberta.models.describe import describe
from raysberta.prefixes import Prefixes
from raysberta.retrieval.encoded import vectors_folder
from raysberta.retrieval.vectors import Vectors
from raysberta.retrieval.workers import Block, embed_blocks
from raysberta.spread import results
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import join
from raysberta.storage.on_disk import Growing
from raysberta.storage.runs import Place, Run, bucket_of, power_of_two, read_runs, scratch
from raysberta.training.arrays import Ragged
from raysberta.training.prepare import SIDES, shared
from raysberta.training.settings import Contrastive
from raysberta.training.survey import Known, Reading, Unit, known, reading_of, row_groups
from raysberta.training.teacher import RANGE, TEXTS, Blocks, in_blocks, teacher_hashes, teacher_texts, text_ranges
from raysberta.work import Work

HELD = 64 << 20
"""Bytes of texts that a task holds before it writes them."""
TOGETHER = 8 * RANGE
"""Texts that a task reads: with fewer, each range would have a piece in very many files."""
BUCKETS = 4
"""Of a range: what a range reads and does not need is a quarter of what it needs."""


def teach_examples(work: Work[Any], phase: Contrastive, mined: Sequence[Artifact]) -> tuple[Vectors, Known]:
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
    marks = results(teacher_hashes, [(unit, reading) for unit in units], work.workers)
    return teach(work, teacher, prefixes, units, reading, marks, longest)[:2]


def teach(
    work: Work[Any],
    teacher: Artifact,
    prefixes: Prefixes,
    units: Sequence[Unit],
    reading: Reading,
    marks: Iterable[np.ndarray],
    max_tokens: int,
) -> tuple[Vectors, Known, dict[str, int]]:
    """A teacher's vectors of texts, where each is, and how many were made: those of an earlier run are there.

    The teacher is started once. Texts go over storage: from the units that have them to their ranges, and from there, in the order in which
    they are embedded, to the teacher. A process holds three times HELD bytes of them, or those of a range; this one paths of blocks.

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
    folder, spans = vectors_folder(work.draft, teacher, max_tokens), text_ranges(rising)
    with scratch(work.draft) as aside:
        place = Place(aside, power_of_two(BUCKETS * len(spans)), HELD)
        most = math.ceil(len(units) / (4 * work.workers.workers * work.workers.cpus))
        asked = (([(units[number], wanted[number]) for number in some], reading, place) for some in _bundles(wanted, most))
        runs = ray.put([run for of_some in results(text_runs, asked, work.workers) for run in of_some])
        paths, todo, order, fresh, dimension = list[str](), list[Block](), Growing(np.uint64), 0, 0
        for blocks, waiting in results(by_blocks, ((runs, span, place, folder) for span in spans), work.workers):
            paths += blocks.paths
            todo += waiting
            order.add(blocks.hashes)
            fresh, dimension = fresh + blocks.fresh, max(dimension, blocks.dimension)
        made, bad = embed_blocks(todo, teacher, max_tokens, work.workers, work.node, fresh)
    vectors = Vectors(tuple(paths), len(rising), made or dimension)
    return vectors, known(prefixes, order.whole()), {"embedded": fresh, "reused": len(rising) - fresh, "bad_vectors": bad}


def _bundles(wanted: Ragged, most: int) -> Iterator[list[int]]:
    """Numbers of units that one task reads: `most`, or fewer that have TOGETHER texts, or one that has more; none without texts."""
    some, texts = list[int](), 0
    for number, count in enumerate(wanted.lengths.tolist()):
        if some and (texts + count > TOGETHER or len(some) == most):
            yield some
            some, texts = [], 0
        if count:
            some.append(number)
            texts += count
    if some:
        yield some


def text_runs(units: Sequence[tuple[Unit, np.ndarray]], reading: Reading, place: Place) -> list[Run]:
    """Write the texts that the teacher reads, by hash, schema TEXTS.

    Args:
        units: What has texts, and the hashes of those that each is to give, as `teacher_texts` takes them.
        reading: How they are read.
        place: Where to.
    """
    writer = place.writer("texts")
    for unit, wanted in units:
        for found in teacher_texts(unit, reading, wanted):
            writer.add(found, found["hash"].to_numpy())
    return writer.done()


def by_blocks(runs: Sequence[Run], span: tuple[int, int], place: Place, folder: str) -> tuple[Blocks, list[Block]]:
    """The texts of a range, and its blocks to embed, whose texts are written to a file each.

    A block is what a worker is given at once, so that none waits long for the last one, and progress is told.

    Args:
        runs: Of all units, see `text_runs`.
        span: The range, see `text_ranges`.
        place: Where they are.
        folder: Of the teacher's vectors.
    """
    first, last = bucket_of(np.asarray([span[0], span[1] - 1], np.uint64), place.buckets).tolist()
    near = read_runs(runs, first, last + 1, TEXTS)
    inside = pc.and_(
        pc.greater_equal(near["hash"], pa.scalar(span[0], pa.uint64())), pc.less_equal(near["hash"], pa.scalar(span[1] - 1, pa.uint64()))
    )
    blocks, fresh = in_blocks(near.filter(inside), folder)
    waiting = []
    for number, (path, texts) in enumerate(fresh):
        waiting.append(Block(join(place.folder, f"{span[0]:016x}-{number}.arrow"), path))
        waiting[-1].write(texts)
    return blocks, waiting
