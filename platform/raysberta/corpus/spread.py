"""What one task does to one block of the corpus. Plain functions over Arrow tables, so that `stage.py` only spreads them."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysberta.artifacts import Artifact, Draft
from raysberta.corpus.decontaminate import HeldOut, matches, passages
from raysberta.corpus.filter import FILTERED, Settings, filter_batch
from raysberta.corpus.read import read_shard
from raysberta.recipe import Source
from raysberta.schema import DOCUMENT, REJECTED

LIGHT = ("row", "doc_id", "group", "source", "language", "reason", "bytes", "characters", "key", "bands")
"""What the comparison of all documents needs: no text."""
ROW_GROUP = 20_000


def read_and_filter(
    batch: pa.Table, sources: Mapping[str, Source], settings: Mapping[str, Settings], models: Artifact, miner: str
) -> Iterator[pa.Table]:
    """Read the work units of a batch (column `shard`, pickled) and judge each of their documents.

    Args:
        batch: One row a work unit.
        sources: By name.
        settings: The rules of each source, by name.
        models: The artifact of the stage `models`.
        miner: The folder in it whose tokenizer counts.
    """
    tokenizer: Path = models.folder(miner)
    for value in batch.column("shard").to_pylist():
        shard = pickle.loads(value)
        for table in read_shard(shard, sources[shard.source]):
            yield filter_batch(table, settings[shard.source], tokenizer)


def light(block: pa.Table) -> pa.Table:
    """The columns without text; `reason` of a broken record keeps what it says. An empty block has no columns at all."""
    return (block if block.num_rows else FILTERED.empty_table()).select(list(LIGHT))


def evaluation_passages(block: pa.Table, chosen: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the chosen rows, uint64, and the doc_id of each.

    Args:
        block: Columns of FILTERED.
        chosen: bool [rows].
        size: Words of a run.
    """
    table = block.filter(pa.array(chosen))
    found = passages(table, size)
    names = np.array(table.column("doc_id").to_pylist(), dtype="U16")
    order = np.lexsort((found.rows, found.hashes))
    hashes, rows = found.hashes[order], found.rows[order]
    first = np.r_[True, (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])] if len(hashes) else np.empty(0, bool)
    return hashes[first], names[rows[first]]


def overlaps(block: pa.Table, chosen: np.ndarray, size: int, known: HeldOut) -> list[str | None]:
    """For each row the held-out doc_id that it shares something with; None for the others and for rows not chosen."""
    table = block.filter(pa.array(chosen))
    found: list[str | None] = [None] * block.num_rows
    for row, match in zip(np.flatnonzero(chosen).tolist(), matches(passages(table, size), known, table.num_rows), strict=True):
        found[row] = match
    return found


def settle(block: pa.Table, reasons: pa.Array, splits: pa.Array, parts: int) -> list[pa.Table]:
    """Cut a block by verdict and by the range of doc_id: `parts` tables of documents, then `parts` of rejected ones."""
    table = block.set_column(block.schema.get_field_index("reason"), "reason", reasons)
    table = table.set_column(table.schema.get_field_index("split"), "split", splits)
    part = part_of(table.column("doc_id").to_pylist(), parts)
    kept = pc.equal(reasons, "").to_numpy(zero_copy_only=False)
    pieces = [table.filter(pa.array(kept & (part == index))).select(DOCUMENT.names) for index in range(parts)]
    rejected = [table.filter(pa.array(~kept & (part == index))).select([*REJECTED.names, "row"]) for index in range(parts)]
    return pieces + rejected


def part_of(doc_ids: Sequence[str], parts: int) -> np.ndarray:
    """The range that each doc_id falls into, int64: they are hashes, so ranges of equal width are of equal size."""
    points = np.array([int(doc_id[:8], 16) for doc_id in doc_ids], dtype=np.int64)
    return points * parts >> 32


def write_part(draft: Draft, name: str, part: int, *pieces: pa.Table) -> int:
    """Sort the pieces of one part by doc_id and write them as one file; returns the rows."""
    schema = DOCUMENT if name == "documents" else REJECTED
    table = pa.concat_tables(pieces)
    keys = [("doc_id", "ascending")] + ([("row", "ascending")] if "row" in table.schema.names else [])
    table = table.sort_by(keys).select(schema.names).cast(schema)
    system, path = draft.path(name)
    pq.write_table(table, f"{path}/part-{part:05d}.parquet", filesystem=system, compression="zstd", row_group_size=ROW_GROUP)
    return table.num_rows
