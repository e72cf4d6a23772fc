"""Embedding many texts and searching many vectors on Ray: what mining and the round-trip filter share."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from raysberta.progress import progress
from raysberta.retrieval.approximate import Method, Tuned, approximate, recall, require_fit, sample_of
from raysberta.retrieval.embed import VERSION, Embedder
from raysberta.retrieval.search import Find, Slices, check, exact, merge, part
from raysberta.retrieval.vectors import BLOCK_TEXTS, Matrix, Vectors, block_path, missing, steps, write_block
from raysberta.storage.artifacts import Artifact, Draft, fingerprint, versions
from raysberta.storage.location import join
from raysberta.work import Workers

log = logging.getLogger(__name__)

AHEAD = 2
"""Slices of queries at the searchers while the driver chooses from an earlier one."""


class _Embed:
    """One actor with its encoder, which it fetches to its own node where storage is remote."""

    def __init__(self, model: Artifact, max_tokens: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.embedder = Embedder(model.folder("model"), max_tokens)

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors = self.embedder.encode(batch["text"].to_pylist())
        flat = pa.array(vectors.reshape(-1), pa.float32())
        return pa.table({"row": batch["row"], "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})


class _EmbedToStorage(_Embed):
    """The same for blocks that are a row each, which it writes. Called again after a death, it writes the same files."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        done = []
        for row in batch.to_pylist():
            vectors = self.embedder.encode(row["texts"])
            done.append({"rows": len(vectors), "bad": write_block(row["path"], vectors), "dimension": vectors.shape[1]})
        return pa.Table.from_pylist(done)


def embed_texts(texts: Sequence[str], model: Artifact, max_tokens: int, workers: Workers, node: str = "") -> np.ndarray:
    """Vectors of distinct texts, each with its prefix already before it, pooled as the model's folder says.

    Texts go out sorted by length in blocks of fixed size, so what is embedded together, and with it every last bit of a vector, is the same
    for any number of workers.

    Returns:
        float32 [len(texts), dimension], L2-normalised, in the order given.
    """
    order = sorted(range(len(texts)), key=lambda row: by_length(texts[row]))
    blocks = [
        pa.table({"row": pa.array(rows, pa.int64()), "text": pa.array([texts[row] for row in rows], pa.string())})
        for rows in (order[start:stop] for start, stop in steps(len(order), BLOCK_TEXTS))
    ]
    vectors = np.zeros((0, 0), np.float32)
    for batch in _embedded(ray.data.from_arrow, blocks, _Embed, model, max_tokens, workers, node, len(texts)):
        values = pc.list_flatten(batch["vector"]).to_numpy().reshape(batch.num_rows, -1)
        if not len(vectors):
            vectors = np.empty((len(texts), values.shape[1]), np.float32)
        vectors[batch["row"].to_numpy()] = values
    return vectors


def embed_to_storage(
    texts: Sequence[str], folder: str, model: Artifact, max_tokens: int, workers: Workers, node: str = ""
) -> tuple[Vectors, dict[str, int]]:
    """Vectors of distinct texts in float16 blocks under `folder`, embedding only the blocks that are not there whole.

    Args:
        texts: Distinct, each with its prefix already before it, sorted by `by_length`.
        folder: Of everything that this encoder makes with this length limit and precision, see `vectors_folder`.
        model: An encoder.
        max_tokens: Longer texts are cut.
        workers: Actors.
        node: Of the recipe, for who watches.

    Returns:
        The vectors in the order given, and what was done: texts embedded, texts reused, vectors that were none.
    """
    parts = [texts[start:stop] for start, stop in steps(len(texts), BLOCK_TEXTS)]
    paths = [block_path(folder, block) for block in parts]
    todo, dimension = missing(paths, [len(block) for block in parts])
    blocks = [pa.table({"path": [paths[number]], "texts": pa.array([parts[number]], pa.list_(pa.string()))}) for number in todo]
    fresh = sum(len(parts[number]) for number in todo)
    bad = 0
    for batch in _embedded(ray.data.from_arrow, blocks, _EmbedToStorage, model, max_tokens, workers, node, fresh):
        bad += pc.sum(batch["bad"]).as_py()
        dimension = batch["dimension"][0].as_py()
    return Vectors(tuple(paths), len(texts), dimension), {"embedded": fresh, "reused": len(texts) - fresh, "bad_vectors": bad}


