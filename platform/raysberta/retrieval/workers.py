"""Pools of actors on Ray, and embedding many texts in one: the round-trip filter's, which are in memory, and a teacher's, on storage."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from raysberta.progress import progress
from raysberta.retrieval.embed import Embedder
from raysberta.retrieval.vectors import BLOCK_TEXTS, steps, write_block
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import filesystem
from raysberta.storage.on_disk import empty
from raysberta.work import Workers

log = logging.getLogger(__name__)


class _Embed:
    """One actor with its encoder, which it fetches to its own node where storage is remote."""

    def __init__(self, model: Artifact, max_tokens: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.embedder = Embedder(model.folder("model"), max_tokens)

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors = self.embedder.encode(batch["text"].to_pylist())
        flat = pa.array(vectors.reshape(-1), pa.float32())
        return pa.table({"row": batch["row"], "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})


@dataclass(frozen=True)
class Block:
    """Texts on storage that are embedded together."""

    texts: str
    """Path or URI of a file."""
    path: str
    """Where their vectors belong."""

    def write(self, texts: Sequence[str]) -> None:
        """Put the texts down."""
        fs, path = filesystem(self.texts)
        table = pa.table({"text": pa.array(texts, pa.string())})
        with fs.open_output_stream(path) as stream, pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)

    def read(self) -> list[str]:
        """What `write` was given."""
        fs, path = filesystem(self.texts)
        with fs.open_input_stream(path) as stream, pa.ipc.open_stream(stream) as reader:
            texts: list[str] = reader.read_all()["text"].to_pylist()
        return texts


class _EmbedToStorage(_Embed):
    """The same for blocks that are a row each, which it writes. Called again after a death, it writes the same files."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        done = []
        for row in batch.to_pylist():
            vectors = self.embedder.encode(Block(**row).read())
            done.append({"rows": len(vectors), "bad": write_block(row["path"], vectors), "dimension": vectors.shape[1]})
        return pa.Table.from_pylist(done)


def embed_texts(texts: pa.LargeStringArray, model: Artifact, max_tokens: int, workers: Workers, node: str = "") -> np.ndarray:
    """Vectors of distinct texts, each with its prefix already before it, pooled as the model's folder says.

    Texts go out sorted by length in blocks of fixed size, so what is embedded together, and with it every last bit of a vector, is the same
    for any number of workers. Memory: the texts twice; the vectors are on this machine's disk.

    Returns:
        float32 [len(texts), dimension], L2-normalised, in the order given.
    """
    lengths = pa.table({"length": pc.utf8_length(texts), "text": texts})
    order = pc.sort_indices(lengths, [("length", "descending"), ("text", "ascending")])  # as `encoded.by_length` has it
    rows = (order[start:stop] for start, stop in steps(len(order), BLOCK_TEXTS))
    blocks = [pa.table({"row": some, "text": texts.take(some).cast(pa.string())}) for some in rows]
    vectors = np.zeros((0, 0), np.float32)
    for batch in _embedded(blocks, _Embed, model, max_tokens, workers, node, len(texts)):
        values = pc.list_flatten(batch["vector"]).to_numpy().reshape(batch.num_rows, -1)
        if not len(vectors):
            vectors = empty((len(texts), values.shape[1]), np.float32)
        vectors[batch["row"].to_numpy()] = values
    return vectors


def embed_blocks(blocks: Sequence[Block], model: Artifact, max_tokens: int, workers: Workers, node: str, total: int) -> tuple[int, int]:
    """Write the vectors of blocks of texts.

    Args:
        blocks: None is empty.
        model: An encoder.
        max_tokens: Longer texts are cut.
        workers: Actors; each holds a block.
        node: Of the recipe, for who watches.
        total: Texts of all blocks.

    Returns:
        The dimension, 0 where there is no block, and how many vectors were none.
    """
    dimension = bad = 0
    given = [pa.Table.from_pylist([asdict(block)]) for block in blocks]
    for batch in _embedded(given, _EmbedToStorage, model, max_tokens, workers, node, total):
        bad += pc.sum(batch["bad"]).as_py()
        dimension = batch["dimension"][0].as_py()
    return dimension, bad


def _embedded(
    blocks: Sequence[pa.Table], actor: type[_Embed], model: Artifact, max_tokens: int, workers: Workers, node: str, total: int
) -> Iterator[pa.Table]:
    if not blocks:
        return
    done = 0
    for batch in pooled(blocks, actor, (model, max_tokens, workers.cpus), workers):
        done += pc.sum(batch["rows"]).as_py() if "rows" in batch.column_names else batch.num_rows
        yield batch
        progress(node, "texts embedded", done, total)


def pooled(blocks: Sequence[pa.Table], actor: type, constructor: tuple[Any, ...], workers: Workers) -> Iterator[pa.Table]:
    """What a pool of actors with a model each makes of blocks, as it comes.

    Args:
        blocks: What an actor is given at once.
        actor: A class that is called with a block and gives a table.
        constructor: What it is made from.
        workers: Actors.
    """
    made = ray.data.from_arrow(list(blocks)).map_batches(
        actor,
        fn_constructor_args=constructor,
        batch_format="pyarrow",
        batch_size=None,
        # one at a time: blocks are few and large, and the first actor that is ready would take them all
        compute=ray.data.ActorPoolStrategy(size=min(workers.workers, len(blocks)), max_tasks_in_flight_per_actor=1),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    for batch in made.iter_batches(batch_format="pyarrow", batch_size=None):
        assert isinstance(batch, pa.Table)
        yield batch
