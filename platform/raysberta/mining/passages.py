"""The passages of a mining run, read by number from mapped files, and the pool of one part: which of them may be its negatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysberta.mining.ids import Lookup, ids_of, range_of
from raysberta.retrieval.vectors import Matrix

Open = Callable[[int], pa.RecordBatch]
"""A range's rows of GATHERED, by its place among all."""


@dataclass(frozen=True)
class Numbers:
    """How passages are numbered: range after range, part after part, each part from a multiple of `step` on."""

    sizes: tuple[tuple[int, ...], ...]
    """By part, how many passages each of its ranges has."""
    step: int
    """A multiple of what any file of vectors holds, so none has passages of two parts."""

    @property
    def starts(self) -> np.ndarray:
        """The number of each part's first passage, and the end, int64 [parts + 1]."""
        return np.cumsum([0, *(-(-sum(sizes) // self.step) * self.step for sizes in self.sizes)])

    @property
    def ranges(self) -> np.ndarray:
        """The number of the first passage of each range of every part, int64."""
        within = [start + np.cumsum([0, *sizes])[:-1] for start, sizes in zip(self.starts, self.sizes, strict=False)]
        return np.concatenate([np.zeros(0, np.int64), *within]).astype(np.int64)

    def files(self, rows: int) -> list[tuple[int, int] | None]:
        """First passage, and the one after the last, of each file of `rows` vectors of them all; None where it would have none."""
        starts, found = self.starts.tolist(), []
        for first, after, sizes in zip(starts, starts[1:], self.sizes, strict=False):
            last = first + sum(sizes)
            found += [(start, min(start + rows, last)) if start < last else None for start in range(first, after, rows)]
        return found


class Passages:
    """All passages. A process maps the ranges that it reads: it holds 4 bytes of its own for each passage that it looks up by id."""

    def __init__(self, numbers: Numbers, opened: Open) -> None:
        """Read by way of `opened`."""
        self.numbers, self._open = numbers, opened
        self._starts, self._parts = numbers.ranges, numbers.starts
        self._first = np.cumsum([0, *(len(sizes) for sizes in numbers.sizes)])
        self._batches: dict[int, pa.RecordBatch] = {}
        self._orders: dict[int, np.ndarray] = {}

    def column(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """`id`, `words` or `tags` of passages, uint64 [n]; their `language`, str [n]."""
        found = np.empty(len(numbers), object if name == "language" else np.uint64)
        for batch, where, rows in self._by_range(numbers):
            values = batch.column(name)
            found[where] = values.take(rows).to_pylist() if name == "language" else values.to_numpy()[rows]
        return found.astype(str) if name == "language" else found

    def texts(self, numbers: np.ndarray) -> list[str]:
        """The texts of passages, without prefix."""
        found: list[str] = [""] * len(numbers)
        for batch, where, rows in self._by_range(numbers):
            for place, text in zip(where.tolist(), batch.column("text").take(pa.array(rows)).to_pylist(), strict=True):
                found[place] = text
        return found

    def keys(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of documents and groups that passages are of, uint64 [m], and the place in `numbers` of each's passage, int64 [m]."""
        owners, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        for batch, where, rows in self._by_range(numbers):
            lists = batch.column("keys").take(pa.array(rows))
            owners.append(where[lists.value_parent_indices().to_numpy()])
            keys.append(lists.flatten().to_numpy())
        return np.concatenate(keys), np.concatenate(owners)

    def of_part(self, part: int) -> np.ndarray:
        """The numbers of all passages of a part, int64."""
        first = int(self._parts[part])
        return np.arange(first, first + sum(self.numbers.sizes[part]), dtype=np.int64)

    def find(self, part: int, ids: np.ndarray) -> np.ndarray:
        """The numbers of a part's passages by their ids (uint64 [n]), int64 [n]; -1 where it has none."""
        found = np.full(len(ids), -1, np.int64)
        ranges = len(self.numbers.sizes[part])
        places = range_of(ids, np.full(len(ids), ranges)) if ranges else np.zeros(0, np.int32)
        for place in np.unique(places).tolist():
            where = np.flatnonzero(places == place)
            at = int(self._first[part]) + place
            there, order = self._batch(at).column("id").to_numpy(), self._order(at)
            if len(there):
                rows = order[np.minimum(np.searchsorted(there, ids[where], sorter=order), len(there) - 1)]
                found[where] = np.where(there[rows] == ids[where], self._starts[at] + rows, -1)
        return found

    def _by_range(self, numbers: np.ndarray) -> "list[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]":
        """Each range that has some of these passages, which they are, and their rows in it."""
        if not len(numbers):
            return []
        places = np.searchsorted(self._starts, numbers, side="right") - 1
        order = np.argsort(places, kind="stable")
        found = []
        for where in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
            if len(where):
                at = int(places[where[0]])
                found.append((self._batch(at), where, numbers[where] - self._starts[at]))
        return found

    def _batch(self, at: int) -> pa.RecordBatch:
        if at not in self._batches:
            self._batches[at] = self._open(at)
        return self._batches[at]

    def _order(self, at: int) -> np.ndarray:
        if at not in self._orders:
            self._orders[at] = np.argsort(self._batch(at).column("id").to_numpy(), kind="stable").astype(np.int32)
        return self._orders[at]


@dataclass(frozen=True)
class Looked:
    """What is known of some passages of a pool."""

    rows: np.ndarray
    """Rows of the pool, int64 [n], rising."""
    ids: np.ndarray
    """uint64 [n]."""
    same_document: Lookup
    """Rows by the ids of document and group: passages that share one are equivalent, says their source."""
    same_words: Lookup
    """Rows by the id of the normalised text."""
    languages: np.ndarray
    """str [n]."""

    def of(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Values [n] of these rows of the pool, which are all among those looked at."""
        return values[np.searchsorted(self.rows, rows)]


@dataclass(frozen=True)
class Pool:
    """The passages that may be negatives of a part's pairs: 8 bytes each in memory, their texts and vectors in mapped files."""

    passages: Passages
    numbers: np.ndarray
    """Of the passages, int64 [n], rising: row 0 of the pool is passage numbers[0]."""
    parts: tuple[int, ...]
    """That they are of."""
    vectors: Matrix
    """[n, d], L2-normalised; zeros where a vector is none. Nothing reads them where nothing is mined."""

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """Where texts stand, int64; -1 where one is none of the pool."""
        found, ids = np.full(len(texts), -1, np.int64), ids_of(texts)
        for part in self.parts:
            numbers = self.passages.find(part, ids)
            at = np.minimum(np.searchsorted(self.numbers, numbers), max(0, len(self.numbers) - 1))
            here = (found < 0) & (numbers >= 0) & (len(self.numbers) > 0)
            here[here] = self.numbers[at[here]] == numbers[here]
            found[here] = at[here]
        return found

    def texts(self, rows: np.ndarray) -> list[str]:
        """The texts of rows."""
        return self.passages.texts(self.numbers[rows])

    def look(self, rows: np.ndarray) -> Looked:
        """What is known of rows of the pool, in any order; below 0 is none."""
        distinct = np.unique(rows[rows >= 0])
        numbers = self.numbers[distinct]
        keys, owners = self.passages.keys(numbers)
        words = self.passages.column("words", numbers)
        return Looked(
            distinct,
            self.passages.column("id", numbers),
            Lookup(keys, distinct[owners]),
            Lookup(words, distinct),
            self.passages.column("language", numbers),
        )

    def most_alike(self) -> int:
        """The greatest number of rows of one document or group, and that of the same words, added; 24 bytes a passage meanwhile."""
        keys, _ = self.passages.keys(self.numbers)
        words = self.passages.column("words", self.numbers)
        return sum(int(np.unique(each, return_counts=True)[1].max(initial=0)) for each in (keys, words))


def pool_numbers(passages: Passages, homes: Sequence[tuple[int, int]]) -> np.ndarray:
    """The passages of some parts that have one of the tags asked for, each text once; int64, rising.

    Args:
        passages: All.
        homes: Parts, each with the bits of the tags.
    """
    found = []
    for part, bits in homes:
        numbers = passages.of_part(part)
        found.append(numbers[(passages.column("tags", numbers) & np.uint64(bits)) != 0])
    numbers = np.concatenate([np.zeros(0, np.int64), *found])
    if len(homes) > 1:
        _, first = np.unique(passages.column("id", numbers), return_index=True)
        numbers = numbers[np.sort(first)]
    return numbers
