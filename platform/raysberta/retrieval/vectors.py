"""Vectors on storage: float16, in blocks that are files, each named by the texts that it holds.

What a block holds follows from its texts alone, so one that is there is never made again: that is the resume after a kill, and what lets
a second run with another rank window go straight to the search. A file appears whole or not at all.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.fs as pafs

from raysberta.errors import InputError
from raysberta.storage.artifacts import write_whole
from raysberta.storage.location import filesystem, is_uri, join

BLOCK_TEXTS = 1024
"""Rows of a block; the last one of a set has fewer. Part of what a vector is: texts of a block are embedded together."""

HALF = np.dtype("<f2")


@dataclass(frozen=True)
class Vectors:
    """float16 rows in files, read as float32. Holds no vector itself and pickles small, so any number of actors can share one.

    `vectors[first:last]` and `vectors[rows]` (int [n], fastest when rising) give float32 [n, dimension]; memory is that and one block.
    """

    paths: tuple[str, ...]
    """Raw little-endian float16, `file_rows` rows each, paths or URIs."""
    rows: int
    dimension: int
    file_rows: int = 0
    """`BLOCK_TEXTS` where 0."""

    def __len__(self) -> int:
        return self.rows

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimension."""
        return self.rows, self.dimension

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        if isinstance(wanted, slice):
            return self._range(*wanted.indices(self.rows)[:2])
        rows = np.asarray(wanted, np.int64)
        found = np.empty((len(rows), self.dimension), np.float32)
        blocks = rows // self._step
        order = np.argsort(blocks, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
            if len(part):
                number = int(blocks[part[0]])
                found[part] = self.block(number)[rows[part] - number * self._step]
        return found

    def _range(self, first: int, last: int) -> np.ndarray:
        found = np.empty((max(0, last - first), self.dimension), np.float32)
        at = first
        while at < last:
            number, inside = divmod(at, self._step)
            block = self.block(number)[inside : inside + last - at]
            found[at - first : at - first + len(block)] = block
            at += len(block)
        return found

    @property
    def _step(self) -> int:
        return self.file_rows or BLOCK_TEXTS

    def block(self, number: int) -> np.ndarray:
        """The rows of a file, float16."""
        fs, path = filesystem(self.paths[number])
        with fs.open_input_file(path) as stream:
            return np.frombuffer(stream.read_buffer(), HALF).reshape(-1, self.dimension)


@dataclass(frozen=True)
class View:
    """Some rows of other vectors, in an order of their own."""

    whole: "Vectors | View | np.ndarray"
    rows: np.ndarray
    """int64 [n]."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimension."""
        return len(self.rows), self.whole.shape[1]

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        return self.whole[self.rows[wanted]]


Matrix = Vectors | View | np.ndarray
"""Anything of shape [n, d] that gives float rows for a slice or an array of row numbers."""


def block_path(folder: str, texts: Sequence[str]) -> str:
    """Where the block of these texts lies."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return join(folder, f"{digest.hexdigest()[:32]}.f16")


def missing(paths: Sequence[str], sizes: Sequence[int]) -> tuple[list[int], int]:
    """Which of the blocks are not there whole, by number, and the dimension of those that are (0 where none is).

    Args:
        paths: Of one folder.
        sizes: Rows of each.
    """
    if not paths:
        return [], 0
    fs, first = filesystem(paths[0])
    listed = fs.get_file_info(pafs.FileSelector(first.rsplit("/", 1)[0], allow_not_found=True))
    there = {info.base_name: info.size for info in listed}
    bytes_of = [there.get(_name(path), 0) for path in paths]
    widths = {size // (2 * rows) for size, rows in zip(bytes_of, sizes, strict=True) if size and size % (2 * rows) == 0}
    dimension = max(widths, default=0)
    return [number for number, rows in enumerate(sizes) if not dimension or bytes_of[number] != 2 * rows * dimension], dimension


def _name(path: str) -> str:
    """The last part of a path or URI, options left out; without a file system, for there may be thousands."""
    return (path.partition("?")[0] if is_uri(path) else path).rsplit("/", 1)[1]


def write_block(path: str, vectors: np.ndarray) -> int:
    """Write a block, all or nothing. A vector that is none (zero or not finite) is stored as zeros: searches never return it.

    Returns:
        How many vectors were none.
    """
    data, bad = as_block(vectors)
    fs, place = filesystem(path)
    fs.create_dir(place.rsplit("/", 1)[0], recursive=True)
    write_whole(fs, place, data)  # a retried actor may write beside a dying one
    return bad


def as_block(vectors: np.ndarray) -> tuple[bytes, int]:
    """The bytes of a block, zeros for a vector that is none, and how many are none."""
    halves = vectors.astype(HALF)
    bad = ~is_direction(halves.astype(np.float32))
    halves[bad] = 0
    return np.ascontiguousarray(halves).tobytes(), int(bad.sum())


def is_direction(vectors: np.ndarray) -> np.ndarray:
    """Which rows of float32 [n, d] point anywhere: finite and not zero. bool [n]."""
    lengths = np.einsum("nd,nd->n", vectors, vectors)
    return np.isfinite(lengths) & (lengths > 0)


def undirected(vectors: Matrix, step: int = 16384) -> np.ndarray:
    """Numbers of the rows that point nowhere, read `step` at a time. int64."""
    found = [
        start + np.flatnonzero(~is_direction(np.asarray(vectors[start:stop], np.float32))) for start, stop in steps(len(vectors), step)
    ]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def steps(rows: int, step: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """Ranges of at most `step` rows from `first` to `rows`."""
    for start in range(first, rows, step):
        yield start, min(start + step, rows)


def require(vectors: Matrix, what: str) -> None:
    """Raise where a row points nowhere.

    Raises:
        InputError: naming the first such row.
    """
    for start, stop in steps(len(vectors), 16384):
        part = np.asarray(vectors[start:stop], np.float32)
        for row in np.flatnonzero(~is_direction(part))[:1]:
            kind = "zero" if not part[row].any() else "not finite"
            raise InputError(f"search: the vector of {what} {start + row} is {kind}; right would be a finite vector that is not zero")