def embed_blocks(blocks: Sequence[Any], model: Artifact, max_tokens: int, workers: Workers, node: str, total: int) -> tuple[int, int]:
    """Write the vectors of blocks that other processes put together.

    Args:
        blocks: References to tables that are not empty: a row a block, its `path` and its `texts`.
        model: An encoder.
        max_tokens: Longer texts are cut.
        workers: Actors; each holds a table.
        node: Of the recipe, for who watches.
        total: Texts of all blocks.

    Returns:
        The dimension, 0 where there is no block, and how many vectors were none.
    """
    dimension = bad = 0
    for batch in _embedded(ray.data.from_arrow_refs, blocks, _EmbedToStorage, model, max_tokens, workers, node, total):
        bad += pc.sum(batch["bad"]).as_py()
        dimension = batch["dimension"][0].as_py()
    return dimension, bad


def by_length(text: str) -> tuple[int, str]:
    """The order in which texts are embedded: longest first, so batches hold texts of a length."""
    return -len(text), text


def vectors_folder(draft: Draft, model: Artifact, max_tokens: int) -> str:
    """Where the vectors of an encoder lie, beside all artifacts: named by the encoder and by what else decides a vector."""
    identity = {"model": model.manifest.id, "max_tokens": max_tokens, "block": BLOCK_TEXTS}
    identity |= {"torch": versions().get("torch"), "arithmetic": VERSION}
    return join(draft.vectors, fingerprint("vectors", identity))


def _embedded(
    source: Callable[[list[Any]], ray.data.Dataset],
    blocks: Sequence[Any],
    actor: type[_Embed],
    model: Artifact,
    max_tokens: int,
    workers: Workers,
    node: str,
    total: int,
) -> Iterator[pa.Table]:
    if not blocks:
        return
    embedded = source(list(blocks)).map_batches(
        actor,
        fn_constructor_args=(model, max_tokens, workers.cpus),
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=min(workers.workers, len(blocks))),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    done = 0
    for batch in embedded.iter_batches(batch_format="pyarrow", batch_size=None):
        assert isinstance(batch, pa.Table)
        done += pc.sum(batch["rows"]).as_py() if "rows" in batch.column_names else batch.num_rows
        yield batch
        progress(node, "texts embedded", done, total)


@dataclass(frozen=True)
class Plan:
    """How to search, and within what."""

    method: Method = "exact"
    recall: float = 0.98
    """Target of ivf and hnsw."""
    memory_mib: int = 1024
    """Of each searcher, for vectors and results."""
    workers: Workers = field(default_factory=Workers)
    node: str = ""
    """Of the recipe, for who watches."""


