"""Mining: Ray Data actors embed every distinct text once, FAISS searches each source's pool, the pure part chooses."""

import logging
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.artifacts import Artifact, Draft
from raysberta.mining.choose import Pool, window
from raysberta.mining.miner import MINED, make_pool, mine, sample
from raysberta.recipe import DatasetSource, Recipe
from raysberta.retrieval.stage import embed_texts
from raysberta.schema import EXAMPLE

log = logging.getLogger(__name__)

VERSION = 1

Texts = tuple[list[str], list[frozenset[str]]]
"""Distinct candidate texts, and what each belongs to."""


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
    table = pa.Table.from_pylist(_mine(recipe, inputs["models"], pairs.sort_by("pair_id"), pools), schema=MINED).sort_by("pair_id")
    _write(recipe, table, pools, draft)


def _keys(pairs: pa.Table) -> list[str]:
    return sorted(set(pc.binary_join_element_wise(pairs["source"], pairs["kind"], "/").to_pylist()))


def _candidates(candidates: pa.Table, pairs: pa.Table, key: str, synthetic: bool) -> Texts:
    """Distinct positives of the same source and kind; for synthetic queries, of all retrieval pairs in their language too."""
    source, kind = key.rsplit("/", 1)
    own = pc.and_(pc.equal(candidates["source"], source), pc.equal(candidates["kind"], kind))
    mined = pairs.filter(pc.and_(pc.equal(pairs["source"], source), pc.equal(pairs["kind"], kind)))
    if synthetic and mined["task"][0].as_py() == "retrieval":
        own = pc.or_(own, pc.and_(pc.is_in(candidates["language"], mined["language"].unique()), pc.equal(candidates["task"], "retrieval")))
    part = candidates.filter(own)
    return make_pool(part["positive"].to_pylist(), part["doc_id"].to_pylist(), part["group"].to_pylist())


def _is_unmined(recipe: Recipe, key: str) -> bool:
    source = recipe.sources.get(key.rsplit("/", 1)[0])
    return isinstance(source, DatasetSource) and not source.mine


def _mine(recipe: Recipe, models: Artifact, pairs: pa.Table, pools: Mapping[str, Texts]) -> list[dict]:
    """Embed every distinct text once, with its prefix, then mine source by source."""
    by_key: dict[str, list[dict]] = {}
    for row in pairs.to_pylist():
        by_key.setdefault(f"{row['source']}/{row['kind']}", []).append(row)
    prefixes, unmined = recipe.mining.prefixes, {key for key in pools if _is_unmined(recipe, key)}
    texts: dict[str, int] = {}
    for key, rows in by_key.items():
        if key not in unmined:
            task = rows[0]["task"]
            for text in (
                *(prefixes.of(task, "query") + row["query"] for row in rows),
                *(prefixes.of(task, "document") + text for text in pools[key][0]),
            ):
                texts.setdefault(text, len(texts))
    log.info("embedding %d distinct queries and passages of %d pools", len(texts), len(pools))
    vectors = embed_texts(list(texts), models, "miner", recipe.mining.pooling, recipe.mining.max_tokens, recipe.resources.embedding)
    mined: list[dict] = []
    for key, rows in sorted(by_key.items()):
        candidates, keys = pools[key]
        if key in unmined:
            mined += sample(recipe.mining, Pool(candidates, keys, np.zeros((0, 0), np.float32)), rows)
            continue
        task = rows[0]["task"]
        pool = Pool(candidates, keys, vectors[[texts[prefixes.of(task, "document") + text] for text in candidates]])
        queries = vectors[[texts[prefixes.of(task, "query") + row["query"]] for row in rows]]
        mined += mine(recipe.mining, pool, rows, queries, max(1, int(recipe.resources.embedding.cpus)))
    return mined


def _write(recipe: Recipe, table: pa.Table, pools: Mapping[str, Texts], draft: Draft) -> None:
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
        pools={key: {"texts": len(texts), "window": list(window(recipe.mining, len(texts)))} for key, (texts, _) in pools.items()},
        examples=dict(sorted(Counter(keys.to_pylist()).items())),
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
    suspects = draft.metrics["suspects"]
    log.info(
        "%d examples, %d negatives; skipped %s; %d suspect positives",
        table.num_rows,
        draft.metrics["negatives"],
        skipped or "none",
        suspects,
    )


def histogram(values: np.ndarray, bins: int = 30) -> dict[str, list[float]]:
    """Bin edges [bins + 1] and counts [bins]; empty lists where there is nothing."""
    if len(values) == 0:
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(values, bins=bins)
    return {"edges": [round(float(edge), 5) for edge in edges], "counts": [int(count) for count in counts]}
