"""A second opinion on negatives: the mining encoder's vectors of the examples' texts (GISTEmbed, arXiv 2402.16829)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.errors import InputError
from raysberta.mining.facts import ExamplesFacts
from raysberta.prefixes import Prefixes
from raysberta.storage.artifacts import Artifact
from raysberta.training.arrays import write_array
from raysberta.training.survey import Known, Unit, hashes, known

PART = "guide-"
"""How the names of files of vectors begin; in the order of names they are the parts."""
PART_ROWS = 1 << 16


@dataclass(frozen=True)
class Guide:
    """Vectors by text."""

    known: Known
    """The texts with the mining encoder's prefix, numbered over all parts."""
    parts: tuple[np.ndarray, ...]
    """float16 [texts of the part, H], L2-normalised; none here where they are on storage already."""


@dataclass(frozen=True)
class Guided:
    """The guide's vectors of sequences: `guided[sequences]` is float16 [n, H], zeros where there is none. H is 0 without a guide."""

    row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 [sequences]: over all parts, -1 where there is no vector."""
    parts: tuple[np.ndarray, ...] = ()

    @property
    def dimension(self) -> int:
        """H."""
        return self.parts[0].shape[1] if self.parts else 0

    def __getitem__(self, sequences: np.ndarray) -> np.ndarray:
        rows = self.row[sequences]
        found = np.zeros((len(rows), self.dimension), np.float16)
        begins = np.cumsum([0, *(len(part) for part in self.parts)])
        where = np.searchsorted(begins, rows, "right") - 1
        for number in np.unique(where[rows >= 0]).tolist():
            here = (where == number) & (rows >= 0)
            found[here] = self.parts[number][rows[here] - begins[number]]
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What it is on storage, by names that no other array has."""
        return {"guide.row": self.row, **{f"{PART}{number:05d}": part for number, part in enumerate(self.parts)}}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Guided":
        """Of what `arrays` gave."""
        return cls(arrays["guide.row"], tuple(arrays[name] for name in sorted(arrays) if name.startswith(PART)))


def guides(artifacts: Sequence[Artifact]) -> tuple[list[Artifact], Prefixes]:
    """The examples that have vectors, and what their mining encoder reads. Examples without mined negatives have none.

    Raises:
        InputError: none has vectors, one was mined without keeping them, or several encoders mined, whose vectors cannot be compared.
    """
    told = {artifact.manifest.id: artifact.told(ExamplesFacts) for artifact in artifacts}
    mined = [artifact for artifact in artifacts if told[artifact.manifest.id].encoder]
    bare = [artifact.manifest.id for artifact in mined if artifact.rows("examples") and not artifact.rows("vectors")]
    if bare or not mined:
        raise InputError(
            f"guide: {', '.join(bare) or 'the examples'} keep no vectors; right would be mine: {{keep_vectors: true}} in the examples"
        )
    encoders = {told[artifact.manifest.id].encoder for artifact in mined}
    if len(encoders) > 1:
        raise InputError(f"guide: the examples were mined by {' and '.join(sorted(encoders))}; right would be one encoder, or guide: false")
    return mined, Prefixes(**told[mined[0].manifest.id].prefixes)


def store_vectors(number: int, unit: Unit, place: str) -> np.ndarray:
    """Write the vectors of a unit of the table `vectors` as parts; hashes of its keys, uint64. Memory: a part, some times over."""
    found, waiting, written = [np.zeros(0, np.uint64)], [np.zeros((0, 0), np.float16)], 0
    for batch in unit.batches():
        found.append(hashes(batch["key"].to_pylist()))
        waiting = [*(part for part in waiting if len(part)), _vectors(batch)]
        if sum(map(len, waiting)) >= PART_ROWS:
            write_array(place, f"{PART}{number:06d}-{written:04d}", np.concatenate(waiting))
            waiting, written = [], written + 1
    if sum(map(len, waiting)):
        write_array(place, f"{PART}{number:06d}-{written:04d}", np.concatenate(waiting))
    return np.concatenate(found)


def make_guide(tables: Sequence[pa.Table], prefixes: Prefixes) -> Guide:
    """A guide in memory.

    Args:
        tables: Columns `key` and `vector`; empty where nothing was mined.
        prefixes: What stands before the texts in `key`.
    """
    filled = [table for table in tables if table.num_rows]
    keys = [key for table in filled for key in table["key"].to_pylist()]
    return Guide(known(prefixes, hashes(keys)), tuple(_vectors(table.combine_chunks()) for table in filled))


def _vectors(batch: pa.Table | pa.RecordBatch) -> np.ndarray:
    found: np.ndarray = pc.list_flatten(batch["vector"]).to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
    return found
