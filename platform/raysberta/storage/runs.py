"""Runs: files between two steps of a stage, rows of one bucket side by side, so that any range of buckets is one read of each file.

Ids are hashes, so buckets are ranges of equal width of an id. A writer keeps as many bytes in memory as it was told and no more; what
reads a range holds that range. Where the ranges end does not follow from how rows came in, so neither does what is made of them.
"""

import math
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from raysberta.storage.artifacts import Draft
from raysberta.storage.location import filesystem, join

MOST_IDS = 1 << 27
"""Of 16 digits: their characters are more than a column of strings holds."""
PACKED = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclass(frozen=True)
class Run:
    """One file."""

    uri: str = field(repr=False)
    schema: pa.Schema
    ends: np.ndarray
    """int64 [buckets]: the bytes of bucket n end there, and begin where those of bucket n - 1 end."""
    rows: int


def bucket_of(ids: np.ndarray, buckets: int) -> np.ndarray:
    """The bucket of each id, int64: the range of equal width that a uint64 falls into; `buckets` is below 2**32."""
    return ((ids >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)).astype(np.int64)


def numbers(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Ids of 16 hex digits as uint64, in the same order: smaller ids are smaller numbers."""
    return np.frombuffer(bytes.fromhex("".join(ids.to_pylist())), ">u8").astype(np.uint64)


def texts(ids: np.ndarray) -> pa.StringArray:
    """uint64 to ids of 16 hex digits; fewer than MOST_IDS."""
    if len(ids) >= MOST_IDS:
        raise ValueError(f"{len(ids)} ids are more than a column of strings holds")
    digits = ids.astype(">u8").tobytes().hex().encode()
    ends = np.arange(len(ids) + 1, dtype=np.int32) * 16
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(ends), pa.py_buffer(digits))


@dataclass(frozen=True)
class Place:
    """Where the runs of a stage are written, and how."""

    folder: str = field(repr=False)
    """Path or URI, which is there."""
    buckets: int
    """Of every run, a power of two."""
    most: int
    """Bytes of Arrow memory that a writer holds."""

    def writer(self, name: str) -> "RunWriter":
        """A new one; the names of its files begin so."""
        return RunWriter(self, name)


class RunWriter:
    """Collects tables and writes a run whenever it holds as many bytes as the place says: memory is about three times that at its peak."""

    def __init__(self, place: Place, name: str) -> None:
        self.runs: list[Run] = []
        self._place, self._name = place, name
        self._tables: list[pa.Table] = []
        self._ids: list[np.ndarray] = []
        self._bytes = 0

    def add(self, table: pa.Table, ids: np.ndarray) -> None:
        """Take rows; `ids` (uint64 [rows]) say which bucket each belongs to."""
        if not table.num_rows:
            return
        self._tables.append(table)
        self._ids.append(ids)
        self._bytes += table.nbytes + ids.nbytes
        if self._bytes >= self._place.most:
            self._flush()

    def done(self) -> list[Run]:
        """All runs."""
        if self._tables:
            self._flush()
        return self.runs

    def _flush(self) -> None:
        (rows,) = pa.concat_tables(self._tables).combine_chunks().to_batches()
        buckets = bucket_of(np.concatenate(self._ids), self._place.buckets)
        self._tables, self._ids, self._bytes = [], [], 0
        order = np.argsort(buckets, kind="stable")
        counts = np.bincount(buckets, minlength=self._place.buckets)
        ends = np.zeros(self._place.buckets, np.int64)
        uri = join(self._place.folder, f"{self._name}-{uuid.uuid4().hex}.arrow")
        fs, path = filesystem(uri)
        first = 0
        with fs.open_output_stream(path) as stream, pa.ipc.new_stream(stream, rows.schema, options=PACKED) as writer:
            for bucket in np.flatnonzero(counts).tolist():
                writer.write_batch(rows.take(pa.array(order[first : first + counts[bucket]])))
                first += counts[bucket]
                ends[bucket] = stream.tell()
        self.runs.append(Run(uri, rows.schema, np.maximum.accumulate(ends), rows.num_rows))


def read_runs(runs: Iterable[Run], first: int, last: int, schema: pa.Schema) -> pa.Table:
    """The rows of the buckets from `first` to before `last` of all runs, in no order that means anything."""
    found = [batch for run in runs for batch in _batches(run, int(run.ends[first - 1]) if first else 0, int(run.ends[last - 1]))]
    return pa.Table.from_batches(found, schema)


def _batches(run: Run, start: int, end: int) -> Iterator[pa.RecordBatch]:
    """What lies between two bytes; the schema stands before the first batch of a file."""
    if end == start:
        return
    fs, path = filesystem(run.uri)
    with fs.open_input_file(path) as stream:
        stream.seek(start)
        data = pa.BufferReader(stream.read_buffer(end - start))
    while data.tell() < end - start:
        message = pa.ipc.read_message(data)
        if message.type != "schema":
            yield pa.ipc.read_record_batch(message, run.schema)


@contextmanager
def scratch(draft: Draft) -> Iterator[str]:
    """A folder or URI for the runs of a stage, which all workers reach; removed on leaving, so no part of what is made."""
    fs, path = draft.path("scratch")
    try:
        yield join(draft.uri, "scratch")
    finally:
        fs.delete_dir(path)


def ranges(buckets: int, parts: int) -> list[tuple[int, int]]:
    """All buckets in `parts` ranges, or in one each where there are fewer: first one and the one behind the last.

    Both are powers of two, so the ranges of an id are the same for any number of buckets.
    """
    width = max(1, buckets // parts)
    return [(first, first + width) for first in range(0, buckets, width)]


def power_of_two(least: float) -> int:
    """The smallest power of two that is not below it; 1 for what is less."""
    return 1 << max(0, math.ceil(math.log2(max(1.0, least))))
