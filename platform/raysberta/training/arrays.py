"""Arrays that training reads, on storage as a folder of .npy files, by memory map: no process holds what all of them share.

A folder is whole once its index is there, which is written last: what a killed run left without one is made again, the rest is used. Where
storage is remote, the processes of a node read one copy on its disk.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from raysberta.storage.artifacts import write_whole
from raysberta.storage.local_copy import local_folder
from raysberta.storage.location import filesystem
from raysberta.storage.on_disk import Growing, empty, spans

INDEX = "index.json"
PART = "tokens-"
"""How the names of files of token ids begin; in the order of names they are the parts."""
AT_ONCE = 1 << 21
"""Numbers that are sorted at once: sorting takes some 40 bytes of each."""
DRAWN = 64
"""Of these numbers, which say where the next ones begin."""
ROWS_AT_ONCE = 1 << 16
"""Rows that are put into another order at once."""
COMPARED_AT_ONCE = 1 << 24
"""Numbers that are looked through at once for some of them: two bytes of each."""


def write_array(place: str, name: str, values: np.ndarray) -> None:
    """Write one array into a folder that is to become whole."""
    fs, path = filesystem(place)
    fs.create_dir(path, recursive=True)
    with fs.open_output_stream(f"{path}/{name}.npy") as stream:
        np.lib.format.write_array(stream, np.ascontiguousarray(values), allow_pickle=False)


def write_arrays(place: str, arrays: Mapping[str, np.ndarray], told: Mapping[str, Any] | None = None) -> None:
    """Write arrays and then the index, which makes the folder whole.

    Args:
        place: Folder or URI.
        arrays: By name.
        told: What else is to be known of them: JSON values.
    """
    for name, values in arrays.items():
        write_array(place, name, values)
    fs, path = filesystem(place)
    write_whole(fs, f"{path}/{INDEX}", json.dumps({"made": uuid.uuid4().hex, "told": dict(told or {})}).encode())


def is_whole(place: str) -> bool:
    """Whether all of a folder was written."""
    fs, path = filesystem(place)
    return fs.get_file_info(f"{path}/{INDEX}").is_file


def map_arrays(place: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a whole folder, read where they are asked for, and what was told of them.

    Raises:
        FileNotFoundError: the folder is not whole.
    """
    fs, path = filesystem(place)
    with fs.open_input_stream(f"{path}/{INDEX}") as stream:
        index = json.loads(stream.read())
    files = sorted(local_folder(place, f"arrays {index['made']}").glob("*.npy"))
    return {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in files}, index["told"]


@dataclass(frozen=True)
class Ragged:
    """Rows of differing length: `values` [total] and `offsets` int64 [rows + 1]."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, int64 [rows]: of all of them, so nothing for a step."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> "Ragged":
        """Some rows in an order of their own, int [n], on this machine's disk."""
        offsets = empty(len(rows) + 1, np.int64)
        for some in spans(len(rows), ROWS_AT_ONCE):
            offsets[some.start + 1 : some.stop + 1] = self.offsets[rows[some] + 1] - self.offsets[rows[some]]
        np.cumsum(offsets, out=offsets)
        values = empty(int(offsets[-1]), self.values.dtype)
        for some in spans(len(rows), ROWS_AT_ONCE):
            ends = offsets[some.start : some.stop + 1]
            places = np.arange(ends[0], ends[-1]) + np.repeat(self.offsets[rows[some]] - ends[:-1], np.diff(ends))
            values[ends[0] : ends[-1]] = self.values[places]
        return Ragged(values, offsets)


