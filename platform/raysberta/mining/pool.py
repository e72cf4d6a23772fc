"""The candidates of one source: distinct texts, what they belong to, where their vectors are."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from raysberta.mining.choose import normalise
from raysberta.retrieval.vectors import Matrix


class Lookup:
    """Rows by key, with keys kept as 64-bit hashes: 16 bytes an entry, where a dictionary of strings takes hundreds."""

    def __init__(self, keys: Iterable[str], rows: np.ndarray) -> None:
        """Note row after row under its key; a key may have many.

        Args:
            keys: As many as rows.
            rows: int64 [n].
        """
        hashed = np.fromiter((_hash(key) for key in keys), np.uint64, len(rows))
        order = np.argsort(hashed, kind="stable")
        self._keys, self._rows = hashed[order], rows[order]

    def __getitem__(self, key: str) -> np.ndarray:
        """The rows of a key, int64, each as often as it was noted; none for an unknown key."""
        wanted = np.uint64(_hash(key))
        return self._rows[np.searchsorted(self._keys, wanted) : np.searchsorted(self._keys, wanted, side="right")]

    def most(self) -> int:
        """The greatest number of rows of a key."""
        return int(np.unique(self._keys, return_counts=True)[1].max()) if len(self._keys) else 0


@dataclass(frozen=True)
class Texts:
    """Distinct candidate texts with what each belongs to."""

    texts: Sequence[str]
    same_document: Lookup
    """Rows by doc_id and by group: texts that share one are equivalent, says their source."""
    same_words: Lookup
    """Rows by normalised text."""

    def row(self, text: str) -> int:
        """Where a text stands; -1 where it is none of the pool."""
        for row in self.same_words[normalise(text)]:
            if self.texts[row] == text:
                return int(row)
        return -1


@dataclass(frozen=True)
class Pool:
    """Candidates with their vectors."""

    candidates: Texts
    vectors: Matrix
    """[n, d], L2-normalised."""
    bad: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Rows whose vector is none; they are no negatives."""
    languages: np.ndarray | None = None
    """Of each text, where the settings ask for one."""


def make_texts(rows: pa.Table) -> Texts:
    """The distinct positives of rows of PAIR, longest first as they are embedded, each with the doc_ids and groups of all its rows."""
    positives = rows["positive"].to_pylist()
    texts = sorted(set(positives), key=lambda text: (-len(text), text))
    at = {text: row for row, text in enumerate(texts)}
    where = np.fromiter((at[text] for text in positives), np.int64, len(positives))
    keys = [*rows["doc_id"].to_pylist(), *rows["group"].to_pylist()]
    return Texts(texts, Lookup(keys, np.concatenate([where, where])), Lookup(map(normalise, texts), np.arange(len(texts))))


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
