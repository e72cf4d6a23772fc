"""What one task of the stage does: a work unit to runs, a range of runs to verdicts, a range to the tables that are written.

No task holds more than a range or what a writer of runs is told to hold: about a gigabyte, however many pairs there are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.corpus import overlaps
from raysberta.corpus.decontaminate import PASSAGE, hashed
from raysberta.corpus.length import FILE, token_counts
from raysberta.errors import InputError
from raysberta.pairs.compare import OPEN, REPEATED, UNLIKE, VERDICTS, compare, good_pairs, settle
from raysberta.pairs.filter import KEYS, CountTokens, judge
from raysberta.pairs.make import Mappings
from raysberta.pairs.match import Circles
from raysberta.pairs.settings import Pairs
from raysberta.pairs.units import DataSetUnit, DocumentUnit, PairUnit, by_circle, pairs_of
from raysberta.schema import REJECTED_PAIR, Split
from raysberta.storage.artifacts import Artifact, Draft
from raysberta.storage.runs import Place, Run, numbers, read_runs, texts

MATCHES = pa.schema([("pair_id", pa.string()), ("held_out", pa.string())])
SIDES = pa.schema([("pair", pa.uint64()), ("name", pa.string()), ("query", pa.string()), ("positive", pa.string())])
"""Both texts of the pairs that an encoder compares; the name is `source/kind`."""
Runs = Sequence[Sequence[Run]]


@dataclass(frozen=True)
class Making:
    """What all work units have in common."""

    mappings: Mappings
    rules: Pairs
    counts: Artifact | None
    """The model whose tokenizer counts; its weights are not fetched."""
    kinds: Sequence[str]
    """Every `source/kind` that there may be."""
    ngram: int
    """Words in a row that count as a repeat of an evaluation set."""
    place: Place


@dataclass(frozen=True)
class Made:
    """What came of a work unit."""

    rows: int = 0
    """Read or made, whatever becomes of them."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows that data sets leave out themselves, by reason."""
    bytes: int = 0
    """UTF-8 bytes of all sides: the same however the rows lie."""
    pairs: Sequence[Run] = ()
    """REJECTED_PAIR, by pair_id."""
    keys: Sequence[Run] = ()
    """KEYS, by key."""
    open: Sequence[Run] = ()
    """OPEN, by pair_id."""
    said: Sequence[Run] = ()
    """overlaps.SAID, by hash."""
    sides: Sequence[Run] = ()
    """SIDES, by pair_id."""
    problem: str = ""
    """What is wrong with the unit; an exception would reach the user with Ray's own lines around it."""


def make_runs(unit: PairUnit, making: Making, held: np.ndarray | None, labels: Sequence[Run]) -> Made:
    """Make the pairs of a unit and judge each by itself.

    Args:
        unit: What to read.
        making: How.
        held: What pairs of data sets may not repeat, as `overlaps.bits` gives it; nothing where None.
        labels: The runs of labelled documents.
    """
    place = making.place
    pairs, keys, still, said, sides = (place.writer(name) for name in ("pairs", "keys", "open", "said", "sides"))
    counter = _counter(making)
    rows = size = 0
    left_out: Counter[str] = Counter()
    try:
        for taken in pairs_of(unit, making.mappings, making.rules.max_characters, labels):
            judged, own = judge(taken.pairs, making.rules, counter)
            ids = numbers(judged["pair_id"])
            pairs.add(judged, ids)
            pairs.add(taken.rejected, numbers(taken.rejected["pair_id"]))
            left_out.update(taken.dropped)
            keys.add(own, own["high"].to_numpy())
            candidates = _open(judged, ids, making.kinds)
            still.add(candidates, candidates["pair"].to_numpy())
            if held is not None and isinstance(unit, DataSetUnit):
                repeated = _said(judged, ids, making.ngram, held)
                said.add(repeated, repeated["hash"].to_numpy())
            if making.rules.alike is not None:
                both = _sides(judged, ids, list(making.rules.alike.least))
                sides.add(both, both["pair"].to_numpy())
            rows += judged.num_rows + taken.rejected.num_rows
            size += _bytes(judged)
    except InputError as error:
        return Made(problem=str(error))
    return Made(rows + left_out.total(), left_out, size, pairs.done(), keys.done(), still.done(), said.done(), sides.done())


def _counter(making: Making) -> CountTokens | None:
    """What counts tokens as a model reads a text, with the special ones."""
    return partial(token_counts, file=making.counts.file(FILE), special=True) if making.counts is not None else None


def _open(judged: pa.Table, ids: np.ndarray, kinds: Sequence[str]) -> pa.Table:
    number = {kind: place for place, kind in enumerate(kinds)}
    named = [number[f"{s}/{k}"] for s, k in zip(judged["source"].to_pylist(), judged["kind"].to_pylist(), strict=True)]
    good = pc.and_(pc.equal(judged["reason"], ""), pc.equal(judged["split"], "train"))
    return pa.table([ids, np.array(named, np.int32)], OPEN).filter(good)


