"""Vectors on storage as memory maps, for whoever reads a few rows at a time from anywhere among them, again and again."""

from dataclasses import dataclass, field

import numpy as np

from raysberta.retrieval.vectors import BLOCK_TEXTS, HALF, Vectors
from raysberta.storage.local_copy import local_file
from raysberta.storage.location import filesystem


@dataclass(frozen=True)
class Mapped:
    """`mapped[rows]` (int [n]) gives float32 [n, dimension]; memory is that, and what the system keeps of the files.

    Blocks are mapped where they lie on a local disk, and copied to one once, when first read, where storage is remote.
    """

    vectors: Vectors
    maps: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    """Blocks read so far, by number: float16 [rows of the block, dimension]."""

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimension."""
        return self.vectors.shape

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.vectors.dimension), np.float32)
        for place, row in enumerate(rows.tolist()):
            number, inside = divmod(row, BLOCK_TEXTS)
            found[place] = self._block(number)[inside]
        return found

    def _block(self, number: int) -> np.ndarray:
        if number not in self.maps:
            place = self.vectors.paths[number]
            folder, name = filesystem(place)[1].rsplit("/", 2)[1:]
            data = np.memmap(local_file(place, f"vectors/{folder}/{name}"), HALF, "r")
            self.maps[number] = data.reshape(-1, self.vectors.dimension)
        return self.maps[number]
