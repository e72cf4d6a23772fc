"""Exact nearest neighbours by inner product: FAISS does the products and the top-k, this file makes the answer reproducible.

Memory is the two matrices, the result, and FAISS's own blocks (some tens of MB): the full matrix of scores never exists.
"""

import logging
import time
from collections.abc import Callable

import faiss
import numpy as np

from raysberta.errors import InputError

log = logging.getLogger(__name__)

SLICE_ROWS = 16384
PROGRESS_SECONDS = 10.0

Find = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def search(
    queries: np.ndarray, documents: np.ndarray, k: int, threads: int = 1, slice_rows: int = SLICE_ROWS
) -> tuple[np.ndarray, np.ndarray]:
    """The k documents with the greatest inner product with each query, best first; equal scores in order of the index.

    Args:
        queries: float [q, d], normalised where cosine is meant.
        documents: float [n, d].
        k: How many; with fewer documents the result has n columns.
        threads: Of FAISS. The result does not depend on it beyond rounding.
        slice_rows: Queries searched at once.

    Returns:
        Scores float32 [q, min(k, n)] and document rows int64 [q, min(k, n)].

    Raises:
        InputError: a vector is zero or not finite, dimensions differ, or there is no document.
    """
    queries, documents = _checked(queries, "query"), _checked(documents, "document")
    if not len(documents):
        raise InputError("search: no documents; right would be at least one vector")
    if queries.shape[1] != documents.shape[1]:
        raise InputError(f"search: queries have {queries.shape[1]} dimensions, documents {documents.shape[1]}; one encoder must embed both")
    columns = min(k, len(documents))
    index = faiss.IndexFlatIP(documents.shape[1])
    index.add(documents)
    scores = np.empty((len(queries), columns), np.float32)
    ids = np.empty((len(queries), columns), np.int64)
    threads_before, shown = faiss.omp_get_max_threads(), time.monotonic()
    faiss.omp_set_num_threads(threads)
    try:
        for start in range(0, len(queries), slice_rows):
            rows = slice(start, start + slice_rows)
            scores[rows], ids[rows] = _ordered(index.search, queries[rows], columns, len(documents))
            if time.monotonic() - shown > PROGRESS_SECONDS:
                log.info("searched %d of %d queries", min(start + slice_rows, len(queries)), len(queries))
                shown = time.monotonic()
    finally:
        faiss.omp_set_num_threads(threads_before)
    return scores, ids


def _ordered(find: Find, queries: np.ndarray, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Top k with ties in order of the index, also where the tie crosses the k-th place.

    FAISS keeps any of equal scores. One column more shows where that matters; only those rows are searched again, with twice as
    many columns until the tie ends.
    """
    columns = min(k + 1, n)
    scores, ids = find(queries, columns)
    best_scores, best_ids = _sorted(scores, ids, k)
    rows = np.flatnonzero(scores[:, k - 1] == scores[:, k]) if columns > k else np.array([], np.int64)
    while len(rows):
        columns = min(2 * columns, n)
        scores, ids = find(queries[rows], columns)
        ended = np.full(len(rows), True) if columns == n else scores[:, -1] < scores[:, k - 1]
        best_scores[rows[ended]], best_ids[rows[ended]] = _sorted(scores[ended], ids[ended], k)
        rows = rows[~ended]
    return best_scores, best_ids


def _sorted(scores: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _checked(vectors: np.ndarray, what: str) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.einsum("nd,nd->n", vectors, vectors)
    for row in np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[:1]:
        kind = "zero" if lengths[row] == 0 else "not finite"
        raise InputError(f"search: the vector of {what} {row} is {kind}; right would be a finite vector that is not zero")
    return vectors
