"""Training texts that share a run of words with a held-out passage or an evaluation item, or whose comparable form equals one of its.

A document's passages are its text and the texts of its sections: a usage example or a translation is a side of a pair as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysberta.corpus.normal import content_key
from raysberta.corpus.shingles import shingles

PASSAGE = "passage:"
"""Before the name of a passage that a benchmark searches: no query and no text that is scored, most often a piece of Wikipedia."""
SIDES = frozenset(("usage", "translation"))
"""Sections that become a side of a pair whole: equality counts for them as for the text. A heading's section may be a stock phrase."""


@dataclass(frozen=True)
class Passages:
    """Hashes of a batch of documents, pairs or evaluation items."""

    hashes: np.ndarray
    """uint64: runs of words and comparable forms of whole passages."""
    rows: np.ndarray
    """int64, the row of the batch that each is of."""


@dataclass(frozen=True)
class HeldOut:
    """What held-out documents and evaluation items say; each hash belongs to the one with the smallest name that says it."""

    hashes: np.ndarray
    """uint64, ascending."""
    owners: np.ndarray
    """int64, the place of each one's owner in `names`."""
    names: pa.StringArray
    """doc_ids and names of evaluation items, ascending; after them those of passages of benchmarks, each behind PASSAGE."""


def hashed(texts: Sequence[str], rows: Sequence[int], whole: Sequence[bool], size: int) -> Passages:
    """Runs of `size` words of the texts, and their whole comparable forms where `whole` says so.

    Args:
        texts: The passages.
        rows: The row that each is of.
        whole: Whether equality counts for it.
        size: Words of a run.
    """
    runs = shingles(texts, size)
    places = np.asarray(rows, np.int64)
    keys = np.array([int(content_key(text), 16) for text, counts in zip(texts, whole, strict=True) if counts], np.uint64)
    return Passages(np.r_[runs.hashes, keys], np.r_[places[runs.rows], places[np.asarray(whole, bool)]])


def passages(table: pa.Table, size: int) -> Passages:
    """Hashes of all documents of a table with the columns `text` and `sections`."""
    texts: list[str] = []
    rows: list[int] = []
    whole: list[bool] = []
    sections = table.column("sections").to_pylist()
    for row, text in enumerate(table.column("text").to_pylist()):
        own = [(text, True), *((section["text"], section["heading"] in SIDES) for section in sections[row] or ())]
        texts.extend(each for each, _ in own)
        whole.extend(counts for _, counts in own)
        rows.extend([row] * len(own))
    return hashed(texts, rows, whole, size)


def held_out(parts: Iterable[tuple[Passages, Sequence[str]]]) -> HeldOut:
    """Join batches. What a passage shares with anything else counts as that of the other.

    Args:
        parts: The hashes of a batch and the name of each of its rows.
    """
    joined = list(parts)
    distinct = {name for _, own in joined for name in own}
    names = np.array(sorted(distinct, key=lambda name: (name.startswith(PASSAGE), name)), dtype=object)
    place = {name: number for number, name in enumerate(names.tolist())}
    hashes = np.concatenate([np.empty(0, np.uint64), *(part.hashes for part, _ in joined)])
    owners = np.concatenate(
        [np.empty(0, np.int64), *(np.array([place[name] for name in own], np.int64)[part.rows] for part, own in joined)]
    )
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    first = np.r_[True, hashes[1:] != hashes[:-1]] if len(hashes) else np.empty(0, bool)
    return HeldOut(hashes[first], owners[first], pa.array(names, pa.string()))


def matches(found: Passages, known: HeldOut, rows: int) -> Sequence[str | None]:
    """For each row of a batch the name of what it shares something with, the smallest one; None where there is none."""
    result: list[str | None] = [None] * rows
    if not len(known.hashes) or not len(found.hashes):
        return result
    at = np.minimum(np.searchsorted(known.hashes, found.hashes), len(known.hashes) - 1)
    hit = np.flatnonzero(known.hashes[at] == found.hashes)
    owners = np.full(rows, len(known.names), np.int64)
    np.minimum.at(owners, found.rows[hit], known.owners[at[hit]])
    for row in np.flatnonzero(owners < len(known.names)).tolist():
        result[row] = known.names[int(owners[row])].as_py()
    return result
