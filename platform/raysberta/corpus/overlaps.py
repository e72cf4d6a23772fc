"""Who says what a held-out text says, by ranges of hashes: held-out hashes and those of training texts meet where both are few.

A training text has a hundred hashes, of which hardly one is held out. So a table of bits says first which hashes may be, and only those
travel to their range. Bits depend on the upper ones of a hash alone: each range makes its own stretch of the table.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.corpus.decontaminate import PASSAGE
from raysberta.corpus.evaluation_sets import read_set
from raysberta.corpus.locate import File
from raysberta.errors import InputError
from raysberta.storage.runs import Place, Run, read_runs

HELD = pa.schema([("hash", pa.uint64()), ("name", pa.string())])
"""What held-out texts say, each with the name of its text: a doc_id, or that of an evaluation item."""
SAID = pa.schema([("hash", pa.uint64()), ("id", pa.uint64())])
"""What other texts say that may be held out."""
FOUND = pa.schema([("id", pa.uint64()), ("name", pa.string())])
"""A text that repeats a held-out one."""
BITS_A_HASH = 16
MOST_BITS = 1 << 31
"""A quarter of a gigabyte, in the object store of each node. Where more hashes are held out, more others pass."""


def width_of(held: int, buckets: int) -> int:
    """Upper bits of a hash that the table looks at: 16 places a hash, between a byte a bucket and MOST_BITS."""
    return min(MOST_BITS, max(8 * buckets, BITS_A_HASH * held)).bit_length() - 1


def bits(hashes: np.ndarray, first: int, last: int, buckets: int, width: int) -> np.ndarray:
    """The stretch of the table for a range of buckets, uint8, eight places each.

    Args:
        hashes: uint64, the held-out ones of the range.
        first: Its first bucket.
        last: The bucket behind it.
        buckets: Of all, a power of two.
        width: As `width_of` gives it.
    """
    places = (1 << width) // buckets
    table = np.zeros((last - first) * places, dtype=bool)
    table[(hashes >> np.uint64(64 - width)).astype(np.int64) - first * places] = True
    return np.packbits(table)


def may_be_held(hashes: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Which hashes have their place in the table set, bool: all held-out ones, and few others."""
    width = len(table).bit_length() + 2
    places = (hashes >> np.uint64(64 - width)).astype(np.int64)
    return (table[places >> 3] >> (7 - (places & 7)).astype(np.uint8)) & 1 == 1


def meet(held: pa.Table, said: pa.Table) -> pa.Table:
    """For each id the smallest name that shares a hash with it, those of passages of benchmarks last; schema FOUND, by id.

    Args:
        held: Schema HELD, all of a range of hashes, in any order.
        said: Schema SAID, of that range.
    """
    asked = np.unique(said["hash"].to_numpy())
    held = held.filter(pa.array(np.isin(held["hash"].to_numpy(), asked)))
    names = sorted(set(held["name"].to_pylist()), key=lambda name: (name.startswith(PASSAGE), name))
    place = {name: number for number, name in enumerate(names)}
    owners = np.array([place[name] for name in held["name"].to_pylist()], dtype=np.int64)
    least = np.full(len(asked), len(names), dtype=np.int64)
    np.minimum.at(least, np.searchsorted(asked, held["hash"].to_numpy()), owners)
    ids, owner = said["id"].to_numpy(), least[np.searchsorted(asked, said["hash"].to_numpy())]
    return smallest(pa.table([ids[owner < len(names)], pa.array(names, pa.string()).take(pa.array(owner[owner < len(names)]))], FOUND))


def smallest(found: pa.Table) -> pa.Table:
    """Each id once, with the smallest of its names, by id: what several ranges found, joined."""
    ordered = found.append_column("passage", pc.starts_with(found["name"], PASSAGE))
    ordered = ordered.sort_by([(column, "ascending") for column in ("id", "passage", "name")])
    ids = ordered["id"].to_numpy()
    return ordered.select(FOUND.names).filter(pa.array(np.r_[True, ids[1:] != ids[:-1]] if len(ids) else np.empty(0, bool)))


def set_runs(file: File, ngram: int, place: Place) -> list[Run] | str:
    """What a file of evaluation items says, schema HELD by hash; or what is wrong with it, in one line."""
    writer = place.writer("held")
    try:
        for said, names in read_set(file, ngram):
            writer.add(pa.table([said.hashes, pa.array(names, pa.string()).take(pa.array(said.rows))], HELD), said.hashes)
    except InputError as error:
        return str(error)
    return writer.done()


def bits_of_range(runs: Sequence[Sequence[Run]], first: int, last: int, buckets: int, width: int) -> np.ndarray:
    """The stretch of the table for a range of hashes; `runs`: HELD."""
    return bits(read_runs(runs[0], first, last, HELD)["hash"].to_numpy(), first, last, buckets, width)


def meet_in_range(runs: Sequence[Sequence[Run]], first: int, last: int, place: Place) -> list[Run]:
    """Who repeats whom within a range of hashes, schema FOUND by id; `runs`: HELD and SAID."""
    found = meet(read_runs(runs[0], first, last, HELD), read_runs(runs[1], first, last, SAID))
    writer = place.writer("found")
    writer.add(found, found["id"].to_numpy())
    return writer.done()
