"""Approximate nearest neighbours: IVF and HNSW of FAISS over float16 codes, their effort raised until a stated recall is measured.

Recall at k is the share of the true k best that a search returns, measured on queries of the job itself against the exact search. An index
has a fixed number of passages, so it takes the same memory and finds the same however many there are, and whoever searches.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np

from raysberta.errors import InputError
from raysberta.retrieval.search import Find, Slices, exact, faiss_threads, merge, part
from raysberta.retrieval.tuned import Method, Tuned
from raysberta.retrieval.vectors import Matrix, steps

INDEX_ROWS = 1 << 18
"""Passages of an index: 200 MiB at 384 dimensions, 530 at 1,024."""
TRAINING_ROWS = 1 << 16
"""For the k-means of IVF; a number of its own, so that no bound of memory changes what is found."""
ROWS_PER_LIST = 39
"""At least, says FAISS's k-means."""
LINKS = 32
"""HNSW's M: 2M links of 4 bytes a row on the lowest level."""
EF_CONSTRUCTION = 128
EF_LIMIT = 8192
LEAST_BESIDE = 256
"""MiB beside an index, for a slice."""
GPU_MOST = 2048
"""Results, and lists looked into, of FAISS on a GPU."""
LINK_BYTES = 2 * LINKS * 4 + 16
SEED = 1234
FLOAT16: Any = faiss.ScalarQuantizer.QT_fp16


Move = Callable[[Any], Any]
"""A FAISS index on a processor to the same on a GPU."""


def require_fit(method: Method, rows: int, dimension: int, memory: int) -> int:
    """What an index of so many rows holds, in MiB: float16 codes, and numbers or links.

    Raises:
        InputError: that is more than `memory`.
    """
    needed = int(rows * (2 * dimension + (LINK_BYTES if method == "hnsw" else 8)) / 2**20) + 1
    if needed > memory:
        raise InputError(
            f"search: {method} needs {needed} MiB for {rows} passages and may use {memory}; "
            f"right would be search_memory_mib: {needed + LEAST_BESIDE} or more, or method exact"
        )
    return needed


def approximate(
    method: Method, documents: Matrix, first: int, last: int, k: int, target: float, sample: np.ndarray, memory: int, threads: int = 1
) -> tuple[Any, Tuned]:
    """Index the documents from `first` to `last` and raise the effort of a search until recall at k reaches the target.

    Args:
        method: "ivf" or "hnsw".
        documents: [n, d].
        first: First row of the index.
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
    slices = Slices.within(max(memory - needed, LEAST_BESIDE), dimension, k)
    with faiss_threads(threads):
        index, fixed, effort, value, limit = (_ivf if method == "ivf" else _hnsw)(documents, first, last, k, slices)
    effort_of: Any = index if method == "ivf" else index.hnsw
    truth = exact(documents, first, last, slices, threads)(sample, k)[1]
    while True:
        setattr(effort_of, effort, value)
        measured = recall(finder(index, first, threads)(sample, k)[1], truth)
        if measured >= target or value >= limit:
            return index, Tuned(method, {**fixed, effort: value}, round(measured, 5), len(sample))
        value = min(2 * value, limit)


def finder(index: Any, first: int, threads: int = 1) -> Find:
    """The search of an index whose first passage is row `first`; rows are -1 where it finds fewer."""

    def find(queries: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        with faiss_threads(threads):
            scores, found = index.search(queries, min(wanted, index.ntotal))
        found[found >= 0] += first
        return scores, found

    return find


def every(opened: Sequence[Callable[[], Find]], documents: Matrix) -> Find:
    """The search of several indexes, one after the other, each opened when it is its turn: one of them is in memory at a time."""

    def find(queries: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        best = opened[0]()(queries, wanted)
        for each in opened[1:]:
            best = merge([best, each()(queries, wanted)], queries, documents, wanted)
        return best

    return find


def saved(index: Any) -> bytes:
    """An index with its effort, as a file holds it."""
    return faiss.serialize_index(index).tobytes()


def loaded(file: Path, tuned: Tuned, move: Move | None = None) -> Any:
    """The index of a file, where it was quickest."""
    index = faiss.read_index(str(file))
    return move(index) if move is not None and tuned.device == "gpu" else index


def gpu() -> Move | None:
    """How FAISS brings an index to this process' GPU; None where the FAISS that is installed has no GPU part, or there is no GPU."""
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return None
    resources = faiss.StandardGpuResources()
    return lambda index: faiss.index_cpu_to_gpu(resources, 0, index)


def placed(index: Any, tuned: Tuned, sample: np.ndarray, k: int, threads: int, move: Move | None) -> tuple[Tuned, dict[str, float]]:
    """Where an index is searched quicker, and the milliseconds a query of the sample that were measured.

    A GPU takes IVF alone, up to 2,048 results from up to 2,048 lists; it searches the same lists of the same codes as the processor.
    """
    places: dict[Literal["cpu", "gpu"], Any] = {"cpu": index}
    if move is not None and tuned.method == "ivf" and max(k, tuned.parameters["nprobe"]) <= GPU_MOST:
        places["gpu"] = move(index)
    taken: dict[str, float] = {}
    for name, each in places.items():
        finder(each, 0, threads)(sample, k)  # the first search also reserves memory
        started = time.perf_counter()
        finder(each, 0, threads)(sample, k)
        taken[name] = 1000 * (time.perf_counter() - started) / max(1, len(sample))
    return replace(tuned, device=min(places, key=lambda name: taken[name])), taken


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
