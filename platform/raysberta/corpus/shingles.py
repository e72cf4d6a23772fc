"""Word n-grams of many texts as 64-bit hashes in one array: the ground of near-duplicate search and decontamination."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from raysberta.corpus.normal import words

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Shingles:
    """N-grams of all texts, text by text."""

    hashes: np.ndarray
    """uint64 [n-grams]."""
    rows: np.ndarray
    """int64 [n-grams], the text of each, ascending."""


class _Words(dict[str, int]):
    def __missing__(self, word: str) -> int:
        value = self[word] = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return value


def shingles(texts: Sequence[str], size: int) -> Shingles:
    """All runs of `size` words of the comparable forms; a text with fewer words has none."""
    known = _Words()
    hashed: list[int] = []
    counts = np.zeros(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        own = words(text)
        counts[row] = len(own)
        hashed.extend([known[word] for word in own])
    rows = np.repeat(np.arange(len(texts), dtype=np.int64), counts)
    flat = np.array(hashed, dtype=np.uint64)
    windows = len(flat) - size + 1
    if windows <= 0:
        return Shingles(np.empty(0, np.uint64), np.empty(0, np.int64))
    rolled = np.zeros(windows, dtype=np.uint64)
    for offset in range(size):
        rolled = rolled * MULTIPLIER + flat[offset : offset + windows]
    within = rows[:windows] == rows[size - 1 :]
    return Shingles(mix(rolled[within]), rows[:windows][within])


def mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit over all 64 (the finaliser of SplitMix64); uint64 to uint64, one to one."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
