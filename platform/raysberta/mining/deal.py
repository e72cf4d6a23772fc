"""Deal rows of pairs out to their ranges, and gather what a range got: pairs with all others of their query, and distinct passages."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.corpus.language import identify
from raysberta.mining.ids import ids_of, range_of, words_of
from raysberta.mining.parts import Parts
from raysberta.schema import PAIR

SHORT_CHARACTERS = 40
"""Shorter passages have the language of their script: identification is unreliable on them."""
PLACE = [("part", pa.int32()), ("range", pa.int32())]
PAIRS = pa.schema([*PLACE, *PAIR])
PASSAGES = pa.schema(
    [
        *PLACE,
        ("id", pa.uint64()),
        ("words", pa.uint64()),
        ("tags", pa.uint64()),
        ("keys", pa.list_(pa.uint64())),
        ("text", pa.string()),
    ]
)
"""A passage of one pair, without prefix; `keys` are the ids of its document and group, none where the pair brings it as a negative."""
GATHERED = pa.schema(
    [
        ("id", pa.uint64()),
        ("words", pa.uint64()),  # id of the normalised text
        ("tags", pa.uint64()),  # bits of Part.tags
        ("keys", pa.list_(pa.uint64())),  # of all pairs that have it as positive
        ("language", pa.string()),  # "" where nobody asks
        ("text", pa.string()),
    ]
)
"""The distinct passages of a range, longest first as they are embedded, then by id."""


def deal(pairs: pa.Table, node: str, parts: Parts) -> tuple[pa.Table, pa.Table, int]:
    """What rows of PAIR (training pairs of one node) give to the ranges: rows of PAIRS, rows of PASSAGES, and how many chosen are empty."""
    names = [part.name for part in parts.every]
    place = pc.index_in(pc.binary_join_element_wise(pairs["source"], pairs["kind"], "/"), pa.array(names, pa.string()))
    pairs = pairs.append_column("part", pc.cast(place, pa.int32())).filter(pc.is_valid(place))
    settings = parts.settings
    tags = {(number, *tag): bit for number, part in enumerate(parts.every) for bit, tag in enumerate(part.tags)}
    bits = np.array([tags.get((number, node, language), -1) for number, language in zip(*_columns(pairs), strict=True)], np.int64)
    pairs = pairs.append_column("bit", pa.array(bits)).filter(pa.array(bits >= 0))
    chosen = pc.is_in(pairs["part"], pa.array([names.index(name) for name in parts.chosen.get(node, ())], pa.int32()))
    if settings.languages:
        chosen = pc.and_(chosen, pc.is_in(pairs["language"], pa.array(settings.languages, pa.string())))
    blank = pc.or_(*(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pairs[side])), 0) for side in ("query", "positive")))
    empty = pc.sum(pc.and_(chosen, blank)).as_py() or 0
    kept = pc.invert(blank)
    return _dealt_pairs(pairs.filter(pc.and_(kept, chosen)), parts), _dealt_passages(pairs.filter(kept), parts), empty


def _columns(pairs: pa.Table) -> tuple[list[int], list[str]]:
    return pairs["part"].to_pylist(), pairs["language"].to_pylist()


def _dealt_pairs(pairs: pa.Table, parts: Parts) -> pa.Table:
    ranges = np.array([part.pair_ranges for part in parts.every], np.int64)
    return _placed(pairs, words_of(pairs["query"].to_pylist()), ranges).select(PAIRS.names).cast(PAIRS)


def _dealt_passages(pairs: pa.Table, parts: Parts) -> pa.Table:
    ranges = np.array([part.passage_ranges for part in parts.every], np.int64)
    ids = np.stack([ids_of(pairs[name].to_pylist()) for name in ("doc_id", "group")], 1) if len(pairs) else np.zeros((0, 2), np.uint64)
    keys = pa.ListArray.from_arrays(np.arange(0, 2 * len(pairs) + 1, 2, dtype=np.int32), pa.array(ids.reshape(-1), pa.uint64()))
    found = [pa.table({"part": pairs["part"], "bit": pairs["bit"], "keys": keys, "text": pairs["positive"]})]
    if parts.settings.passages == "positives_and_negatives":
        lists = pairs["negatives"].combine_chunks()
        owners, texts = pc.list_parent_indices(lists), pc.list_flatten(lists)
        none = pa.array([[]], pa.list_(pa.uint64())).take(pa.array(np.zeros(len(texts), np.int32)))
        columns = {"part": pairs["part"].take(owners), "bit": pairs["bit"].take(owners), "keys": none, "text": texts}
        brought = pa.table(columns)
        found.append(brought.filter(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(brought["text"])), 0)))
    table = pa.concat_tables(found)
    texts = table["text"].to_pylist()
    ids = ids_of(texts)
    tags = np.left_shift(np.uint64(1), table["bit"].to_numpy().astype(np.uint64))
    table = table.append_column("id", pa.array(ids)).append_column("words", pa.array(words_of(texts))).append_column("tags", pa.array(tags))
    return _placed(table, ids, ranges).select(PASSAGES.names).cast(PASSAGES)


def _placed(rows: pa.Table, ids: np.ndarray, ranges: np.ndarray) -> pa.Table:
    return rows.append_column("range", pa.array(range_of(ids, ranges[rows["part"].to_numpy()]), pa.int32()))


def batches(rows: pa.Table) -> Iterator[tuple[int, int, pa.RecordBatch]]:
    """Rows with a PLACE, a batch for each place: part, range, rows."""
    rows = rows.sort_by([("part", "ascending"), ("range", "ascending")])
    place = rows["part"].to_numpy().astype(np.int64) << 32 | rows["range"].to_numpy()
    begins = np.flatnonzero(np.diff(place, prepend=-1))
    for start, stop in pairwise([*begins.tolist(), len(place)]):
        some = rows.slice(start, stop - start).combine_chunks()
        yield int(place[start] >> 32), int(place[start] & 0xFFFFFFFF), some.to_batches()[0]


def gather_pairs(dealt: Sequence[pa.RecordBatch]) -> tuple[pa.Table, int]:
    """The pairs of a range, rows of PAIR in order of their ids, and how many were left out for having the id of another."""
    table = (
        pa.Table.from_batches(dealt, PAIRS)
        .select(PAIR.names)
        .sort_by([(name, "ascending") for name in ("pair_id", "positive", "query", "doc_id")])
    )
    ids = table["pair_id"].to_pylist()
    again = np.array([row > 0 and ids[row - 1] == name for row, name in enumerate(ids)], bool)
    return table.filter(pa.array(~again)).combine_chunks(), int(again.sum())


def gather_passages(dealt: Sequence[pa.RecordBatch], languages: Sequence[str] = ()) -> pa.RecordBatch:
    """The distinct passages of a range, rows of GATHERED.

    Args:
        dealt: Rows of PASSAGES.
        languages: To tell apart; nobody asks where there are none.
    """
    table = pa.Table.from_batches(dealt, PASSAGES)
    ids, lengths = table["id"].to_numpy(), pc.utf8_length(table["text"]).to_numpy()
    order = np.lexsort((ids, -lengths.astype(np.int64)))
    first = order[np.flatnonzero(np.diff(ids[order].astype(np.uint64), prepend=~ids[order][:1]) != 0)] if len(ids) else order
    at = np.searchsorted(ids[first][(by_id := np.argsort(ids[first]))], ids)
    row = by_id[at]  # of every dealt passage, among the distinct
    tags = np.zeros(len(first), np.uint64)
    np.bitwise_or.at(tags, row, table["tags"].to_numpy())
    owners = row[pc.list_parent_indices(table["keys"].combine_chunks()).to_numpy()]
    keys = np.unique(np.stack([owners.astype(np.uint64), pc.list_flatten(table["keys"]).to_numpy()], 1), axis=0)
    offsets = np.searchsorted(keys[:, 0], np.arange(len(first) + 1, dtype=np.uint64))
    texts = table["text"].combine_chunks().take(pa.array(first))
    spoken = [identify(text, languages, SHORT_CHARACTERS)[0] for text in texts.to_pylist()] if languages else [""] * len(first)
    return pa.record_batch(
        [
            pa.array(ids[first], pa.uint64()),
            table["words"].combine_chunks().take(pa.array(first)),
            pa.array(tags, pa.uint64()),
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(keys[:, 1], pa.uint64())),
            pa.array(spoken, pa.string()),
            texts,
        ],
        schema=GATHERED,
    )
