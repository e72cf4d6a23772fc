"""What one task of the stage does. Plain functions over Arrow tables and runs, so that `stage.py` only spreads them.

A task holds what a writer of runs is told to hold, or a range of doc_ids or of hashes: about a gigabyte, however much text there is.
"""

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.corpus import overlaps
from raysberta.corpus.components import BANDED
from raysberta.corpus.decontaminate import Passages, passages
from raysberta.corpus.documents import UNREADABLE, WRONG_INPUT
from raysberta.corpus.duplicates import BANDS
from raysberta.corpus.filter import Settings, filter_batch
from raysberta.corpus.length import FILE
from raysberta.corpus.personal import KINDS
from raysberta.corpus.read import Shard, read_shard
from raysberta.corpus.settings import TextSource
from raysberta.corpus.verdicts import DECIDED, SPLITS, Stays, Unit
from raysberta.schema import DOCUMENT, REJECTED, split_of
from raysberta.storage.artifacts import Artifact, Draft
from raysberta.storage.runs import Place, Run, RunWriter, numbers, read_runs

HELD_OUT_TEST = 0.5
"""Share of the groups of a source that is held out whole in the test half; the rest is in the dev half."""
STORED = pa.schema([*REJECTED, ("row", pa.uint64())])
"""Of the runs of documents, by doc_id: `train` and `held` are those that the rules for single ones leave, `out` the others."""
BATCH_ROWS = 4096
SAMPLES = 5
"""Documents of each source and reason for a person to read."""
SHOWN = 400
"""Characters of a sample's text."""
SAMPLE = pa.schema([REJECTED.field(name) for name in ("source", "reason", "score", "language", "doc_id", "group", "title", "text")])
"""A document for a person to read; `reason` is "" where it was kept."""
Runs = Sequence[Sequence[Run]]


@dataclass(frozen=True)
class Filtered:
    """What came of some work units."""

    units: list[Unit]
    runs: dict[str, list[Run]]
    """`train`, `held`, `out` (STORED) and `bands` (BANDED)."""


def read_and_filter(
    batch: pa.Table, sources: Mapping[str, TextSource], settings: Mapping[str, Settings], counts: Artifact | None, place: Place
) -> Iterator[pa.Table]:
    """Read the work units of a batch (column `shards`, pickled) and judge each of their documents.

    Args:
        batch: One row for some work units.
        sources: By name.
        settings: The rules of each source, by name.
        counts: The model whose tokenizer counts; its weights are not fetched. No rule looks at lengths where None.
        place: Where the documents go.

    Yields:
        A row a row, column `filtered`: what came of it, pickled.
    """
    tokenizer = counts.file(FILE) if counts is not None else None
    for value in batch.column("shards").to_pylist():
        writers = {name: place.writer(name) for name in ("train", "held", "out", "bands")}
        units = []
        for shard in pickle.loads(value):
            source, own = sources[shard.source], settings[shard.source]
            tables = []
            for table in read_shard(shard, source):
                judged = with_split(filter_batch(table, own, tokenizer), source.held_out, own)
                _store(judged, writers)
                tables.append(judged.drop_columns(["text", "title", "sections", "bands"]))
            units.append(unit_of(shard, tables))
        found = Filtered(units, {name: writer.done() for name, writer in writers.items()})
        yield pa.table({"filtered": pa.array([pickle.dumps(found)], pa.binary())})


def _store(judged: pa.Table, writers: Mapping[str, RunWriter]) -> None:
    """Put the documents where they belong, and the hashes of their bands."""
    rows = judged["row"].cast(pa.uint64())
    stored = judged.set_column(judged.schema.get_field_index("row"), "row", rows).select(STORED.names)
    good, training = pc.equal(judged["reason"], ""), pc.equal(judged["split"], "train")
    for name, mask in (("train", pc.and_(good, training)), ("held", pc.and_not(good, training)), ("out", pc.invert(good))):
        part = stored.filter(mask)
        writers[name].add(part, numbers(part["doc_id"]))
    banded = _bands(judged)
    writers["bands"].add(banded, banded["hash"].to_numpy())


def with_split(table: pa.Table, held_out: bool, settings: Settings) -> pa.Table:
    """The table with the split that follows from each row's group; no group of a source that is held out whole is for training."""
    shares = (1.0, HELD_OUT_TEST) if held_out else (settings.corpus.dev, settings.corpus.test)
    groups = table["group"].to_pylist()
    known = {group: split_of(group, *shares) for group in set(groups)}
    return table.set_column(table.schema.get_field_index("split"), "split", pa.array([known[group] for group in groups], pa.string()))


def _bands(table: pa.Table) -> pa.Table:
    signed = table.filter(pc.is_valid(table["bands"]))
    hashes = signed["bands"].combine_chunks().flatten().to_numpy() if signed.num_rows else np.empty(0, np.uint64)
    rows = np.repeat(signed["row"].to_numpy().astype(np.uint64), BANDS)
    return pa.table([hashes, np.tile(np.arange(BANDS, dtype=np.uint8), signed.num_rows), rows], BANDED)


