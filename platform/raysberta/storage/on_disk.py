"""Arrays that are being made and are as long as the data are: on this machine's disk, since memory need not be that large.

Each is mapped from a file without a name in the temporary directory, and gone with the array. What there is room for stays in memory, as
with any file; nothing needs it to, unless that directory is itself in memory.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import DTypeLike

IN_MEMORY = 1 << 20
"""Bytes of an array that is made without a file."""


def empty(shape: int | tuple[int, ...], kind: DTypeLike) -> np.ndarray:
    """Zeros, to be filled.

    Raises:
        OSError: the disk has no room for it. Asked for before anything is written: what is mapped could not tell.
    """
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if size <= IN_MEMORY:
        return np.zeros(shape, kind)
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # macOS has it not
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)
        return np.asarray(np.memmap(file, kind, "r+", shape=shape))


class Growing:
    """An array whose length shows only when all of it is there."""

    def __init__(self, kind: DTypeLike) -> None:
        self.kind: np.dtype = np.dtype(kind)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def add(self, values: np.ndarray) -> None:
        """Put more behind what is there, [n].

        Raises:
            OSError: the disk has no room for it.
        """
        self._file.write(np.ascontiguousarray(values, self.kind).data)

    def whole(self) -> np.ndarray:
        """All of it, [n]. Nothing is added afterwards."""
        with self._file as file:
            file.flush()
            return np.asarray(np.memmap(file, self.kind, "r+")) if file.tell() else np.zeros(0, self.kind)


def joined(parts: Iterable[np.ndarray], kind: DTypeLike) -> np.ndarray:
    """Arrays [n] end to end. Two of them are held at a time."""
    growing = Growing(kind)
    for part in parts:
        growing.add(part)
    return growing.whole()


def spans(count: int, size: int) -> Iterator[slice]:
    """The numbers below `count`, `size` at a time."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
