"""Exact search by inner product: FAISS flat, in slices of queries, so memory is bounded whatever their number."""

import faiss
import numpy as np

from raysberta.errors import InputError

SLICE = 4096
"""Queries searched at once: bounds the score matrix that FAISS holds."""


class Index:
    """An exact index over L2-normalised vectors."""

    def __init__(self, vectors: np.ndarray, threads: int | None = None) -> None:
        """Index `vectors`, float32 [n, d].

        Raises:
            InputError: a vector is zero or not finite; the message names the row.
        """
        if threads is not None:
            faiss.omp_set_num_threads(threads)
        check_vectors(vectors, "passage")
        self.size = len(vectors)
        self._flat = faiss.IndexFlatIP(vectors.shape[1])
        self._flat.add(np.ascontiguousarray(vectors, np.float32))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [q, min(k, n)] falling, and rows int64 of the same shape; equal scores stand in the order of the rows."""
        check_vectors(queries, "query")
        k = min(k, self.size)
        if k == 0 or len(queries) == 0:
            return np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64)
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), SLICE):
            part = slice(start, start + SLICE)
            scores[part], rows[part] = self._flat.search(np.ascontiguousarray(queries[part], np.float32), k)
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def check_vectors(vectors: np.ndarray, what: str) -> None:
    """Raise InputError, naming the row, where a vector is zero or not finite."""
    norms = np.linalg.norm(vectors, axis=1) if len(vectors) else np.zeros(0)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(bad):
        raise InputError(f"{what} vector {bad[0]}: zero or not finite; right would be a normalised embedding of a text that is not empty")
