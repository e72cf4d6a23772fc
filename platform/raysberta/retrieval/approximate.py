"""Approximate nearest neighbours: IVF and HNSW of FAISS over float16 codes, their effort raised until a stated recall is measured.

Recall at k is the share of the true k best that a search returns, measured on queries of the job itself against the exact search.
"""

from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np

from raysberta.errors import InputError
from raysberta.retrieval.search import Find, Slices, exact, faiss_threads, part
from raysberta.retrieval.vectors import Matrix, steps

Method = Literal["exact", "ivf", "hnsw"]

TRAINING_ROWS = 1 << 16
"""For the k-means of IVF; a number of its own, so that no bound of memory changes what is found."""
ROWS_PER_LIST = 39
"""At least, says FAISS's k-means."""
LINKS = 32
"""HNSW's M: 2M links of 4 bytes a row on the lowest level."""
EF_CONSTRUCTION = 128
EF_LIMIT = 8192
LINK_BYTES = 2 * LINKS * 4 + 16
SEED = 1234
FLOAT16: Any = faiss.ScalarQuantizer.QT_fp16


@dataclass(frozen=True)
class Tuned:
    """How an index searches, and what that was measured to find."""

    method: Method
    parameters: dict[str, int]
    """nlist and nprobe, or links, ef_construction and ef_search."""
    recall: float
    """At the k asked for, on the sample."""
    queries: int
    """Of the sample."""


def require_fit(method: Method, rows: int, dimension: int, memory: int) -> int:
    """What an index of so many rows holds, in MiB: float16 codes, and numbers or links.

    Raises:
        InputError: that is more than `memory`.
    """
    needed = int(rows * (2 * dimension + (LINK_BYTES if method == "hnsw" else 8)) / 2**20) + 1
    if needed > memory:
        raise InputError(
            f"search: {method} needs {needed} MiB for {rows} passages on one worker and may use {memory}; "
            f"right would be {-(-needed // memory)} times as many workers, more memory, or method exact"
        )
    return needed


def approximate(
    method: Method, documents: Matrix, first: int, last: int, k: int, target: float, sample: np.ndarray, memory: int, threads: int = 1
) -> tuple[Find, Tuned]:
    """Index the documents from `first` to `last` and raise the effort of a search until recall at k reaches the target.

    Args:
        method: "ivf" or "hnsw".
        documents: [n, d].
        first: First row of the shard.
        last: Row after the last one.
        k: Results a search will be asked for.
        target: Least recall, 0 to 1. IVF always gets there: in the end it looks everywhere. HNSW stops at the best it can.
        sample: Queries to measure on, float32 [s, d].
        memory: MiB that the index and one slice may take.
        threads: Of FAISS. HNSW is built with one, because its graph depends on the order of insertion.

    Raises:
        InputError: the index would not fit.
    """
    rows, dimension = last - first, documents.shape[1]
    needed = require_fit(method, rows, dimension, memory)
    slices = Slices.within(max(memory - needed, 256), dimension, k)
    with faiss_threads(threads):
        index, fixed, effort, value, limit = (_ivf if method == "ivf" else _hnsw)(documents, first, last, k, slices)
    effort_of: Any = index if method == "ivf" else index.hnsw
    truth = exact(documents, first, last, slices, threads)(sample, k)[1]

    def find(queries: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        with faiss_threads(threads):
            scores, found = index.search(queries, min(wanted, rows))
        found[found >= 0] += first
        return scores, found

    while True:
        setattr(effort_of, effort, value)
        measured = recall(find(sample, k)[1], truth)
        if measured >= target or value >= limit:
            return find, Tuned(method, {**fixed, effort: value}, round(measured, 5), len(sample))
        value = min(2 * value, limit)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of `truth` [q, k] that stands in the same row of `found` [q, any]; 1 where there is nothing to find."""
    if not truth.size:
        return 1.0
    return sum(len(np.intersect1d(got, true)) for got, true in zip(found, truth, strict=True)) / truth.size


def sample_of(queries: Matrix, count: int = 256) -> np.ndarray:
    """So many queries, evenly spread, float32."""
    rows = np.unique(np.linspace(0, len(queries) - 1, min(count, len(queries))).astype(np.int64))
    return np.ascontiguousarray(queries[rows], np.float32)


def _ivf(documents: Matrix, first: int, last: int, k: int, slices: Slices) -> tuple[Any, dict[str, int], str, int, int]:
    """Inverted lists, some 4 sqrt(n) of them (FAISS's own advice), k-means with a fixed seed on an even sample."""
    rows, dimension = last - first, documents.shape[1]
    lists = max(1, min(int(4 * rows**0.5), min(rows, TRAINING_ROWS) // ROWS_PER_LIST))
    quantiser: Any = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(quantiser, dimension, lists, FLOAT16, faiss.METRIC_INNER_PRODUCT, False)
    index.own_fields = True
    quantiser.this.disown()
    index.cp.seed = SEED
    trained = np.linspace(first, last - 1, min(rows, TRAINING_ROWS)).astype(np.int64)
    index.train(np.ascontiguousarray(documents[np.unique(trained)], np.float32))
    for start, stop in steps(last, slices.documents, first):
        index.add(part(documents, start, stop))
    return index, {"nlist": lists}, "nprobe", max(1, lists // 64), lists


def _hnsw(documents: Matrix, first: int, last: int, k: int, slices: Slices) -> tuple[Any, dict[str, int], str, int, int]:
    """A graph. One thread builds it: with several the order of insertion, and so the graph, would change from run to run."""
    index: Any = faiss.IndexHNSWSQ(documents.shape[1], FLOAT16, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    index.train(part(documents, first, min(last, first + 1)))  # float16 has nothing to learn
    with faiss_threads(1):
        for start, stop in steps(last, slices.documents, first):
            index.add(part(documents, start, stop))
    return index, {"links": LINKS, "efConstruction": EF_CONSTRUCTION}, "efSearch", k, min(EF_LIMIT, max(k, last - first))
