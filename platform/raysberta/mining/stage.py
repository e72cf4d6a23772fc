"""Mining on Ray Data: one pass embeds the pools, a second embeds the queries, searches and chooses."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from raysberta.artifacts import Artifact, Draft
from raysberta.encoder.fetch import model_folder
from raysberta.mining.choose import Pool, window
from raysberta.mining.miner import MINED, Miner, make_pool
from raysberta.recipe import DatasetSource, Recipe, Workers
from raysberta.retrieval.embed import Embedder
from raysberta.schema import EXAMPLE
from raysberta.telemetry import gauge

log = logging.getLogger(__name__)

VERSION = 1
BATCH = 1024
LIGHT = {"num_cpus": 0.1}


def run(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Mine for the natural pairs, or for the synthetic ones where `inputs` has the artifact `synthesis`."""
    synthetic = "synthesis" in inputs
    natural = inputs["pairs"].table("pairs")
    natural = natural.filter(pc.equal(natural["split"], "train"))
    pairs = inputs["synthesis"].table("pairs") if synthetic else natural
    draft.rows_in = pairs.num_rows
    if pairs.num_rows == 0:
        draft.write_table("examples", EXAMPLE.empty_table())
        draft.write_table("suspects", EXAMPLE.empty_table())
        return
    candidates = pa.concat_tables([natural, pairs]) if synthetic else natural
    pools = {key: _candidates(candidates, pairs, key, synthetic) for key in _keys(pairs)}
    folder = model_folder(inputs["models"], "miner")
    vectors = _embed_pools(recipe, folder, pools, pairs)
    unmined = frozenset(key for key in pools if _is_unmined(recipe, key))
    shared = ray.put({key: Pool(texts, keys, vectors[key]) for key, (texts, keys) in pools.items()})
    workers = recipe.resources.embedding
    mined = (
        ray.data.from_arrow(pairs.sort_by("pair_id"))
        .repartition(max(1, -(-pairs.num_rows // BATCH)))
        .map_batches(
            _MinerActor,
            fn_constructor_args=(recipe, folder, shared, unmined),
            batch_size=BATCH,
            batch_format="pyarrow",
            **_pool_of(workers),
        )
    )
    table = pa.concat_tables(ray.get(mined.to_arrow_refs())).cast(MINED).sort_by("pair_id")
    _write(recipe, table, pools, draft)


def _keys(pairs: pa.Table) -> list[str]:
    return sorted(set(pc.binary_join_element_wise(pairs["source"], pairs["kind"], "/").to_pylist()))


def _candidates(candidates: pa.Table, pairs: pa.Table, key: str, synthetic: bool) -> tuple[list[str], list[frozenset[str]]]:
    """Distinct positives of the same source and kind; for synthetic pairs, of everything in the same language."""
    source, kind = key.rsplit("/", 1)
    own = pc.and_(pc.equal(candidates["source"], source), pc.equal(candidates["kind"], kind))
    if synthetic:
        languages = pairs.filter(pc.and_(pc.equal(pairs["source"], source), pc.equal(pairs["kind"], kind)))["language"].unique()
        own = pc.or_(own, pc.and_(pc.is_in(candidates["language"], languages.combine_chunks()), pc.equal(candidates["task"], "retrieval")))
    part = candidates.filter(own)
    return make_pool(part["positive"].to_pylist(), part["doc_id"].to_pylist(), part["group"].to_pylist())


def _is_unmined(recipe: Recipe, key: str) -> bool:
    source = recipe.sources.get(key.rsplit("/", 1)[0])
    return isinstance(source, DatasetSource) and not source.mine


def _embed_pools(
    recipe: Recipe, folder: Path, pools: Mapping[str, tuple[list[str], list[frozenset[str]]]], pairs: pa.Table
) -> dict[str, np.ndarray]:
    """Vectors of each pool, float32 [n, d]; a text that several pools share under the same prefix is embedded once."""
    tasks = dict(zip(pc.binary_join_element_wise(pairs["source"], pairs["kind"], "/").to_pylist(), pairs["task"].to_pylist(), strict=True))
    prefixed = {key: [recipe.mining.prefixes.of(tasks[key], "document") + text for text in texts] for key, (texts, _) in pools.items()}
    distinct = sorted({text for texts in prefixed.values() for text in texts}, key=lambda text: (len(text), text))
    log.info("embedding %d passages of %d pools", len(distinct), len(pools))
    done = (
        ray.data.from_arrow(pa.table({"text": distinct}))
        .repartition(max(1, -(-len(distinct) // BATCH)))
        .map_batches(_EmbedActor, fn_constructor_args=(recipe, folder), batch_size=BATCH, batch_format="pyarrow", **_pool_of(recipe.resources.embedding))
    )
    table = pa.concat_tables(ray.get(done.to_arrow_refs()))
    width = len(table["vector"][0])
    matrix = pc.list_flatten(table["vector"]).to_numpy().reshape(-1, width)
    row_of = {text: row for row, text in enumerate(table["text"].to_pylist())}
    return {key: matrix[[row_of[text] for text in texts]] for key, texts in prefixed.items()}


def _pool_of(workers: Workers) -> dict[str, Any]:
    return {"compute": ray.data.ActorPoolStrategy(size=workers.workers), "num_cpus": workers.cpus * 0.8, "num_gpus": workers.gpus}


def _embedder(recipe: Recipe, folder: Path) -> Embedder:
    torch.set_num_threads(max(1, int(recipe.resources.embedding.cpus)))
    return Embedder(folder, recipe.mining.pooling, recipe.mining.max_tokens, "bf16")


class _EmbedActor:
    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.embedder = _embedder(recipe, folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors = self.embedder.encode(batch["text"].to_pylist())
        flat = pa.array(vectors.reshape(-1), pa.float32())
        offsets = pa.array(np.arange(0, len(flat) + 1, vectors.shape[1], dtype=np.int32))
        return pa.table({"text": batch["text"], "vector": pa.ListArray.from_arrays(offsets, flat)})


class _MinerActor:
    def __init__(self, recipe: Recipe, folder: Path, pools: Any, unmined: frozenset[str]) -> None:
        held = ray.get(pools) if isinstance(pools, ray.ObjectRef) else pools
        self.miner = Miner(recipe.mining, _embedder(recipe, folder), held, unmined, max(1, int(recipe.resources.embedding.cpus)))

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self.miner.mine(batch)


def _write(recipe: Recipe, table: pa.Table, pools: Mapping[str, tuple[list[str], list[frozenset[str]]]], draft: Draft) -> None:
    keys = pc.binary_join_element_wise(table["source"], table["kind"], "/")
    unseen = pc.and_(pc.equal(table["positive_rank"], -1), pc.is_finite(table["positive_score"]))
    examples = table.select(EXAMPLE.names).cast(EXAMPLE)
    draft.write_table("examples", examples)
    draft.write_table("suspects", examples.filter(unseen))
    draft.rows_out = table.num_rows
    counts = pc.list_value_length(table["negatives"])
    short = pc.sum(pc.less(counts, recipe.mining.negatives)).as_py() or 0
    skipped: dict[str, int] = {}
    for entry in pc.list_flatten(table["skipped"]).to_pylist():
        skipped[entry["reason"]] = skipped.get(entry["reason"], 0) + entry["count"]
    positive = table["positive_score"].to_numpy()
    negative = pc.list_flatten(table["negative_scores"]).to_numpy()
    ranks = pc.list_flatten(table["negative_ranks"]).to_numpy()
    draft.metrics.update(
        pools={key: {"texts": len(texts), "window": window(recipe.mining, len(texts))} for key, (texts, _) in pools.items()},
        examples={key: count for key, count in sorted(zip(*(part.to_pylist() for part in _value_counts(keys)), strict=True))},
        negatives=int(pc.sum(counts).as_py() or 0),
        examples_with_fewer_negatives=int(short),
        suspects=int(pc.sum(unseen).as_py() or 0),
        skipped=dict(sorted(skipped.items())),
        histograms={
            "positive_score": histogram(positive[np.isfinite(positive)]),
            "negative_score": histogram(negative[np.isfinite(negative)]),
            "negative_rank": histogram(ranks[ranks >= 0].astype(np.float64)),
        },
    )
    gauge("negatives", draft.metrics["negatives"])
    log.info("%d examples, %d negatives; skipped %s; %d suspect positives", table.num_rows, draft.metrics["negatives"], skipped or "none", draft.metrics["suspects"])


def _value_counts(values: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    counted = pc.value_counts(values)
    return counted.field("values"), counted.field("counts")


def histogram(values: np.ndarray, bins: int = 30) -> dict[str, list[float]]:
    """Bin edges [bins + 1] and counts [bins]; empty lists where there is nothing."""
    if len(values) == 0:
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(values, bins=bins)
    return {"edges": [round(float(edge), 5) for edge in edges], "counts": [int(count) for count in counts]}
