"""Which texts are embedded together, and where each one's vector lies: so that tasks that ask the same text share its vector.

A unit is what a row group of a task's texts (texts.py) holds that no earlier row group of any task does. What is in it follows from the
tasks and their order alone, so vectors are the same to the last bit whatever the number of workers and whenever a run was killed. Its
vectors are one file, named by its texts: one that is there is never made again, for whatever scores it was made. Nothing of mteb is loaded
here: an actor that embeds is ready that much sooner.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import torch

from raysberta.evaluation.job import Job
from raysberta.retrieval.embed import Embedder
from raysberta.storage.artifacts import write_whole
from raysberta.storage.local_copy import local_file
from raysberta.storage.location import filesystem, join, last

SINGLE = np.dtype("<f4")
UNIT = 4096
"""Texts of a row group: those of them that no earlier one holds are embedded together. Part of what a vector is."""
ASKED = pa.schema([("text", pa.string()), ("digest", pa.uint64())])
"""A text with its prefix, and 64 bits of its hash: of ten million texts two share one with a probability of 3 in a million."""


def digests(texts: Sequence[str]) -> np.ndarray:
    """uint64 [n]."""
    data = b"".join(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(data, "<u8")


@dataclass(frozen=True)
class Unit:
    """Texts that are embedded together."""

    texts: str
    """The file that holds them."""
    group: int
    """Row group of the file."""
    rows: np.ndarray
    """int32 [n]: rows of the group."""
    vectors: str
    """The file for their vectors, float32 [n, d] little-endian."""


@dataclass(frozen=True)
class Places:
    """Where the vectors of one task's texts lie, in the order in which it asks."""

    digests: np.ndarray
    """uint64 [n]: of the texts."""
    units: np.ndarray
    """int32 [n]: numbers of `vectors`."""
    rows: np.ndarray
    """int32 [n]: rows of the unit."""
    vectors: tuple[str, ...]
    """Files of all units."""
    sizes: np.ndarray
    """int32 [units]: rows of each."""


def plan(files: Sequence[str], folder: str) -> tuple[list[Unit], list[Places]]:
    """The units of some tasks, and for each task where its vectors lie. Memory: some 80 bytes a text.

    Args:
        files: Texts of each task (schema ASKED).
        folder: Where vectors lie, named by all else that decides one.
    """
    asked = [_read_digests(file) for file in files]
    every = np.concatenate([np.zeros(0, np.uint64), *asked])
    first, which = np.unique(every, return_index=True, return_inverse=True)[1:]
    owner = first[which]
    unit_of, row_of = np.zeros(len(every), np.int32), np.zeros(len(every), np.int32)
    units: list[Unit] = []
    bounds = np.cumsum([0, *(len(each) for each in asked)])
    for file, (begin, end) in zip(files, pairwise(bounds.tolist()), strict=True):
        for group, start in enumerate(range(begin, end, UNIT)):
            rows = np.flatnonzero(owner[start : min(start + UNIT, end)] == np.arange(start, min(start + UNIT, end))).astype(np.int32)
            if len(rows):
                unit_of[start + rows], row_of[start + rows] = len(units), np.arange(len(rows))
                name = hashlib.sha256(every[start + rows].tobytes()).hexdigest()[:32]
                units.append(Unit(file, group, rows, join(folder, f"{name}.f32")))
    vectors, sizes = tuple(unit.vectors for unit in units), np.array([len(unit.rows) for unit in units], np.int32)
    spans = [(every[begin:end], owner[begin:end]) for begin, end in pairwise(bounds.tolist())]
    return units, [Places(marks, unit_of[owners], row_of[owners], vectors, sizes) for marks, owners in spans]


def missing(units: Sequence[Unit], folder: str) -> list[Unit]:
    """Those whose vectors are not there."""
    fs, path = filesystem(folder)
    there = {info.base_name for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)) if info.size}
    return [unit for unit in units if last(unit.vectors) not in there]


def embed(unit: Unit, embedder: Embedder) -> int:
    """Embed a unit and write its vectors, all or nothing; how many texts it has. Memory: its texts and vectors."""
    fs, path = filesystem(unit.texts)
    with fs.open_input_file(path) as stream:
        texts = pq.ParquetFile(stream).read_row_group(unit.group, ["text"])["text"].take(pa.array(unit.rows))
    vectors = embedder.encode(texts.to_pylist())
    fs, path = filesystem(unit.vectors)
    fs.create_dir(path.rpartition("/")[0], recursive=True)
    write_whole(fs, path, np.ascontiguousarray(vectors, SINGLE).tobytes())
    return len(vectors)


class UnitEmbedder:
    """A process that embeds units, with the model fetched to its own node where storage is remote. Memory: the model and a unit."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(max(1, int(job.cpus)))
        self.embedder = Embedder(job.model.folder("model"), job.how.max_tokens, job.how.precision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Embed units, a row each; how many texts each has, column `rows`."""
        return pa.table({"rows": [embed(Unit(**row), self.embedder) for row in batch.to_pylist()]})


class Stored:
    """An embedding function that embeds nothing: it gives a task the vectors of its texts, in the order in which it asks.

    Files are mapped, so what it holds is what it gives; from remote storage each is copied to the machine once.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.asked = 0
        self.maps: dict[int, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the next texts, float32 [n, d].

        Raises:
            RuntimeError: they are not those that were listed.
        """
        rows = slice(self.asked, self.asked + len(texts))
        self.asked += len(texts)
        if not np.array_equal(digests(texts), self.places.digests[rows]):
            raise RuntimeError("the task asks other texts than when they were listed: is the same mteb installed on every node?")
        units, inside = self.places.units[rows], self.places.rows[rows]
        found = np.empty((len(texts), self._unit(0).shape[1]), SINGLE)
        order = np.argsort(units, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(units[order])) + 1):
            if len(part):
                found[part] = self._unit(int(units[part[0]]))[inside[part]]
        return found

    def _unit(self, number: int) -> np.ndarray:
        if number not in self.maps:
            place = self.places.vectors[number]
            folder, name = filesystem(place)[1].rsplit("/", 2)[1:]
            data = np.memmap(local_file(place, f"vectors/{folder}/{name}"), SINGLE, "r")
            self.maps[number] = data.reshape(int(self.places.sizes[number]), -1)
        return self.maps[number]


def _read_digests(file: str) -> np.ndarray:
    fs, path = filesystem(file)
    return np.asarray(pq.read_table(path, columns=["digest"], filesystem=fs)["digest"])
