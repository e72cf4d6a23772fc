"""The tables of the artifact: a file of each for every range of pairs, written a few thousand rows at a time."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysberta.mining.report import suspect
from raysberta.retrieval.stored import Files
from raysberta.retrieval.vectors import Matrix
from raysberta.schema import EXAMPLE
from raysberta.storage.location import join

GROUP_ROWS = 1 << 12
GROUP_BYTES = 1 << 25
"""Of a row group: 32 MiB of text, and what one step adds."""


class Table:
    """A Parquet file in the making: compressed in memory, written whole when it is closed."""

    def __init__(self, files: Files, place: str, schema: pa.Schema) -> None:
        """Begin.

        Args:
            files: Writes it.
            place: Path or URI.
            schema: Of its rows.
        """
        self.files, self.place, self.schema = files, place, schema
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        """Take up rows."""
        self._waiting.append(rows)
        if sum(len(part) for part in self._waiting) >= GROUP_ROWS or sum(part.nbytes for part in self._waiting) >= GROUP_BYTES:
            self._write()

    def close(self) -> None:
        """Write the file, also where it has no row."""
        self._write()
        self._writer.close()
        self.files.write(self.place, self._sink.getvalue())

    def _write(self) -> None:
        waiting = [part for part in self._waiting if len(part)]
        if waiting:
            self._writer.write_table(pa.concat_tables(waiting).combine_chunks())
        self._waiting = []


class Output:
    """The tables `examples` and `suspects` of a range of pairs: suspects are examples whose positive stands below their query's window."""

    def __init__(self, files: Files, attempt: str, name: str) -> None:
        """Begin.

        Args:
            files: Writes them.
            attempt: Folder or URI of the artifact's attempt.
            name: Of the files.
        """
        self.examples = Table(files, join(attempt, "examples", name), EXAMPLE)
        self.suspects = Table(files, join(attempt, "suspects", name), EXAMPLE)

    def add(self, mined: pa.Table) -> None:
        """Take up rows of MINED."""
        examples = mined.select(EXAMPLE.names).cast(EXAMPLE)
        self.examples.add(examples)
        self.suspects.add(examples.filter(suspect(mined)))

    def close(self) -> None:
        """Write both."""
        self.examples.close()
        self.suspects.close()


def read(files: Files, place: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Rows of a Parquet file, at most one row group at a time."""
    with files.opened(place) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=GROUP_ROWS, columns=columns):
            yield pa.Table.from_batches([batch])


def vector_rows(keys: list[str], vectors: Matrix) -> pa.Table:
    """Rows of the table `vectors`: texts with their prefixes, and their vectors in half precision."""
    dimension = vectors.shape[1]
    flat = pa.array(np.asarray(vectors[:], np.float16).reshape(-1), pa.float16())
    return pa.table([pa.array(keys, pa.string()), pa.FixedSizeListArray.from_arrays(flat, dimension)], vector_schema(dimension))


def vector_schema(dimension: int) -> pa.Schema:
    """Of the table `vectors`."""
    return pa.schema([("key", pa.string()), ("vector", pa.list_(pa.float16(), dimension))])