class _Searcher:
    """A shard of the documents. All it holds can be made again from storage, so a restarted one gives the same answers."""

    def __init__(self, documents: Matrix, first: int, last: int, plan: Plan, k: int, sample: np.ndarray) -> None:
        threads = max(1, int(plan.workers.cpus))
        slices = Slices.within(plan.memory_mib, documents.shape[1], k)
        device = "cuda" if plan.workers.gpus and torch.cuda.is_available() else "cpu"
        self.exact = exact(documents, first, last, slices, threads, device)
        self.found: Find = self.exact
        self.tuned: Tuned | None = None
        if plan.method != "exact":
            self.found, self.tuned = approximate(plan.method, documents, first, last, k, plan.recall, sample, plan.memory_mib, threads)

    def find(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.found(queries, k)

    def find_exactly(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.exact(queries, k)

    def how(self) -> Tuned | None:
        return self.tuned

    def process(self) -> int:
        """Its number, for who watches its memory."""
        return os.getpid()


class Ranking:
    """The documents ranked for slices of queries: in this process with one worker on a processor, else by actors with a shard each.

    A use as context manager ends the actors. An actor that dies is started anew and asked again; the answer is the same.
    """

    def __init__(self, documents: Matrix, queries: Matrix, k: int, plan: Plan) -> None:
        """Index what is to be indexed.

        Raises:
            InputError: nothing to search, different dimensions, or not within the memory.
        """
        check(queries, documents)
        self.queries, self.documents, self.k, self.plan = queries, documents, min(k, len(documents)), plan
        self.slices = Slices.within(plan.memory_mib, documents.shape[1], self.k)
        sample = sample_of(queries) if plan.method != "exact" else np.zeros((0, documents.shape[1]), np.float32)
        shards = max(1, min(plan.workers.workers, len(documents) // BLOCK_TEXTS))
        bounds = [len(documents) * number // shards // BLOCK_TEXTS * BLOCK_TEXTS for number in range(shards)] + [len(documents)]
        if plan.method != "exact":
            require_fit(plan.method, max(last - first for first, last in pairwise(bounds)), documents.shape[1], plan.memory_mib)
        self.local: _Searcher | None = None
        self.actors: list[Any] = []
        if shards == 1 and not plan.workers.gpus:
            self.local = _Searcher(documents, 0, len(documents), plan, self.k, sample)
        else:
            actor = ray.remote(_Searcher).options(
                num_cpus=plan.workers.cpus, num_gpus=plan.workers.gpus, max_restarts=-1, max_task_retries=-1
            )
            # kept here: a restarted actor asks for its arguments again, and Ray frees what nobody holds
            self.shared = ray.put(documents)
            self.actors = [actor.remote(self.shared, first, last, plan, self.k, sample) for first, last in pairwise(bounds)]
        self.report = self._report(sample)

    def __enter__(self) -> "Ranking":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            ray.kill(actor)

    def __iter__(self) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """First query, the one after the last, scores float32 [q, k] and rows int64 [q, k], slice by slice; -1 where HNSW found less."""
        waiting: list[tuple[int, int, np.ndarray, Any]] = []
        for start, stop in steps(len(self.queries), self.slices.queries):
            queries = part(self.queries, start, stop)
            waiting.append((start, stop, queries, self._ask("find", queries)))
            if len(waiting) == (AHEAD if self.actors else 1):
                yield self._answer(*waiting.pop(0))
            progress(self.plan.node, "queries searched", start, len(self.queries))
        for item in waiting:
            yield self._answer(*item)

    def _ask(self, method: str, queries: np.ndarray) -> Any:
        """What `_answer` waits for: results to come from every actor; with none, the method, so that it is called in its turn."""
        if self.local is not None:
            return getattr(self.local, method)
        shared = ray.put(queries)
        return [getattr(actor, method).remote(shared, self.k) for actor in self.actors]

    def _answer(self, start: int, stop: int, queries: np.ndarray, asked: Any) -> tuple[int, int, np.ndarray, np.ndarray]:
        if self.local is not None:
            return start, stop, *asked(queries, self.k)
        return start, stop, *merge(ray.get(asked), queries, self.documents, self.k)

    def _report(self, sample: np.ndarray) -> dict[str, Any]:
        """For the manifest: how it searches, and the recall of the whole, shards merged, measured on the sample."""
        if self.plan.method == "exact":
            return {"method": "exact"}
        how = [self.local.how()] if self.local is not None else ray.get([actor.how.remote() for actor in self.actors])
        found = self._answer(0, 0, sample, self._ask("find", sample))[3]
        truth = self._answer(0, 0, sample, self._ask("find_exactly", sample))[3]
        measured = round(recall(found, truth), 5)
        if measured < self.plan.recall:
            log.warning("%s finds %.4f of the best %d, %.4f was asked for", self.plan.method, measured, self.k, self.plan.recall)
        return {
            "method": self.plan.method,
            "recall_target": self.plan.recall,
            "recall_measured": measured,
            "recall_at": self.k,
            "sample_queries": len(sample),
            "shards": [asdict(tuned) for tuned in how if tuned is not None],
        }