def _said(judged: pa.Table, ids: np.ndarray, ngram: int, held: np.ndarray) -> pa.Table:
    rows = list(range(len(ids))) * 2
    found = hashed(judged["query"].to_pylist() + judged["positive"].to_pylist(), rows, [True] * len(rows), ngram)
    may = overlaps.may_be_held(found.hashes, held)
    return pa.table([found.hashes[may], ids[found.rows[may]]], overlaps.SAID)


def _sides(judged: pa.Table, ids: np.ndarray, names: Sequence[str]) -> pa.Table:
    named = pc.binary_join_element_wise(judged["source"], judged["kind"], "/")
    compared = pc.and_(pc.equal(judged["reason"], ""), pc.is_in(named, pa.array(names)))
    return pa.table([pa.array(ids), named, judged["query"], judged["positive"]], SIDES).filter(compared)


def _bytes(pairs: pa.Table) -> int:
    sides = pc.sum(pc.binary_length(pairs["query"])).as_py(), pc.sum(pc.binary_length(pairs["positive"])).as_py()
    given = pc.sum(pc.binary_length(pc.list_flatten(pairs["negatives"]))).as_py()
    return sum(each or 0 for each in (*sides, given))


def label_runs(unit: DocumentUnit, sources: Sequence[str], circles: Circles, longest: int, place: Place) -> list[Run]:
    """The labelled documents of a unit, by circle."""
    writer = place.writer("labels")
    for table, ids in by_circle(unit, sources, circles, longest):
        writer.add(table, ids)
    return writer.done()


def compare_range(runs: Runs, first: int, last: int, place: Place) -> list[Run]:
    """What speaks against pairs within a range of keys, schema VERDICTS by pair_id; `runs` are those of keys."""
    found = compare(read_runs(runs[0], first, last, KEYS))
    writer = place.writer("verdicts")
    writer.add(found, found["pair"].to_numpy())
    return writer.done()


def good_range(runs: Runs, first: int, last: int, kinds: int, passages: bool) -> np.ndarray:
    """Of a range of ids what only limits can drop, int64 [kinds]; `runs`: OPEN, VERDICTS, REPEATED, UNLIKE. `passages`: `write_range`."""
    schemas = (OPEN, VERDICTS, REPEATED, UNLIKE)
    still, verdicts, repeated, unlike = (read_runs(own, first, last, schema) for own, schema in zip(runs, schemas, strict=True))
    return good_pairs(still, verdicts, _counting(overlaps.smallest(repeated), passages), unlike, kinds)


def _counting(repeated: pa.Table, passages: bool) -> pa.Table:
    """Without those that repeat no more than a passage that a benchmark searches, unless these count too."""
    return repeated if passages else repeated.filter(pc.invert(pc.starts_with(repeated["name"], PASSAGE)))


@dataclass(frozen=True)
class Written:
    """What stands in one part of the tables."""

    kept: Counter[tuple[str, str, Split]]
    """Pairs by source, kind and split."""
    dropped: Counter[str]
    """By reason."""
    repeats: Counter[bool]
    """Pairs that repeat an evaluation set, by whether it is but a passage."""


def write_range(runs: Runs, first: int, last: int, draft: Draft, passages: bool, part: tuple[int, Mapping[str, int]]) -> Written:
    """Write the pairs of a range of ids: kept, rejected, and which repeat an evaluation set.

    Args:
        runs: REJECTED_PAIR, VERDICTS, REPEATED, UNLIKE.
        first: First bucket.
        last: The bucket behind the range.
        draft: Where to.
        passages: Whether passages that a benchmark searches count too.
        part: Its number, and the room that limits leave it.
    """
    number, room = part
    schemas = (REJECTED_PAIR, VERDICTS, REPEATED, UNLIKE)
    pairs, verdicts, repeated, unlike = (read_runs(own, first, last, schema) for own, schema in zip(runs, schemas, strict=True))
    repeated = overlaps.smallest(repeated)
    settled = settle(pairs, verdicts, _counting(repeated, passages), unlike, room)
    draft.write_table("pairs", settled.kept, number)
    draft.write_table("rejected", settled.rejected, number)
    draft.write_table("matches", pa.table([texts(repeated["id"].to_numpy()), repeated["name"]], MATCHES), number)
    names = (settled.kept[name].to_pylist() for name in ("source", "kind", "split"))
    searched = pc.starts_with(repeated["name"], PASSAGE).to_pylist()
    return Written(Counter(zip(*names, strict=True)), settled.dropped, Counter(searched))
