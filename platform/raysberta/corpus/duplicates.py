"""Exact and near-duplicates: MinHash over 5-word shingles, 14 bands of 8 hashes, clusters by union-find, the longest text stays.

Two texts of Jaccard similarity s meet in a band with probability 1 - (1 - s^8)^14: 0.05 at 0.5, 0.56 at 0.7, 0.92 at 0.8, 0.9996 at
0.9. Which text of a cluster stays depends on the texts alone: the longest, among equals the smallest doc_id.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from raysberta.corpus.shingles import mix, shingles

WORDS = 5
BANDS = 14
HASHES = 8
PERMUTATIONS = BANDS * HASHES

_seeds = mix(np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
FACTORS = _seeds[:PERMUTATIONS] | np.uint64(1)
OFFSETS = _seeds[PERMUTATIONS:]


def minhashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Signatures, uint32 [texts, PERMUTATIONS], and which texts have one, bool [texts]: those of at least WORDS words."""
    found = shingles(texts, WORDS)
    has = np.zeros(len(texts), dtype=bool)
    signatures = np.zeros((len(texts), PERMUTATIONS), dtype=np.uint32)
    if not len(found.rows):
        return signatures, has
    starts = np.flatnonzero(np.r_[True, found.rows[1:] != found.rows[:-1]])
    owners = found.rows[starts]
    has[owners] = True
    _least(found.hashes, np.r_[starts, len(found.rows)], owners, FACTORS, OFFSETS, signatures)
    return signatures, has


@njit(cache=True, nogil=True)
def _least(
    hashes: np.ndarray, starts: np.ndarray, owners: np.ndarray, factors: np.ndarray, offsets: np.ndarray, signatures: np.ndarray
) -> None:
    """Of each text's hashes the least under each permutation: the upper half of factor * hash + offset."""
    for text in range(len(owners)):
        least = np.full(len(factors), 0xFFFFFFFF, np.uint32)
        for at in range(starts[text], starts[text + 1]):
            value = hashes[at]
            for index in range(len(factors)):
                permuted = np.uint32((value * factors[index] + offsets[index]) >> np.uint64(32))
                least[index] = min(least[index], permuted)
        signatures[owners[text]] = least


def bands(signatures: np.ndarray) -> np.ndarray:
    """One hash a band: uint32 [texts, PERMUTATIONS] to uint64 [texts, BANDS]. Equal hashes of different bands mean nothing."""
    grouped = signatures.astype(np.uint64).reshape(len(signatures), BANDS, HASHES)
    rolled = np.zeros((len(signatures), BANDS), dtype=np.uint64)
    for index in range(HASHES):
        rolled = mix(rolled + grouped[:, :, index] + np.uint64(1))
    return rolled


def preference(lengths: np.ndarray, doc_ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rank of each text as the one to stay, int64, 0 first: longest, then smallest doc_id, then first read."""
    order = np.lexsort((rows, doc_ids, -lengths))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def exact(keys: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each text the index of the one that stays of all with its key, int64; its own where it stays."""
    _, groups = np.unique(keys, return_inverse=True)
    return best_of(groups.astype(np.int64), ranks)


def near(band_hashes: np.ndarray, taking_part: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each text the index of the one that stays of its cluster, int64; its own where it stays.

    Args:
        band_hashes: uint64 [texts, BANDS].
        taking_part: bool [texts]; the others are clusters of their own.
        ranks: As `preference` gives them.
    """
    members = np.flatnonzero(taking_part)
    pairs = [meetings(band_hashes[members, band], members) for band in range(BANDS)]
    return clusters(np.concatenate(pairs), ranks)


def meetings(hashes: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Pairs of texts with the same hash, [pairs, 2]: enough of them to connect all that share it.

    Args:
        hashes: uint64, of one band, or of a range of its values.
        names: Integers, the text of each.
    """
    order = np.lexsort((names, hashes))
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    return np.stack([names[order[same]], names[order[same + 1]]], axis=1)


def clusters(pairs: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each text the index of the one that stays of its connected component, int64, whatever the order of the pairs.

    Args:
        pairs: int64 [pairs, 2].
        ranks: As `preference` gives them.
    """
    return best_of(_components(pairs, len(ranks)), ranks)


def forest(pairs: np.ndarray) -> np.ndarray:
    """As few pairs that connect the same: each text of a component but the least one, with that one.

    Args:
        pairs: Integers [pairs, 2].
    """
    names, places = np.unique(pairs, return_inverse=True)
    least = _components(places.reshape(-1, 2).astype(np.int64), len(names))
    joined = np.flatnonzero(least != np.arange(len(names)))
    return np.stack([names[joined], names[least[joined]]], axis=1)


@njit(cache=True, nogil=True)
def _components(pairs: np.ndarray, count: int) -> np.ndarray:
    """The least index of each text's component, int64: union-find with path halving."""
    parents = np.arange(count)
    for pair in range(len(pairs)):
        left, right = pairs[pair, 0], pairs[pair, 1]
        while parents[left] != left:
            parents[left] = parents[parents[left]]
            left = parents[left]
        while parents[right] != right:
            parents[right] = parents[parents[right]]
            right = parents[right]
        if left < right:
            parents[right] = left
        else:
            parents[left] = right
    for index in range(count):
        parents[index] = parents[parents[index]]
    return parents


def best_of(groups: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each element the index of the best-ranked one of its group."""
    order = np.lexsort((ranks, groups))
    firsts = np.flatnonzero(np.r_[True, groups[order][1:] != groups[order][:-1]]) if len(order) else np.empty(0, np.int64)
    best = np.empty(len(order), dtype=np.int64)
    best[order] = np.repeat(order[firsts], np.diff(np.r_[firsts, len(order)]))
    return best