def taken(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """values[places], [n], on this machine's disk."""
    found = empty(len(places), values.dtype)
    for some in spans(len(places), ROWS_AT_ONCE):
        found[some] = values[places[some]]
    return found


def ragged(rows: Iterable[Sequence[int]]) -> Ragged:
    """Lists of numbers as one int32 array."""
    values, lengths = [np.zeros(0, np.int32)], [0]
    for row in rows:
        values.append(np.asarray(row, np.int32))
        lengths.append(len(row))
    return Ragged(np.concatenate(values), np.cumsum(lengths, dtype=np.int64))


def grouped(rows: np.ndarray, values: np.ndarray, count: int) -> Ragged:
    """The distinct values of each row, rising, on this machine's disk. Memory: what sorting AT_ONCE of them takes, or all of one row.

    Args:
        rows: int [n], not negative, below `count`.
        values: int [n], not negative: one of the row's.
        count: Rows of the result; those that do not occur are empty.
    """
    span = int(values.max(initial=0)) + 1
    offsets, found = empty(count + 1, np.int64), Growing(np.int32)
    for places in _parts(rows):
        distinct = np.unique(rows[places].astype(np.int64) * span + values[places])
        each, first = distinct // span, int(distinct[0] // span)
        offsets[first + 1 : int(each[-1]) + 2] = np.bincount(each - first)
        found.add(distinct % span)
    np.cumsum(offsets, out=offsets)
    return Ragged(found.whole(), offsets)


def ranked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct values, rising, where each stands first, int32, and of each value which of them it is, int32 [n].

    What `np.unique` gives, which sorts all of them at once; these lie on this machine's disk. Memory: what sorting AT_ONCE of them takes.

    Args:
        values: int [n], not negative, fewer than 2^31.
    """
    number, count = empty(len(values), np.int32), 0
    distinct, first = Growing(values.dtype), Growing(np.int32)
    for places in _parts(values):
        found, begins, which = np.unique(values[places], return_index=True, return_inverse=True)
        number[places] = count + which
        distinct.add(found)
        first.add(places[begins])
        count += len(found)
    return distinct.whole(), first.whole(), number


def dealt(values: np.ndarray, rows: np.ndarray, count: int) -> Ragged:
    """The values of each row in the order in which they come, on this machine's disk. Memory: what sorting AT_ONCE of them takes, or all of
    one row.

    Args:
        values: [n].
        rows: int [n], not negative, below `count`.
        count: Rows of the result; those that do not occur are empty.
    """
    offsets, found = empty(count + 1, np.int64), Growing(values.dtype)
    for places in _parts(rows):
        of = rows[places]
        first, last = int(of.min()), int(of.max())
        offsets[first + 1 : last + 2] = np.bincount(of - first)
        found.add(values[places[np.argsort(of, kind="stable")]])
    np.cumsum(offsets, out=offsets)
    return Ragged(found.whole(), offsets)


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """Where the least values stand, then where the next ones do, and so on: about AT_ONCE at a time, those of one value together."""
    drawn = np.sort(values[:: max(1, AT_ONCE // DRAWN)])
    ends = np.unique(drawn[DRAWN::DRAWN]).tolist()
    for low, high in pairwise([0, *ends, None]):
        found = [np.zeros(0, np.int64)]
        for some in spans(len(values), COMPARED_AT_ONCE):
            inside = values[some] >= low
            if high is not None:
                inside &= values[some] < high
            found.append(np.flatnonzero(inside) + some.start)
        places = np.concatenate(found)
        if len(places):
            yield places


def parts_of(places: np.ndarray, sizes: Sequence[int], again: int | None = None) -> np.ndarray:
    """Which of some parts that lie end to end each place is in, int32 [n], on this machine's disk.

    Args:
        places: int [n].
        sizes: Of the parts; one may be empty.
        again: After so many parts they are the first one and so on again; never where None.
    """
    ends, found = np.cumsum(sizes), empty(len(places), np.int32)
    for some in spans(len(places), ROWS_AT_ONCE):
        found[some] = np.searchsorted(ends, places[some], "right") % (again or len(sizes))
    return found


def within(values: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Which values are among others, which rise: bool, in the shape of `values`."""
    if not len(rising):
        return np.zeros(values.shape, bool)
    found: np.ndarray = rising[np.minimum(np.searchsorted(rising, values), len(rising) - 1)] == values
    return found


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids, special tokens included: `tokens[text]` is int32 [length]. A text's own ids are all that is read for it."""

    parts: tuple[np.ndarray, ...]
    """int32: ids of many texts, end to end."""
    part: np.ndarray
    """int32 [texts]: in which part a text is."""
    begin: np.ndarray
    """int64 [texts]: where it begins there."""
    lengths: np.ndarray
    """int32 [texts]."""
    highest: int
    """Of all ids."""
    prompts: np.ndarray
    """int32 [texts]: how many of its first tokens are those of what goes before it (models/load.py)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, text: int) -> np.ndarray:
        begin = int(self.begin[text])
        return self.parts[self.part[text]][begin : begin + int(self.lengths[text])]

    @property
    def count(self) -> int:
        """Tokens of all texts."""
        return int(self.lengths.sum(dtype=np.int64))

    def arrays(self) -> dict[str, np.ndarray]:
        """What it is on storage, by names that no other array has."""
        parts = {f"{PART}{number:05d}": values for number, values in enumerate(self.parts)}
        return {
            "text.part": self.part,
            "text.begin": self.begin,
            "text.length": self.lengths,
            "text.highest": np.asarray([self.highest]),
            "text.prompt": self.prompts,
            **parts,
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Tokens":
        """Of what `arrays` gave."""
        parts = tuple(arrays[name] for name in sorted(arrays) if name.startswith(PART))
        highest = int(arrays["text.highest"][0])
        return cls(parts, arrays["text.part"], arrays["text.begin"], arrays["text.length"], highest, arrays["text.prompt"])

    def save(self, place: str) -> None:
        """Write a folder of nothing else."""
        write_arrays(place, self.arrays())

    @classmethod
    def load(cls, place: str) -> "Tokens":
        """Map what `save` wrote."""
        return cls.of(map_arrays(place)[0])


def tokens_of(texts: Iterable[Sequence[int]]) -> Tokens:
    """Token ids of texts that nothing goes before, in memory."""
    whole = ragged(texts)
    none = np.zeros(len(whole), np.int32)
    return Tokens((whole.values,), none, whole.offsets[:-1], whole.lengths.astype(np.int32), int(whole.values.max(initial=0)), none)
