"""The texts that a model learns from a teacher's vectors: each as the student reads it, and as the teacher does.

Both read a text as a side of its task, so each has its own prefix before it. The teacher's texts are embedded in ranges of their hashes,
each in order of length; no process holds more of them than a range (lessons.py). Its vectors are rows by number, read a step's at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import nn

from raysberta.retrieval.mapped import Mapped
from raysberta.retrieval.vectors import BLOCK_TEXTS, block_path, missing, steps
from raysberta.training.arrays import Tokens, map_arrays, within, write_arrays
from raysberta.training.settings import Distance
from raysberta.training.survey import Reading, Unit, hashes, keys_of

Rows = Mapped | np.ndarray
"""A teacher's vectors: gives float [n, D] for int64 [n] row numbers."""

RANGE = 32 * BLOCK_TEXTS
"""Texts that are brought together to be put in order of length: all of them at their longest are less than a string column holds."""


@dataclass(frozen=True)
class Lessons:
    """Texts ready to be learned."""

    tokens: Tokens
    """Token ids of each text as the student reads it, special tokens included."""
    row: np.ndarray
    """int64 [texts]: of the teacher's vectors."""

    def __len__(self) -> int:
        return len(self.row)

    def save(self, place: str) -> None:
        """Write a folder of arrays."""
        write_arrays(place, {**self.tokens.arrays(), "row": self.row})

    @classmethod
    def load(cls, place: str) -> "Lessons":
        """Map what `save` wrote."""
        arrays, _ = map_arrays(place)
        return cls(Tokens.of(arrays), arrays["row"])


def teacher_hashes(unit: Unit, reading: Reading) -> np.ndarray:
    """Hashes of the unit's texts as the teacher, the last of the reading's others, has them: each once, rising, uint64."""
    found = [np.zeros(0, np.uint64)]
    for batch in unit.batches():
        texts, ways, _ = reading.texts(batch)
        found.append(np.unique(hashes(_before(text, way, reading) for text, way in zip(texts, ways.tolist(), strict=True))))
    return np.unique(np.concatenate(found))


def teacher_texts(unit: Unit, reading: Reading, wanted: np.ndarray) -> Iterator[pa.Table]:
    """Texts of a unit with the teacher's prefix, each once, a batch of the unit at a time: schema TEXTS.

    Args:
        unit: What has them.
        reading: How it is read.
        wanted: uint64, rising: hashes of the texts.
    """
    done = np.zeros(len(wanted), bool)
    for batch in unit.batches():
        texts, ways, _ = reading.texts(batch)
        read = [_before(text, way, reading) for text, way in zip(texts, ways.tolist(), strict=True)]
        marks, first = np.unique(hashes(read), return_index=True)
        fresh = within(marks, wanted)
        fresh[fresh] = ~done[np.searchsorted(wanted, marks[fresh])]
        done[np.searchsorted(wanted, marks[fresh])] = True
        yield pa.table([pa.array(marks[fresh]), [read[row] for row in first[fresh].tolist()]], TEXTS)


TEXTS = pa.schema([("hash", pa.uint64()), ("text", pa.string())])


def _before(text: str, way: int, reading: Reading) -> str:
    return reading.ways[way].others[-1] + text


def compared_texts(unit: Unit, reading: Reading, wanted: np.ndarray) -> list[tuple[int, str, int]]:
    """Few texts of a unit: the key of each, the text with the student's prefix, and its hash as the teacher has it.

    Args:
        unit: What has them.
        reading: As it was when the keys were made.
        wanted: uint64, rising: their keys.
    """
    found: dict[int, tuple[int, str, int]] = {}
    for batch in unit.batches():
        texts, ways, _ = reading.texts(batch)
        keys = keys_of(texts, ways)
        for row in np.flatnonzero(within(keys, wanted)).tolist():
            text, way = texts[row], reading.ways[int(ways[row])]
            found[int(keys[row])] = int(keys[row]), way.prefix + text, int(hashes([way.others[-1] + text])[0])
    return list(found.values())


def text_ranges(rising: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of RANGE hashes, the last one of fewer, as numbers: where each begins, 0 the first, and where it ends, 2^64 the last.

    Args:
        rising: uint64: all hashes.
    """
    bounds = [0, *rising[RANGE::RANGE].tolist(), 1 << 64]
    return list(pairwise(bounds))


@dataclass(frozen=True)
class Blocks:
    """The texts of a range in the order of their vectors: the longest first, in blocks of BLOCK_TEXTS."""

    hashes: np.ndarray
    """uint64 [texts]."""
    paths: list[str]
    """Where each block's vectors belong."""
    fresh: int
    """Texts of blocks that are not there yet."""
    dimension: int
    """Of those that are; 0 where none is."""


def in_blocks(texts: pa.Table, folder: str) -> tuple[Blocks, list[tuple[str, list[str]]]]:
    """Put the texts of a range in order.

    Args:
        texts: Schema TEXTS, each once, in any order.
        folder: Of the teacher's vectors.

    Returns:
        The range, and of each block to embed its path and its texts.
    """
    found = texts["text"].to_pylist()
    order = sorted(range(len(found)), key=lambda row: (-len(found[row]), found[row]))  # batches hold texts of a length
    blocks = [[found[row] for row in order[start:stop]] for start, stop in steps(len(order), BLOCK_TEXTS)]
    paths = [block_path(folder, block) for block in blocks]
    todo, dimension = missing(paths, [len(block) for block in blocks])
    fresh = [(paths[number], blocks[number]) for number in todo]
    return Blocks(texts["hash"].to_numpy()[order], paths, sum(len(block) for _, block in fresh), dimension), fresh


def taught(vectors: Rows, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Rows of a teacher's vectors, L2-normalised float32 [n, D]; zeros where a vector is none."""
    return F.normalize(torch.from_numpy(np.asarray(vectors[rows], np.float32)), dim=-1).to(device)


def distances(student: torch.Tensor, teacher: torch.Tensor, loss: Distance) -> torch.Tensor:
    """How far each vector [n, D] is from the teacher's, both L2-normalised: float [n]; 1, without gradient, where the teacher's is zero."""
    teacher = teacher.to(student.dtype)
    if loss == "cosine":
        return 1 - (student * teacher).sum(1)
    there = teacher.any(1)
    return (student - teacher).square().sum(1) * there + ~there


class Projection(nn.Module):
    """A linear layer without bias from the student's dimension to the teacher's, and unit length again.

    It starts random: there is nothing at hand that says which of the student's directions are which of the teacher's.
    """

    def __init__(self, width: int, wanted: int, seed: int) -> None:
        """Draw the weights [wanted, width] as N(0, 1 / wanted), which leaves cosines roughly as they are."""
        super().__init__()
        self.linear = nn.Linear(width, wanted, bias=False)
        nn.init.normal_(self.linear.weight, std=wanted**-0.5, generator=torch.Generator().manual_seed(seed))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """[n, width] to L2-normalised [n, wanted]."""
        return F.normalize(self.linear(vectors), dim=-1)


def projection(width: int, wanted: int, seed: int) -> Projection | None:
    """What stands between student and teacher; nothing where their vectors have one dimension."""
    return Projection(width, wanted, seed) if width != wanted else None
