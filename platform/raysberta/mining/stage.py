"""Mining on Ray: actors embed every distinct text once, actors search each source's pool, the pure part chooses."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import torch

from raysberta.artifacts import Artifact, Draft
from raysberta.corpus.language import identify
from raysberta.encoder.fetch import model_folder
from raysberta.mining.choose import window
from raysberta.mining.judge import CrossEncoder
from raysberta.mining.miner import MINED, Judge, depth, mine, sample, usable
from raysberta.mining.pool import Pool, Texts, make_texts
from raysberta.recipe import DatasetSource, Recipe, Workers
from raysberta.retrieval.stage import Plan, Ranking, by_length, embed_to_storage, vectors_folder
from raysberta.retrieval.vectors import Matrix, View, steps, undirected
from raysberta.schema import EXAMPLE

log = logging.getLogger(__name__)

VERSION = 3
ROWS_PER_FILE = 1 << 18
JUDGED_AT_ONCE = 2048
COUNTED = ["pair_id", "source", "kind", "positive_score", "negative_scores", "negative_ranks", "positive_rank"]
COUNTED += ["topped_up", "looked_at", "skipped"]


def run(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Mine for the natural pairs, or for the synthetic ones where `inputs` has the artifact `synthesis`."""
    synthetic = "synthesis" in inputs
    natural = inputs["pairs"].table("pairs")
    natural = natural.filter(pc.equal(natural["split"], "train"))
    pairs = inputs["synthesis"].table("pairs") if synthetic else natural
    draft.rows_in = pairs.num_rows
    pairs, natural = _sound(pairs, draft).sort_by("pair_id"), _sound(natural)
    candidates = pa.concat_tables([natural, pairs]) if synthetic else natural
    parts = {key: pairs.filter(pc.equal(_keys(pairs), key)) for key in sorted(set(_keys(pairs).to_pylist()))}
    pools = {key: make_texts(_candidates(candidates, part, synthetic)) for key, part in parts.items()}
    dropped: Counter[str] = Counter()
    reports: dict[str, dict[str, Any]] = {}
    written = _Written(draft)
    with _judge(recipe, inputs["models"]) as judge:
        limits = judge if recipe.mining.cross_encoder_for == "limits" else None
        for table in _mine(recipe, inputs["models"], parts, pools, dropped, reports, limits, draft):
            written.add(table)
        written.close()
        for reason, count in dropped.items():
            draft.drop(reason, count)
        _report(recipe, written, pools, reports, judge, draft)


def _sound(pairs: pa.Table, draft: Draft | None = None) -> pa.Table:
    """Without rows that have an empty side or the id of an earlier one."""
    empty = pc.or_(*(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pairs[side])), 0) for side in ("query", "positive")))
    ids = pairs["pair_id"].to_pylist()
    first = {name: row for row, name in reversed(list(enumerate(ids)))}
    again = pa.array([first[name] != row for row, name in enumerate(ids)], pa.bool_())
    if draft is not None:
        draft.drop("empty_text", pc.sum(empty).as_py() or 0)
        draft.drop("duplicate_id", pc.sum(pc.and_(again, pc.invert(empty))).as_py() or 0)
    return pairs.filter(pc.invert(pc.or_(empty, again))).combine_chunks()


