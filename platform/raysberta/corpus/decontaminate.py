"""Training documents that share a run of words with a held-out document, or whose comparable form equals one of its.

A document's passages are its text and the texts of its sections: a usage example or a translation is a side of a pair as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysberta.corpus.normal import content_key
from raysberta.corpus.shingles import shingles

SIDES = frozenset(("usage", "translation"))
"""Sections that become a side of a pair whole: equality counts for them as for the text. A heading's section may be a stock phrase."""


@dataclass(frozen=True)
class HeldOut:
    """What held-out documents say; each hash belongs to the smallest doc_id that says it."""

    hashes: np.ndarray
    """uint64, ascending: runs of words, and comparable forms of whole passages."""
    owners: np.ndarray
    """doc_id of each, as an array of strings."""


@dataclass(frozen=True)
class Passages:
    """Hashes of a batch of documents."""

    hashes: np.ndarray
    """uint64: runs of words and whole passages."""
    rows: np.ndarray
    """int64, the document of each."""


def passages(table: pa.Table, size: int) -> Passages:
    """Hashes of all documents of a table with the columns `text` and `sections`.

    Args:
        table: The documents.
        size: Words of a run.
    """
    texts: list[str] = []
    rows: list[int] = []
    wholes: list[int] = []
    whole_rows: list[int] = []
    sections = table.column("sections").to_pylist()
    for row, text in enumerate(table.column("text").to_pylist()):
        texts.append(text)
        rows.append(row)
        wholes.append(int(content_key(text), 16))
        whole_rows.append(row)
        for section in sections[row] or ():
            texts.append(section["text"])
            rows.append(row)
            if section["heading"] in SIDES:
                wholes.append(int(content_key(section["text"]), 16))
                whole_rows.append(row)
    runs = shingles(texts, size)
    owners = np.array(rows, dtype=np.int64)[runs.rows]
    return Passages(np.r_[runs.hashes, np.array(wholes, np.uint64)], np.r_[owners, np.array(whole_rows, np.int64)])


def held_out(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> HeldOut:
    """Join the hashes of many batches.

    Args:
        parts: Pairs of hashes and the doc_id of each.
    """
    joined = list(parts)
    hashes = np.concatenate([part[0] for part in joined]) if joined else np.empty(0, np.uint64)
    owners = np.concatenate([part[1] for part in joined]) if joined else np.empty(0, "U16")
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    first = np.r_[True, hashes[1:] != hashes[:-1]] if len(hashes) else np.empty(0, bool)
    return HeldOut(hashes[first], owners[first])


def matches(found: Passages, known: HeldOut, documents: int) -> Sequence[str | None]:
    """For each document of a batch the held-out doc_id that it shares something with, the smallest one; None where there is none."""
    result: list[str | None] = [None] * documents
    if not len(known.hashes) or not len(found.hashes):
        return result
    at = np.minimum(np.searchsorted(known.hashes, found.hashes), len(known.hashes) - 1)
    hit = np.flatnonzero(known.hashes[at] == found.hashes)
    for row, owner in zip(found.rows[hit].tolist(), known.owners[at[hit]].tolist(), strict=True):
        before = result[row]
        result[row] = owner if before is None else min(before, owner)
    return result
