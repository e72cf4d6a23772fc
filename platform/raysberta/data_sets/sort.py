"""Rows in any order to the parts of a snapshot in order of their keys, however many there are: an external sort.

Rows are kept until there are some bytes of them, and written to the disk as a sorted run, cut at ranges of the keys. At the end each range
is read of all runs and sorted by itself. A process holds a run, or the 256th part of all rows and one part of the snapshot.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysberta.data_sets.rows import ROW
from raysberta.data_sets.snapshot import Part
from raysberta.storage.location import filesystem, join

RANGES = 256
PART_BYTES = 32 << 20
ROW_GROUP = 8192
ORDER = [("key", "ascending"), ("row", "ascending")]


class Sorter:
    """Takes tables of ROW; gives their rows back in order of key and row.

    Args:
        folder: Where the runs are put aside.
        run_bytes: Of rows that are held before a run is written.
        sample: Rows that are wanted, those with the smallest keys; all where None.
    """

    def __init__(self, folder: Path, run_bytes: int, sample: int | None = None) -> None:
        self._folder, self._run_bytes, self._sample = folder, run_bytes, sample
        self._kept: list[pa.Table] = []
        self._bytes = 0
        self._runs: list[Path] = []
        self._counts = np.zeros(RANGES, np.int64)
        self._ranges = RANGES
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, table: pa.Table) -> None:
        """Take rows. Those that are beyond the sample already are forgotten."""
        ranges = _range_of(table)
        if self._ranges < RANGES:
            within = ranges < self._ranges
            table, ranges = table.filter(pa.array(within)), ranges[within]
        self._counts += np.bincount(ranges, minlength=RANGES)
        if self._sample is not None:
            self._ranges = min(self._ranges, int(np.searchsorted(np.cumsum(self._counts), self._sample)) + 1)
        self._kept.append(table)
        self._bytes += table.nbytes
        if self._bytes >= self._run_bytes:
            self._write_run()

    def sorted(self) -> Iterator[pa.Table]:
        """All rows in order, a range of keys at a time; of a sample the first ones, no query cut in two."""
        self._write_run()
        files = [pa.ipc.open_file(pa.memory_map(str(run))) for run in self._runs]
        left = self._sample
        for number in range(self._ranges):
            table = pa.Table.from_batches([file.get_batch(number) for file in files], ROW).sort_by(ORDER)
            if left is not None and table.num_rows > left:
                yield table.slice(0, _whole(table.column("key").to_numpy(), left))
                return
            if left is not None:
                left -= table.num_rows
            if table.num_rows:
                yield table

    def _write_run(self) -> None:
        if not self._kept:
            return
        table = pa.concat_tables(self._kept).sort_by(ORDER).combine_chunks()
        self._kept, self._bytes = [], 0
        ends = np.searchsorted(_range_of(table), np.arange(RANGES), side="right").tolist()
        run = self._folder / f"run-{len(self._runs):05d}.arrow"
        with pa.OSFile(str(run), "wb") as sink, pa.ipc.new_file(sink, ROW) as writer:
            for start, end in zip([0, *ends[:-1]], ends, strict=True):
                (batch,) = table.slice(start, end - start).to_batches() or [pa.RecordBatch.from_pylist([], ROW)]
                writer.write_batch(batch)
        self._runs.append(run)


def write_parts(tables: Iterator[pa.Table], place: str) -> list[Part]:
    """Write sorted rows as Parquet parts of some PART_BYTES, no query in two of them.

    Args:
        tables: Of `Sorter.sorted`.
        place: The folder, local or a URI.
    """
    parts: list[Part] = []
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        for piece in _pieces(table, PART_BYTES - size):
            if size + piece.nbytes > PART_BYTES and waiting and _key(waiting[-1], -1) != _key(piece, 0):
                parts.append(_write(pa.concat_tables(waiting), place, len(parts)))
                waiting, size = [], 0
            waiting.append(piece)
            size += piece.nbytes
    if waiting:
        parts.append(_write(pa.concat_tables(waiting), place, len(parts)))
    return parts


def _pieces(table: pa.Table, room: int) -> Iterator[pa.Table]:
    """A table cut between queries, the first piece of some `room` bytes, the others of PART_BYTES."""
    keys = table.column("key").to_numpy()
    each = max(1, table.nbytes // max(1, table.num_rows))
    start = 0
    while start < len(keys):
        end = min(len(keys), start + max(1, max(room, PART_BYTES // 8) // each))
        while end < len(keys) and keys[end] == keys[end - 1]:
            end += 1
        yield table.slice(start, end - start).combine_chunks()
        start, room = end, PART_BYTES


def _write(table: pa.Table, place: str, number: int) -> Part:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    data = sink.getvalue()
    name = f"part-{number:05d}.parquet"
    system, path = filesystem(join(place, name))
    with system.open_output_stream(path) as stream:
        stream.write(data)
    return Part(name=name, rows=table.num_rows, bytes=data.size, sha256=hashlib.sha256(data).hexdigest())


def _range_of(table: pa.Table) -> np.ndarray:
    """The range of each row's key, int64."""
    return (table.column("key").to_numpy() >> np.uint64(56)).astype(np.int64)


def _whole(keys: np.ndarray, most: int) -> int:
    """The greatest number of first rows, at most `most`, that cuts no query in two."""
    return int(np.searchsorted(keys, keys[most], side="left"))


def _key(table: pa.Table, row: int) -> int:
    return int(table.column("key")[row % table.num_rows].as_py())