def _keys(pairs: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(pairs["source"], pairs["kind"], "/")


def _candidates(candidates: pa.Table, mined: pa.Table, synthetic: bool) -> pa.Table:
    """Pairs of the same source and kind; for synthetic queries, all retrieval pairs in their language too."""
    own = pc.and_(pc.equal(candidates["source"], mined["source"][0]), pc.equal(candidates["kind"], mined["kind"][0]))
    if synthetic and mined["task"][0].as_py() == "retrieval":
        own = pc.or_(own, pc.and_(pc.is_in(candidates["language"], mined["language"].unique()), pc.equal(candidates["task"], "retrieval")))
    return candidates.filter(own)


def _is_unmined(recipe: Recipe, key: str) -> bool:
    source = recipe.sources.get(key.rsplit("/", 1)[0])
    return isinstance(source, DatasetSource) and not source.mine


def _mine(
    recipe: Recipe,
    models: Artifact,
    parts: Mapping[str, pa.Table],
    pools: Mapping[str, Texts],
    dropped: Counter[str],
    reports: dict[str, dict[str, Any]],
    judge: Judge | None,
    draft: Draft,
) -> Iterator[pa.Table]:
    """Embed every distinct text once, with its prefix, then mine source by source."""
    settings, workers = recipe.mining, recipe.resources.embedding
    mined = {key: part["task"][0].as_py() for key, part in parts.items() if not _is_unmined(recipe, key)}
    texts: set[str] = set()
    for key, task in mined.items():
        texts.update(settings.prefixes.of(task, "query") + query for query in parts[key]["query"].to_pylist())
        texts.update(settings.prefixes.of(task, "document") + text for text in pools[key].texts)
    ordered = sorted(texts, key=by_length)
    at = {text: row for row, text in enumerate(ordered)}
    del texts
    log.info("embedding %d distinct queries and passages of %d pools", len(ordered), len(pools))
    folder = vectors_folder(draft, models, "miner", settings.pooling, settings.max_tokens)
    vectors, done = embed_to_storage(ordered, folder, models, "miner", settings.pooling, settings.max_tokens, workers)
    draft.metrics["embedding"] = done
    bad = undirected(vectors) if len(vectors) else np.zeros(0, np.int64)
    used: set[int] = set()
    plan = Plan(settings.search, settings.recall, recipe.resources.search_memory_mib, workers)
    for key, part in parts.items():
        if key not in mined:
            yield from sample(settings, pools[key], part, dropped)
            continue
        before, after = settings.prefixes.of(mined[key], "query"), settings.prefixes.of(mined[key], "document")
        rows = np.array([at[after + text] for text in pools[key].texts], np.int64)
        pool = Pool(pools[key], View(vectors, rows), np.flatnonzero(np.isin(rows, bad)), _languages(recipe, pools[key]))
        queries = View(vectors, np.array([at[before + query] for query in part["query"].to_pylist()], np.int64))
        pairs, asked = usable(pool, part, queries, dropped)
        if len(pairs):
            with Ranking(pool.vectors, asked, depth(settings, pools[key]), plan) as ranking:
                reports[key] = ranking.report
                for found in mine(settings, pool, pairs, asked, ranking, dropped, judge):
                    if settings.keep_vectors:
                        used.update(_rows_of(found, at, before, after))
                    yield found
    if settings.keep_vectors:
        _keep(ordered, vectors, sorted(used), draft)


def _rows_of(found: pa.Table, at: Mapping[str, int], before: str, after: str) -> set[int]:
    """Where the vectors of the rows' texts are; a supplied negative that is in no pool has none."""
    queries = {at[before + text] for text in found["query"].to_pylist()}
    documents = found["positive"].to_pylist() + pc.list_flatten(found["negatives"]).to_pylist()
    return queries | {at[after + text] for text in documents if after + text in at}


def _keep(texts: list[str], vectors: Matrix, rows: list[int], draft: Draft) -> None:
    """Write the table `vectors`: each text with its prefix, `key`, and its vector in half precision."""
    fs, path = draft.path("vectors")
    schema = vector_schema(vectors.shape[1])
    with pq.ParquetWriter(f"{path}/part-00000.parquet", schema, filesystem=fs, compression="zstd") as file:
        for start, stop in steps(len(rows), ROWS_PER_FILE):
            chosen = rows[start:stop]
            flat = pa.array(np.asarray(vectors[np.asarray(chosen, np.int64)], np.float16).reshape(-1), pa.float16())
            values = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            file.write_table(pa.table([pa.array([texts[row] for row in chosen], pa.string()), values], schema))


def vector_schema(dimension: int) -> pa.Schema:
    """Of the table `vectors`."""
    return pa.schema([("key", pa.string()), ("vector", pa.list_(pa.float16(), dimension))])


def _languages(recipe: Recipe, candidates: Texts) -> np.ndarray | None:
    if recipe.mining.language == "any":
        return None
    short = recipe.corpus.language_min_characters
    return np.array([identify(text, recipe.languages, short)[0] for text in candidates.texts], dtype="<U8")


class _Judge:
    """One actor with a cross-encoder."""

    def __init__(self, models: Artifact, max_tokens: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.model = CrossEncoder(model_folder(models, "cross_encoder"), max_tokens)

    def score(self, queries: list[str], texts: list[str]) -> np.ndarray:
        return self.model.score(queries, texts)


@contextmanager
def _judge(recipe: Recipe, models: Artifact) -> Iterator[Judge | None]:
    """Actors that score pairs of query and text, ended on leaving; None where the recipe names no cross-encoder."""
    if recipe.mining.cross_encoder is None:
        yield None
        return
    workers: Workers = recipe.resources.embedding
    actor = ray.remote(_Judge).options(num_cpus=workers.cpus, num_gpus=workers.gpus, max_restarts=-1, max_task_retries=-1)
    actors: list[Any] = [actor.remote(models, recipe.mining.cross_encoder_tokens, workers.cpus) for _ in range(workers.workers)]
    try:
        yield partial(_score, actors)
    finally:
        for one in actors:
            ray.kill(one)


def _score(actors: list[Any], queries: list[str], texts: list[str]) -> np.ndarray:
    """Pieces of fixed size go round the actors, so the scores do not depend on how many there are."""
    asked = [
        actors[number % len(actors)].score.remote(queries[start : start + JUDGED_AT_ONCE], texts[start : start + JUDGED_AT_ONCE])
        for number, start in enumerate(range(0, len(queries), JUDGED_AT_ONCE))
    ]
    return np.concatenate(ray.get(asked)) if asked else np.zeros(0, np.float32)


class _Written:
    """The tables of the artifact as they grow, and of every row the few numbers that the report counts."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.files, self.rows = draft, 0, 0
        self.waiting: list[pa.Table] = []
        self.counts: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Take up rows of MINED; whole files are written at once."""
        self.waiting.append(table)
        self.rows += table.num_rows
        if sum(part.num_rows for part in self.waiting) >= ROWS_PER_FILE:
            self._write()

    def close(self) -> None:
        """Write what is left; there is a file of each table even where it has no row."""
        if self.waiting or not self.files:
            self._write()

    def counted(self) -> pa.Table:
        """Source, kind, scores, ranks and counts of every row."""
        return pa.concat_tables(self.counts)

    def _write(self) -> None:
        table = pa.concat_tables([MINED.empty_table(), *self.waiting]).combine_chunks()
        unseen = pc.and_(pc.equal(table["positive_rank"], -1), pc.is_finite(table["positive_score"]))
        examples = table.select(EXAMPLE.names).cast(EXAMPLE)
        for name, rows in (("examples", examples), ("suspects", examples.filter(unseen))):
            fs, path = self.draft.path(name)
            pq.write_table(rows, f"{path}/part-{self.files:05d}.parquet", filesystem=fs, compression="zstd")
        counts = pc.list_value_length(table["negatives"])
        self.counts.append(table.select(COUNTED).append_column("count", counts))
        self.waiting, self.files = [], self.files + 1


def _report(
    recipe: Recipe, written: _Written, pools: Mapping[str, Texts], reports: Mapping[str, dict], judge: Judge | None, draft: Draft
) -> None:
    settings, table = recipe.mining, written.counted()
    draft.rows_out = table.num_rows
    looked_at = pc.sum(table["looked_at"]).as_py() or 0
    skipped: Counter[str] = Counter()
    for entry in pc.list_flatten(table["skipped"]).to_pylist():
        skipped[entry["reason"]] += entry["count"]
    positive = table["positive_score"].to_numpy()
    negative = pc.list_flatten(table["negative_scores"]).to_numpy()
    ranks = pc.list_flatten(table["negative_ranks"]).to_numpy()
    owners = pc.list_parent_indices(table["negative_scores"].combine_chunks()).to_numpy()
    hardest = np.full(table.num_rows, -np.inf, np.float32)
    np.maximum.at(hardest, owners, np.where(np.isfinite(negative), negative, -np.inf))
    margin = positive - hardest
    unseen = pc.sum(pc.and_(pc.equal(table["positive_rank"], -1), pc.is_finite(table["positive_score"]))).as_py() or 0
    draft.metrics.update(
        pools={
            key: {
                "texts": len(pool.texts),
                "window": list(window(settings, len(pool.texts))),
                **({"search": reports[key]} if key in reports else {}),
            }
            for key, pool in pools.items()
        },
        slicing=settings.slicing,
        examples=dict(sorted(Counter(_keys(table).to_pylist()).items())),
        negatives=int(pc.sum(table["count"]).as_py() or 0),
        examples_with_fewer_negatives=int(pc.sum(pc.less(table["count"], settings.negatives)).as_py() or 0),
        topped_up=int(pc.sum(table["topped_up"]).as_py() or 0),
        suspects=int(unseen),
        negatives_above_the_positive=int((margin < 0).sum()),
        looked_at=int(looked_at),
        skipped=dict(sorted(skipped.items())),
        skipped_share={reason: round(count / looked_at, 5) for reason, count in sorted(skipped.items())} if looked_at else {},
        histograms={
            "positive_score": histogram(positive[np.isfinite(positive)]),
            "negative_score": histogram(negative[np.isfinite(negative)]),
            "negative_rank": histogram(ranks[ranks >= 0].astype(np.float64)),
            "margin": histogram(margin[np.isfinite(margin)]),
        },
    )
    if judge is not None:
        draft.metrics["false_negatives"] = _estimate(recipe, written, judge, draft)
    log.info(
        "%d examples, %d negatives; skipped %s; %d suspect positives",
        table.num_rows,
        draft.metrics["negatives"],
        dict(skipped) or "none",
        unseen,
    )


def _estimate(recipe: Recipe, written: _Written, judge: Judge, draft: Draft) -> dict[str, float]:
    """The share of mined negatives that the cross-encoder scores at least as high as the positive; examples drawn by hash of their id."""
    ids = written.counted()["pair_id"].to_pylist()
    drawn = sorted(ids, key=lambda name: hashlib.blake2b(f"{recipe.seed} {name}".encode()).digest())[: recipe.mining.cross_encoder_sample]
    fs, path = draft.path("examples")
    table = pq.read_table(path, filesystem=fs, filters=[("pair_id", "in", drawn)]) if drawn else EXAMPLE.empty_table()
    rows = [
        (row["query"], row["positive"], text)
        for row in table.to_pylist()
        for text, score in zip(row["negatives"], row["negative_scores"], strict=True)
        if np.isfinite(score)
    ]
    queries = [query for query, _, _ in rows]
    of_positive = judge(queries, [positive for _, positive, _ in rows])
    of_negative = judge(queries, [text for _, _, text in rows])
    share = float((of_negative >= of_positive).mean()) if rows else 0.0
    return {"share": round(share, 5), "negatives": len(rows), "examples": table.num_rows}


def histogram(values: np.ndarray, bins: int = 30) -> dict[str, list[float]]:
    """Bin edges [bins + 1] and counts [bins]; empty lists where there is nothing."""
    if len(values) == 0:
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(values, bins=bins)
    return {"edges": [round(float(edge), 5) for edge in edges], "counts": [int(count) for count in counts]}
