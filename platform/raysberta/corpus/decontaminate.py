"""Training texts that share a run of words with a held-out passage or an evaluation item, or whose comparable form equals one of its.

A document's passages are its text and the texts of its sections: a usage example or a translation is a side of a pair as well.
"""

from collections.abc import Sequence
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
