"""What one task does to one block of the corpus. Plain functions over Arrow tables, so that `stage.py` only spreads them."""

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysberta.corpus.decontaminate import HeldOut, Passages, matches, passages
from raysberta.corpus.duplicates import BANDS, meetings
from raysberta.corpus.filter import FILTERED, Settings, filter_batch
from raysberta.corpus.length import FILE
from raysberta.corpus.read import read_shard
from raysberta.corpus.settings import TextSource
from raysberta.schema import DOCUMENT, REJECTED
from raysberta.storage.artifacts import Artifact, Draft

LIGHT = ("row", "doc_id", "group", "source", "language", "reason", "bytes", "characters", "key", "masked", "signed")
"""What comes together from all blocks: no text, no bands; `signed` says whether a row has bands."""
ROW_GROUP = 20_000
SHOWN = 400
"""Characters of a sample's text."""
SAMPLE = pa.schema([REJECTED.field(name) for name in ("source", "reason", "score", "language", "doc_id", "group", "title", "text")])
"""A document for a person to read; `reason` is "" where it was kept."""


def read_and_filter(
    batch: pa.Table, sources: Mapping[str, TextSource], settings: Mapping[str, Settings], counts: Artifact | None
) -> Iterator[pa.Table]:
    """Read the work units of a batch (column `shard`, pickled) and judge each of their documents.

    Args:
        batch: One row a work unit.
        sources: By name.
        settings: The rules of each source, by name.
        counts: The model whose tokenizer counts; its weights are not fetched. No rule looks at lengths where None.
    """
    tokenizer = counts.file(FILE) if counts is not None else None
    for value in batch.column("shard").to_pylist():
        shard = pickle.loads(value)
        for table in read_shard(shard, sources[shard.source]):
            yield filter_batch(table, settings[shard.source], tokenizer)


def light(block: pa.Table) -> pa.Table:
    """The columns without text; `reason` of a broken record keeps what it says. An empty block has no columns at all."""
    table = block if block.num_rows else FILTERED.empty_table()
    return table.append_column("signed", pc.is_valid(table.column("bands"))).select(list(LIGHT))


def band_parts(block: pa.Table, chosen: np.ndarray, first: int, parts: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut the bands of the chosen rows by the value of the hash: for each of BANDS x `parts` ranges the hashes and the documents.

    Args:
        block: Columns of FILTERED.
        chosen: bool [rows].
        first: Number of the block's first document among all.
        parts: Ranges of equal width that a band is cut into.
    """
    rows = np.flatnonzero(chosen)
    column = block.column("bands").combine_chunks().take(pa.array(rows))
    hashes = column.flatten().to_numpy().reshape(-1, BANDS) if len(rows) else np.empty((0, BANDS), np.uint64)
    pieces: list[tuple[np.ndarray, np.ndarray]] = []
    for band in range(BANDS):
        part = (hashes[:, band] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
        pieces.extend((hashes[part == index, band], first + rows[part == index]) for index in range(parts))
    return pieces


def meet(*pieces: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Pairs of documents that share a band within one range of its hashes, int64 [pairs, 2]."""
    return meetings(np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces]))


def samples(block: pa.Table, reasons: pa.Array, count: int) -> pa.Table:
    """For each source and reason the `count` rows with the least doc_id: SAMPLE, texts cut to what a person looks at."""
    table = block.set_column(block.schema.get_field_index("reason"), "reason", reasons)
    named = pc.list_element(pc.split_pattern(table.column("reason"), ":", max_splits=1), 0)
    order = np.lexsort((table.column("row").to_numpy(), np.array(table.column("doc_id").to_pylist(), "U16")))
    seen: Counter[tuple[str, str]] = Counter()
    taken: list[int] = []
    keys = list(zip(table.column("source").to_pylist(), named.to_pylist(), strict=True))
    for row in order.tolist():
        seen[keys[row]] += 1
        if seen[keys[row]] <= count:
            taken.append(row)
    picked = table.take(pa.array(taken, pa.int64()))
    picked = picked.set_column(picked.schema.get_field_index("text"), "text", pc.utf8_slice_codeunits(picked.column("text"), 0, SHOWN))
    return picked.select(SAMPLE.names).cast(SAMPLE)


def evaluation_passages(block: pa.Table, chosen: np.ndarray, size: int) -> tuple[Passages, list[str]]:
    """Hashes of the chosen rows, and the doc_id of each.

    Args:
        block: Columns of FILTERED.
        chosen: bool [rows].
        size: Words of a run.
    """
    table = block.filter(pa.array(chosen))
    return passages(table, size), table.column("doc_id").to_pylist()


def overlaps(block: pa.Table, chosen: np.ndarray, size: int, known: HeldOut) -> list[str | None]:
    """For each row the held-out doc_id or evaluation item that it shares something with; None for the others and for rows not chosen."""
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
