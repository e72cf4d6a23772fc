"""The tables of the artifact as they grow, and of every example the few numbers that the facts count."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysberta.mining.miner import MINED
from raysberta.retrieval.vectors import Matrix, steps
from raysberta.schema import EXAMPLE
from raysberta.storage.artifacts import Draft

ROWS_PER_FILE = 1 << 18
COUNTED = ["pair_id", "source", "kind", "positive_score", "negative_scores", "negative_ranks", "topped_up", "looked_at", "skipped"]


class Output:
    """The tables `examples` and `suspects`: examples whose positive stands below the window of its own query."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.rows, self.suspects, self.promoted = draft, 0, 0, 0
        self._files: list[str] = []
        self._waiting: list[pa.Table] = []
        self._counts: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Take up rows of MINED; whole files are written at once."""
        self._waiting.append(table)
        self.rows += table.num_rows
        self.promoted += pc.sum(table["promoted"]).as_py() or 0
        if sum(part.num_rows for part in self._waiting) >= ROWS_PER_FILE:
            self._write()

    def close(self) -> None:
        """Write what is left; there is a file of each table even where it has no row."""
        if self._waiting or not self._files:
            self._write()

    def counted(self) -> pa.Table:
        """COUNTED of every row, and the number of its negatives as `count`."""
        return pa.concat_tables(self._counts)

    def examples(self) -> Iterator[pa.Table]:
        """What was written, rows of EXAMPLE, a file at a time."""
        fs, folder = self.draft.path("examples")
        for name in self._files:
            yield pq.read_table(f"{folder}/{name}", filesystem=fs)

    def rewrite(self, change: Callable[[pa.Table], pa.Table]) -> None:
        """Put other scores into what was written, a file at a time; the suspects keep those that made them suspect.

        Args:
            change: Rows of EXAMPLE to the same rows with other scores.
        """
        for number, table in enumerate(self.examples()):
            table = change(table)
            self._put("examples", self._files[number], table)
            for name in ("positive_score", "negative_scores"):
                counts = self._counts[number]
                self._counts[number] = counts.set_column(counts.schema.get_field_index(name), counts.schema.field(name), table[name])

    def _write(self) -> None:
        table = pa.concat_tables([MINED.empty_table(), *self._waiting]).combine_chunks()
        suspect = pc.and_(pc.equal(table["positive_rank"], -1), pc.is_finite(table["positive_score"]))
        examples = table.select(EXAMPLE.names).cast(EXAMPLE)
        suspects = examples.filter(suspect)
        name = f"part-{len(self._files):05d}.parquet"
        self._put("examples", name, examples)
        self._put("suspects", name, suspects)
        self._counts.append(table.select(COUNTED).append_column("count", pc.list_value_length(table["negatives"])))
        self.suspects += suspects.num_rows
        self._files.append(name)
        self._waiting = []

    def _put(self, table: str, name: str, rows: pa.Table) -> None:
        fs, folder = self.draft.path(table)
        pq.write_table(rows, f"{folder}/{name}", filesystem=fs, compression="zstd")


def keep_vectors(texts: Sequence[str], vectors: Matrix, rows: Sequence[int], draft: Draft) -> None:
    """Write the table `vectors`: each text with its prefix, `key`, and its vector in half precision."""
    fs, path = draft.path("vectors")
    schema = vector_schema(vectors.shape[1])
    with pq.ParquetWriter(f"{path}/part-00000.parquet", schema, filesystem=fs, compression="zstd") as file:
        for start, stop in steps(len(rows), ROWS_PER_FILE):
            chosen = rows[start:stop]
            flat = pa.array(np.asarray(vectors[np.asarray(chosen, np.int64)], np.float16).reshape(-1), pa.float16())
            values = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            file.write_table(pa.table([pa.array([texts[row] for row in chosen], pa.string()), values], schema))


def vector_schema(dimension: int) -> pa.Schema:
    """Of the table `vectors`."""
    return pa.schema([("key", pa.string()), ("vector", pa.list_(pa.float16(), dimension))])
