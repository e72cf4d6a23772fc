"""Exact nearest neighbours by inner product in bounded memory: slices of the documents, a running top-k, ties settled.

FAISS does the products and the top-k on processors; on a GPU torch does both, slice by slice. The full matrix of scores never exists,
and of vectors on storage no more than one slice of queries and one of documents is in memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import faiss
import numpy as np
import torch

from raysberta.errors import InputError
from raysberta.retrieval.vectors import BLOCK_TEXTS, Matrix, require, steps

FAISS_MIB = 80
"""What FAISS and the merging of slices need beside the slices: blocks of 4096 queries by 1024 documents, results in the making."""
GREATEST_SLICE = 1 << 18
NEAR = 1e-6
"""Scores of unit vectors that differ by less are compared again in float64; rounding of a product in float32 is some 1e-7."""
SETTLED_AT_ONCE = 8192
TORCH_SCORES = 1 << 26
"""Scores held at once on a GPU: 256 MiB."""

Find = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Queries float32 [q, d] and k to scores float32 [q, k], falling, and document rows int64 [q, k]."""


@dataclass(frozen=True)
class Slices:
    """How many rows are in memory at once."""

    queries: int = 16384
    documents: int = 65536

    @classmethod
    def within(cls, memory_mib: int, dimension: int, k: int) -> "Slices":
        """The slices that keep a search within so much memory beside the program itself.

        A query costs its vector, its k results, and these twice more while slices are merged and put in order; a document costs its vector.
        Queries get at most half, documents what is left: the fewer slices of documents, the less there is to merge.

        Raises:
            InputError: it cannot be done with less than a block of each.
        """
        left = (memory_mib - FAISS_MIB) * 2**20
        query, document = 4 * dimension + 3 * 12 * (k + 1), 4 * dimension
        queries = min(left // 2 // query // 256 * 256, cls.queries)
        documents = (left - queries * query) // document // BLOCK_TEXTS * BLOCK_TEXTS - BLOCK_TEXTS  # a block more while one is read
        if documents < BLOCK_TEXTS or queries < 256:
            least = FAISS_MIB + 2 * max(3 * BLOCK_TEXTS * document, 256 * query) // 2**20 + 1
            raise InputError(f"search: {memory_mib} MiB are too few for {dimension} dimensions and {k} results; right would be {least}")
        return cls(queries, min(documents, GREATEST_SLICE))


def search(
    queries: Matrix, documents: Matrix, k: int, threads: int = 1, slices: Slices = Slices(), device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The k documents with the greatest inner product with each query, best first; equal scores in order of the index.

    Args:
        queries: [q, d], normalised where cosine is meant.
        documents: [n, d].
        k: How many; with fewer documents the result has n columns.
        threads: Of FAISS. The ranking does not depend on it, the scores only in their last bits.
        slices: Rows in memory at once. The ranking does not depend on them.
        device: "cpu" for FAISS; any other is a torch device, searched by sliced top-k in fp32.

    Returns:
        Scores float32 [q, min(k, n)] and document rows int64 [q, min(k, n)].

    Raises:
        InputError: a vector is zero or not finite, dimensions differ, or there is no document.
    """
    require(queries, "query")
    require(documents, "document")
    check(queries, documents)
    columns = min(k, len(documents))
    scores = np.empty((len(queries), columns), np.float32)
    rows = np.empty((len(queries), columns), np.int64)
    find = exact(documents, 0, len(documents), slices, threads, device)
    for start, stop in steps(len(queries), slices.queries):
        scores[start:stop], rows[start:stop] = find(part(queries, start, stop), k)
    return scores, rows


def check(queries: Matrix, documents: Matrix) -> None:
    """Raise where these cannot be searched.

    Raises:
        InputError: dimensions differ, or there is no document.
    """
    if not len(documents):
        raise InputError("search: no documents; right would be at least one vector")
    if queries.shape[1] != documents.shape[1]:
        raise InputError(f"search: queries have {queries.shape[1]} dimensions, documents {documents.shape[1]}; one encoder must embed both")


def exact(documents: Matrix, first: int, last: int, slices: Slices, threads: int = 1, device: str = "cpu") -> Find:
    """A search of the documents from `first` to `last`, reading one slice of them after the other. Ties stand in order of the index."""
    sliced = _sliced_faiss if device == "cpu" else _sliced_torch

    def once(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return sliced(queries, documents, first, last, k, slices.documents, device)

    def find(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        with faiss_threads(threads):
            return _ordered(once, queries, documents, min(k, last - first), last - first)

    return find


def merge(found: list[tuple[np.ndarray, np.ndarray]], queries: np.ndarray, documents: Matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of several shards' results for the same queries, in the order that one search of all documents gives."""
    scores = np.concatenate([part for part, _ in found], axis=1)
    rows = np.concatenate([part for _, part in found], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    return settled(scores, rows, queries, documents, k)


def settled(scores: np.ndarray, rows: np.ndarray, queries: np.ndarray, documents: Matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k columns, neighbours closer than rounding put in the order of their products in float64, equal ones in that of the index.

    So a ranking does not depend on slices, shards, threads or the library that made the products.

    Args:
        scores: float32 [q, c], falling.
        rows: int64 [q, c]; -1 where there is none.
        queries: float32 [q, d].
        documents: [n, d].
        k: Columns to keep.
    """
    near = _near(scores[:, :-1], scores[:, 1:]) & (rows[:, 1:] >= 0)
    entries = np.zeros(scores.shape, bool)
    entries[:, :-1] |= near
    entries[:, 1:] |= near
    which, columns = np.nonzero(entries)
    if not len(which):
        return scores[:, :k].copy(), rows[:, :k].copy()
    exact_scores = scores.astype(np.float64)
    for start, stop in steps(len(which), SETTLED_AT_ONCE):
        at, column = which[start:stop], columns[start:stop]
        vectors = np.asarray(documents[rows[at, column]], np.float64)
        exact_scores[at, column] = np.einsum("nd,nd->n", vectors, queries[at].astype(np.float64))
    touched = np.unique(which)
    order = np.lexsort((rows[touched], -exact_scores[touched]), axis=1)[:, :k]
    best_scores, best_rows = scores[:, :k].copy(), rows[:, :k].copy()
    best_scores[touched] = np.take_along_axis(exact_scores[touched], order, axis=1)
    best_rows[touched] = np.take_along_axis(rows[touched], order, axis=1)
    return best_scores, best_rows


def _near(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """Whether scores are closer than the rounding of float32 products may turn round."""
    return better - worse <= NEAR * np.maximum(1, np.abs(better))


def part(vectors: Matrix, start: int, stop: int) -> np.ndarray:
    """Rows as contiguous float32, without a copy where they are that already."""
    return np.ascontiguousarray(vectors[start:stop], np.float32)


@contextmanager
def faiss_threads(threads: int) -> Iterator[None]:
    """FAISS with so many threads, and with as many as before afterwards."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _sliced_faiss(
    queries: np.ndarray, documents: Matrix, first: int, last: int, k: int, step: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    if last - first <= step:
        scores, rows = faiss.knn(queries, part(documents, first, last), k, metric=faiss.METRIC_INNER_PRODUCT)
        rows += first
        return scores, rows
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    for start, stop in steps(last, step, first):
        scores, rows = faiss.knn(queries, part(documents, start, stop), min(k, stop - start), metric=faiss.METRIC_INNER_PRODUCT)
        rows += start
        best.add_result(scores, rows)
    best.finalize()
    return best.D, best.I


def _sliced_torch(
    queries: np.ndarray, documents: Matrix, first: int, last: int, k: int, step: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """The same on a torch device; fp32 products (TF32 is off by torch's default), so the scores are those of a processor up to rounding."""
    asked = torch.from_numpy(np.ascontiguousarray(queries)).to(device)
    scores = torch.full((len(queries), k), -torch.inf, device=device)
    rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=device)
    for start, stop in steps(last, step, first):
        block = torch.from_numpy(part(documents, start, stop)).to(device)
        for low, high in steps(len(queries), max(1, TORCH_SCORES // (stop - start))):
            fresh, where = torch.topk(asked[low:high] @ block.T, min(k, stop - start), dim=1)
            both = torch.cat([scores[low:high], fresh], dim=1)
            places = torch.cat([rows[low:high], where + start], dim=1)
            scores[low:high], order = torch.topk(both, k, dim=1)
            rows[low:high] = places.gather(1, order)
    return scores.cpu().numpy(), rows.cpu().numpy()


def _ordered(once: Find, queries: np.ndarray, documents: Matrix, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Top k in settled order, also where a tie crosses the k-th place.

    FAISS and torch keep any of equal scores. One column more shows where that matters; only those rows are searched again, with twice as
    many columns until the tie ends.
    """
    columns = min(k + 1, n)
    scores, ids = once(queries, columns)
    best_scores, best_ids = settled(scores, ids, queries, documents, k)
    rows = np.flatnonzero(_near(scores[:, k - 1], scores[:, k])) if columns > k else np.array([], np.int64)
    while len(rows):
        columns = min(2 * columns, n)
        scores, ids = once(queries[rows], columns)
        ended = np.full(len(rows), True) if columns == n else ~_near(scores[:, k - 1], scores[:, -1])
        best_scores[rows[ended]], best_ids[rows[ended]] = settled(scores[ended], ids[ended], queries[rows[ended]], documents, k)
        rows = rows[~ended]
    return best_scores, best_ids
