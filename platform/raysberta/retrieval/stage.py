"""Embedding many texts on Ray Data actors: what mining and the round-trip filter share."""

import logging
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import torch

from raysberta.artifacts import Artifact
from raysberta.encoder.fetch import Role, model_folder
from raysberta.encoder.pool import Pooling
from raysberta.recipe import Workers
from raysberta.retrieval.embed import Embedder

log = logging.getLogger(__name__)

BLOCK_TEXTS = 1024
PROGRESS_SECONDS = 10.0


class _Embed:
    """One actor with its encoder."""

    def __init__(self, models: Artifact, role: Role, pooling: Pooling, max_tokens: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.embedder = Embedder(model_folder(models, role), pooling, max_tokens)

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors = self.embedder.encode(batch["text"].to_pylist())
        flat = pa.array(vectors.reshape(-1), pa.float32())
        return pa.table({"row": batch["row"], "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})


def embed_texts(texts: Sequence[str], models: Artifact, role: Role, pooling: Pooling, max_tokens: int, workers: Workers) -> np.ndarray:
    """Vectors of distinct texts, each with its prefix already before it.

    Texts go out sorted by length in blocks of fixed size, so what is embedded together, and with it every last bit of a vector, is the same
    for any number of workers.

    Returns:
        float32 [len(texts), dimension], L2-normalised, in the order given.
    """
    order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), texts[row]))
    blocks = [
        pa.table({"row": pa.array(rows, pa.int64()), "text": pa.array([texts[row] for row in rows], pa.string())})
        for rows in (order[start : start + BLOCK_TEXTS] for start in range(0, len(order), BLOCK_TEXTS))
    ]
    if not blocks:
        return np.zeros((0, 0), np.float32)
    embedded = ray.data.from_arrow(blocks).map_batches(
        _Embed,
        fn_constructor_args=(models, role, pooling, max_tokens, workers.cpus),
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=min(workers.workers, len(blocks))),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    vectors = np.empty((0, 0), np.float32)
    done, shown = 0, time.monotonic()
    for batch in embedded.iter_batches(batch_format="pyarrow", batch_size=None):
        assert isinstance(batch, pa.Table)
        values = pc.list_flatten(batch["vector"]).to_numpy().reshape(batch.num_rows, -1)
        if not len(vectors):
            vectors = np.empty((len(texts), values.shape[1]), np.float32)
        vectors[batch["row"].to_numpy()] = values
        done += batch.num_rows
        if time.monotonic() - shown > PROGRESS_SECONDS:
            log.info("embedded %d of %d texts", done, len(texts))
            shown = time.monotonic()
    return vectors
