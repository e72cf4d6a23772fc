"""Vectors on storage as memory maps, for whoever reads some rows from anywhere among them, again and again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from raysberta.retrieval.vectors import HALF, Vectors
from raysberta.storage.local_copy import local_file
from raysberta.storage.location import filesystem

MOST = 4096
"""Files mapped at once: a process may open only so many."""


def _local(place: str) -> Path:
    folder, name = filesystem(place)[1].rsplit("/", 2)[1:]
    return local_file(place, f"vectors/{folder}/{name}")


class Mapped(Vectors):
    """The same rows; memory is what is asked for, and what the system keeps of the files.

    Files are mapped where they lie on a local disk, and copied to one once, when first read, where storage is remote.
    """

    def __init__(self, vectors: Vectors, local: Callable[[str], Path] = _local) -> None:
        """Map the files of vectors.

        Args:
            vectors: On storage.
            local: A file's place to where it is on this machine.
        """
        super().__init__(vectors.paths, vectors.rows, vectors.dimension, vectors.file_rows)
        object.__setattr__(self, "_maps", {})
        object.__setattr__(self, "_local", local)

    def block(self, number: int) -> np.ndarray:
        """The rows of a file, float16."""
        maps: dict[int, np.ndarray] = self._maps  # type: ignore[attr-defined]
        if number not in maps:
            local: Callable[[str], Path] = self._local  # type: ignore[attr-defined]
            if len(maps) == MOST:
                maps.pop(next(iter(maps)))
            maps[number] = np.memmap(local(self.paths[number]), HALF, "r").reshape(-1, self.dimension)
        return maps[number]
