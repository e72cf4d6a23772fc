"""A teacher's vectors of what a phase trains on, made on Ray once and kept: for the phase, and for trials of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raysberta.models.describe import describe
from raysberta.prefixes import Prefixes
from raysberta.retrieval.encoded import vectors_folder
from raysberta.retrieval.vectors import BLOCK_TEXTS, Vectors
from raysberta.retrieval.workers import embed_blocks
from raysberta.spread import results
from raysberta.storage.artifacts import Artifact
from raysberta.training.prepare import SIDES, shared
from raysberta.training.settings import Contrastive
from raysberta.training.survey import Known, Reading, Unit, known, reading_of, row_groups
from raysberta.training.teacher import RANGE, Blocks, in_blocks, range_ends, teacher_hashes, teacher_texts
from raysberta.work import Work


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
    marks = list(results(teacher_hashes, [(unit, reading) for unit in units], work.workers))
    return teach(work, teacher, prefixes, units, reading, marks, longest)[:2]


def teach(
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
    join_up = ray.remote(num_cpus=min(1.0, work.workers.cpus), num_returns=1 + RANGE // BLOCK_TEXTS)(by_blocks)
    parts = [cut.remote(unit, reading, of_unit, ends) for unit, of_unit in zip(units, wanted, strict=True)]
    by_unit = [refs if isinstance(refs, list) else [refs] for refs in parts]
    joined = [join_up.remote(folder, *of_range) for of_range in zip(*by_unit, strict=True)]
    del parts, by_unit
    told: list[Blocks] = ray.get([blocks for blocks, *_ in joined])
    fresh = sum(blocks.fresh for blocks in told)
    todo = [texts for blocks, (_, *tables) in zip(told, joined, strict=True) for texts in tables[: blocks.todo]]
    made, bad = embed_blocks(todo, teacher, max_tokens, work.workers, work.node, fresh)
    dimension = made or max(blocks.dimension for blocks in told)
    vectors = Vectors(tuple(path for blocks in told for path in blocks.paths), len(rising), dimension)
    at = known(prefixes, np.concatenate([blocks.hashes for blocks in told]))
    return vectors, at, {"embedded": fresh, "reused": len(rising) - fresh, "bad_vectors": bad}


def _in_ranges(*arguments: Any) -> Any:
    """As many values as there are ranges."""
    found = teacher_texts(*arguments)
    return found if len(found) > 1 else found[0]


def by_blocks(folder: str, *parts: pa.Table) -> list[Any]:
    """A range, and a table of each of its blocks to embed, for as many as a range may have: what there are no blocks for is empty.

    A block is what a worker is given at once, so that none waits long for the last one, and progress is told.

    Args:
        folder: Of the teacher's vectors.
        parts: Texts of the range, as `teacher_texts` gave them.
    """
    blocks, fresh = in_blocks(parts, folder)
    return [blocks, *(fresh.slice(number, 1) for number in range(RANGE // BLOCK_TEXTS))]
