"""Stable ids: 64 bits of a text's hash. Ranges of them divide the work, so what is done together owes nothing to files or workers.

Two of a hundred million texts have one id with a probability of 3 in 10,000; the second would then be taken for the first.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

NOT_WORD = re.compile(r"[\W_]+")


def id_of(text: str) -> int:
    """The id of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def ids_of(texts: Sequence[str]) -> np.ndarray:
    """The ids of texts, uint64 [len(texts)]."""
    return np.fromiter(map(id_of, texts), np.uint64, len(texts))


def words_of(texts: Sequence[str]) -> np.ndarray:
    """The ids of texts as `normalise` leaves them, uint64 [len(texts)]."""
    return np.fromiter((id_of(normalise(text)) for text in texts), np.uint64, len(texts))


def normalise(text: str) -> str:
    """What makes two texts the same for mining: case, blanks, punctuation and the dots of ё aside; a text of signs alone stays itself."""
    folded = text.casefold().replace("ё", "е")
    return NOT_WORD.sub(" ", folded).strip() or " ".join(folded.split())


def range_of(ids: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Which of so many equal ranges each id (uint64 [n]) lies in, int32 [n]; there may be another number of them for each (int64 [n])."""
    return (((ids >> np.uint64(32)) * ranges.astype(np.uint64)) >> np.uint64(32)).astype(np.int32)


def draw(seed: int, numbers: np.ndarray) -> np.ndarray:
    """Random uint64 numbers, one for each number (uint64), that depend on it and the seed alone (SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed & (2**64 - 1))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return mixed ^ (mixed >> np.uint64(31))


class Lookup:
    """Rows by key: 16 bytes an entry."""

    def __init__(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Note row after row under its key; a key may have many.

        Args:
            keys: uint64 [n].
            rows: int64 [n].
        """
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], rows[order]

    def __getitem__(self, key: int) -> np.ndarray:
        """The rows of a key, int64, each as often as it was noted; none for an unknown key."""
        wanted = np.uint64(key)
        return self._rows[np.searchsorted(self._keys, wanted) : np.searchsorted(self._keys, wanted, side="right")]
