"""Records to rows: what a data set's entry takes of each record, in columns of one type whatever the files are like.

A row belongs to the range of its key, a hash of its query: rows of one query are neighbours wherever keys are in order.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from raysberta.data_sets.records import Record
from raysberta.data_sets.settings import Column, DatasetSource
from raysberta.errors import InputError
from raysberta.pairs.text import normalise
from raysberta.schema import text_id

ROW = pa.schema(
    [
        ("key", pa.uint64()),  # of the query, under which texts count as the same
        ("row", pa.uint64()),  # of everything that the row says
        ("query", pa.large_string()),
        ("positives", pa.large_list(pa.large_string())),
        ("negatives", pa.large_list(pa.large_string())),
        ("label", pa.string()),
        ("order", pa.large_string()),
        ("score", pa.float64()),
        ("numbers", pa.list_(pa.float64())),  # of the columns that `minimum` names, in their order
        ("problem", pa.string()),  # "" unless the record cannot be read; `query` is then how it begins
    ]
)
UNREADABLE = "unreadable"
BATCH_ROWS = 4096
BATCH_CHARACTERS = 16 << 20
MOST_UNREADABLE = 0.5
"""A greater share of records that cannot be read is no bad luck: the file is something else."""
SHOWN = 200
"""Characters of a record that cannot be read."""
_ABSENT = object()


class Rows:
    """Records to rows, batch by batch; what it leaves out, it counts."""

    def __init__(self, name: str, source: DatasetSource) -> None:
        self.name, self.source = name, source
        self.dropped: Counter[str] = Counter()
        self.seen = self.unreadable = 0
        self._first_problem = self._last = ""
        self._missing = {column: key for key, column in source.columns() if key != "negatives_field"}
        self._there: tuple[str, ...] = ()

        self._batch: list[dict[str, Any]] = []
        self._held = 0

    def of(self, records: Iterable[Record]) -> Iterator[pa.Table]:
        """The rows of records, and of no more.

        Raises:
            InputError: as `add` and `end`.
        """
        for record in records:
            if (table := self.add(record)) is not None:
                yield table
        yield self.end()

    def add(self, record: Record) -> pa.Table | None:
        """Take a record; a table with the columns of ROW whenever BATCH_ROWS rows or BATCH_CHARACTERS are together.

        Raises:
            InputError: its label is outside the mapping.
        """
        row = self._row(record)
        if row is not None:
            self._batch.append(row)
            self._held += len(row["query"]) + sum(map(len, (*row["positives"], *row["negatives"])))
        return self._out() if len(self._batch) == BATCH_ROWS or self._held >= BATCH_CHARACTERS else None

    def end(self) -> pa.Table:
        """The rows that are left.

        Raises:
            InputError: no record had one of the columns, or most records cannot be read.
        """
        self._check()
        return self._out()

    def _out(self) -> pa.Table:
        table = pa.Table.from_pylist(self._batch, ROW)
        self._batch, self._held = [], 0
        return table

    def _check(self) -> None:
        if self.unreadable > MOST_UNREADABLE * self.seen:
            raise InputError(
                f"sources.{self.name}: {self.unreadable} of {self.seen} records are unreadable; the first: {self._first_problem}"
            )
        if self.seen > self.unreadable:
            there = ", ".join(self._there)
            for column, key in self._missing.items():
                raise InputError(f"sources.{self.name}.{key}: no record up to {self._last} has {column!r}; there are {there}")

    def _row(self, record: Record) -> dict[str, Any] | None:
        self.seen += 1
        self._last = record.where
        if record.problem:
            return self._unreadable(record, record.problem)
        if not self._there:
            self._there = tuple(_names(record.value))
        for column in [column for column in self._missing if value_at(record.value, column) is not _ABSENT]:
            del self._missing[column]
        source = self.source
        for column, wanted in source.where.items():
            if _said(value_at(record.value, column)) not in ((wanted,) if isinstance(wanted, str) else wanted):
                self.dropped["where"] += 1
                return None
        label = self._label(record)
        if label == "unused":
            self.dropped["label"] += 1
            return None
        try:
            queries, positives, negatives = (
                _texts(record.value, column) for column in (source.query_field, source.positive_field, source.negatives_field)
            )
        except TypeError as error:
            return self._unreadable(record, str(error))
        if len(queries) > 1:
            return self._unreadable(record, f"{source.query_field} is {len(queries)} texts, not one")
        query = queries[0] if queries else ""
        order = _said(value_at(record.value, source.order_field)) if source.order_field else None
        score = _number(value_at(record.value, source.score_field)) if source.score_field else None
        numbers = [_number(value_at(record.value, column)) for column in source.minimum]
        content = [query, str(len(positives)), *positives, *negatives, str(label), str(order), str(score), *map(str, numbers)]
        return {
            "key": _hash(normalise(query)),
            "row": _hash(*content),
            "query": query,
            "positives": positives or [""],
            "negatives": negatives,
            "label": label,
            "order": order,
            "score": score,
            "numbers": numbers,
            "problem": "",
        }

    def _label(self, record: Record) -> str | None:
        """What the record's label makes of it."""
        if self.source.label_field is None:
            return None
        given = _said(value_at(record.value, self.source.label_field))
        if given is None:
            return "unused"
        if given not in self.source.labels:
            known = ", ".join(self.source.labels)
            raise InputError(
                f"sources.{self.name}.labels: {record.where} has the label {given!r}, which is not named; named are {known}; "
                f"right would be {given}: positive, negative or unused"
            )
        return self.source.labels[given]

    def _unreadable(self, record: Record, problem: str) -> dict[str, Any]:
        self.unreadable += 1
        said = f"{record.where}: {problem}"
        self._first_problem = self._first_problem or said
        begins = "" if record.value is None else repr(record.value)[:SHOWN]
        row = dict.fromkeys(ROW.names, None) | {"query": begins, "positives": [""], "negatives": [], "numbers": [], "problem": said}
        return row | {"key": _hash(said), "row": _hash(said, begins)}


def value_at(record: Any, column: Column) -> Any:
    """What a record holds in a column; a value that nothing equals where there is none."""
    if isinstance(record, dict) and column in record:
        return record[column]
    value = record
    for part in column.split("."):
        value = _inner(value, part)
        if value is _ABSENT:
            return value
    return value


def _inner(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part, _ABSENT)
    if isinstance(value, list):
        if part.isdigit():
            return value[int(part)] if int(part) < len(value) else _ABSENT
        if part.endswith(":") and part[:-1].isdigit():
            return value[int(part[:-1]) :]
        found = [_inner(each, part) for each in value if isinstance(each, dict)]
        return [each for each in found if each is not _ABSENT and each is not None] if found or not value else _ABSENT
    return _ABSENT


def _texts(record: Any, column: Column) -> list[str]:
    """The texts of a column, none where it is absent or null.

    Raises:
        TypeError: something else stands there.
    """
    value = value_at(record, column)
    if value is _ABSENT or value is None:
        return []
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{column} is {type(text).__name__}, no text")
    return [_sound(text) for text in texts if text is not None]


def _sound(text: str) -> str:
    """Without NUL and halves of surrogate pairs, which no file can hold."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode()


def _said(value: Any) -> str | None:
    """A value as the recipe writes it."""
    return None if value is _ABSENT or value is None else str(value)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, dict) else [str(number) for number in range(len(value))]


def _hash(*parts: str) -> int:
    return int(text_id(*parts), 16)