def unit_of(shard: Shard, tables: Sequence[pa.Table]) -> Unit:
    """What the driver keeps of a work unit.

    Args:
        shard: The unit.
        tables: Its rows in their order, FILTERED without texts; `reason` of a broken record keeps what it says.
    """
    names = ("doc_id", "key", "characters", "bytes", "language", "reason", "split")
    if not tables:
        empty = dict(zip(names, (np.empty(0, kind) for kind in ("u8", "u8", "u4", "u4", "u2", "u1", "u1")), strict=True))
        return Unit(shard.number, shard.source, empty, [], [], np.zeros(len(KINDS), np.int64))
    table = pa.concat_tables(tables).combine_chunks()
    said = table["reason"].to_pylist()
    reasons, reason = _places([each.split(":", 1)[0] for each in said], np.uint8)
    languages, language = _places(table["language"].to_pylist(), np.uint16)
    keys = pc.if_else(pc.equal(table["key"], ""), "0" * 16, table["key"])
    columns = {
        "doc_id": numbers(table["doc_id"]),
        "key": numbers(keys),
        "characters": table["characters"].to_numpy().astype(np.uint32),
        "bytes": table["bytes"].to_numpy().astype(np.uint32),
        "language": language,
        "reason": reason,
        "split": np.array([SPLITS.index(each) for each in table["split"].to_pylist()], np.uint8),
    }
    masked = table["masked"].combine_chunks().flatten().to_numpy().reshape(-1, len(KINDS)).sum(axis=0, dtype=np.int64)
    return Unit(shard.number, shard.source, columns, languages, reasons, masked, _first(said, UNREADABLE), _first(said, WRONG_INPUT))


def _places(values: Sequence[str], kind: type[np.unsignedinteger]) -> tuple[list[str], np.ndarray]:
    names = list(dict.fromkeys(values))
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[value] for value in values], kind)


def _first(reasons: Sequence[str], start: str) -> str:
    return next((reason.removeprefix(start) for reason in reasons if reason.startswith(start)), "")


def held_in_range(runs: Runs, first: int, last: int, stays: Stays, size: int, place: Place) -> list[Run]:
    """What the held-out documents of a range of doc_ids say, schema overlaps.HELD by hash; `runs`: `held`."""
    writer = place.writer("said_held")
    for table, said in _said(runs[0], first, last, stays, size):
        names = table["doc_id"].combine_chunks().take(pa.array(said.rows))
        writer.add(pa.table([said.hashes, names], overlaps.HELD), said.hashes)
    return writer.done()


def trained_in_range(runs: Runs, first: int, last: int, stays: Stays, size: int, held: np.ndarray, place: Place) -> list[Run]:
    """What the training documents of a range of doc_ids say that may be held out, schema overlaps.SAID by hash; `runs`: `train`."""
    writer = place.writer("said")
    for table, said in _said(runs[0], first, last, stays, size):
        may = overlaps.may_be_held(said.hashes, held)
        hashes = said.hashes[may]
        writer.add(pa.table([hashes, table["row"].to_numpy()[said.rows[may]]], overlaps.SAID), hashes)
    return writer.done()


def _said(runs: Sequence[Run], first: int, last: int, stays: Stays, size: int) -> Iterator[tuple[pa.Table, Passages]]:
    """What documents that stay say, some of them at a time."""
    table = read_runs(runs, first, last, STORED)
    table = table.filter(pa.array(stays.of(table["row"].to_numpy())))
    for start in range(0, table.num_rows, BATCH_ROWS):
        batch = table.slice(start, BATCH_ROWS)
        yield batch, passages(batch, size)


def write_in_range(runs: Runs, first: int, last: int, draft: Draft, part: int) -> pa.Table:
    """Write the documents of a range of doc_ids, kept and rejected ones, as one file each; returns `samples` of them.

    Args:
        runs: `train`, `held`, `out`, and DECIDED by doc_id.
        first: First bucket.
        last: The bucket behind the range.
        draft: Where to.
        part: Number of the range.
    """
    table = pa.concat_tables(read_runs(own, first, last, STORED) for own in runs[:3])
    table = table.sort_by([("doc_id", "ascending"), ("row", "ascending")])
    table = _with_reasons(table, read_runs(runs[3], first, last, DECIDED))
    kept = pc.equal(table["reason"], "")
    draft.write_table("documents", table.filter(kept).select(DOCUMENT.names).cast(DOCUMENT), part)
    draft.write_table("rejected", table.filter(pc.invert(kept)).select(REJECTED.names).cast(REJECTED), part)
    return samples(table)


def _with_reasons(table: pa.Table, decided: pa.Table) -> pa.Table:
    reasons = np.array(table["reason"].to_pylist(), dtype=object)
    rows = table["row"].to_numpy()
    order = np.argsort(rows)
    reasons[order[np.searchsorted(rows, decided["row"].to_numpy(), sorter=order)]] = decided["reason"].to_pylist()
    return table.set_column(table.schema.get_field_index("reason"), "reason", pa.array(reasons, pa.string()))


def samples(table: pa.Table) -> pa.Table:
    """For each source and reason the first SAMPLES rows: SAMPLE, texts cut to what a person looks at."""
    named = pc.list_element(pc.split_pattern(table["reason"], ":", max_splits=1), 0)
    seen: Counter[tuple[str, str]] = Counter()
    taken: list[int] = []
    for row, key in enumerate(zip(table["source"].to_pylist(), named.to_pylist(), strict=True)):
        seen[key] += 1
        if seen[key] <= SAMPLES:
            taken.append(row)
    picked = table.take(pa.array(taken, pa.int64()))
    picked = picked.set_column(picked.schema.get_field_index("text"), "text", pc.utf8_slice_codeunits(picked["text"], 0, SHOWN))
    return picked.select(SAMPLE.names).cast(SAMPLE)
