"""One side of a mining figure in a process of its own: `mining_measure.py WHAT SIDE FOLDER JSON`; prints what it measured as JSON, last."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mining_data import pool_of, ranked, real_pairs, reworded, table, texts_of
from raysberta.mining.miner import MINED, depth, mine
from raysberta.mining.settings import Examples, Mining
from raysberta.prefixes import E5
from raysberta.retrieval.vectors import Vectors, View
from raysberta.work import Work, Workers

Ask = dict[str, Any]
NEGATIVES = 7


def main() -> None:
    """Run the side that is asked for."""
    what, side, folder, ask = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
    torch.set_num_threads(ask.get("threads", 2))
    print(json.dumps(SIDES[what, side](folder, ask)))


# peak memory


def resident(what: str = "VmRSS") -> float:
    """Of this process, MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def beyond() -> float:
    """Forget the peak so far; what is resident now, MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


# the same texts, mined


def texts(ask: Ask) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs, and the passages: their positives first."""
    pairs, _ = real_pairs()
    return pairs[: ask["queries"]], list(dict.fromkeys(positive for _, positive in pairs))[: ask["passages"]]


def peer_model(folder: str, ask: Ask) -> Any:
    """The encoder as a sentence-transformers model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    word = Transformer(folder, max_seq_length=ask["max_tokens"])
    model = SentenceTransformer(modules=[word, Pooling(word.get_embedding_dimension(), "mean")], device="cpu")
    return model.to(torch.bfloat16) if ask["precision"] == "bf16" else model


def end_to_end_peer(folder: Path, ask: Ask) -> Ask:
    """mine_hard_negatives in one process of two threads, loading of library and model included, as the start of the actors is in ours."""
    pairs, passages = texts(ask)
    started = time.perf_counter()
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    model = peer_model(ask["model"], ask)
    found = mine_hard_negatives(
        Dataset.from_dict({"query": [query for query, _ in pairs], "positive": [positive for _, positive in pairs]}),
        model,
        corpus=passages,
        query_prompt=E5.retrieval_query,
        corpus_prompt=E5.retrieval_document,
        output_format="labeled-list",
        verbose=False,
        **ask["mining"],
    )
    return {"seconds": time.perf_counter() - started, "rows": len(found)}


def end_to_end_ours(folder: Path, ask: Ask) -> Ask:
    """The stage on a local Ray that is up: actors start, load, embed; search, choice, files."""
    import ray

    from raysberta.mining import stage
    from raysberta.storage.artifacts import Store

    pairs, passages = texts(ask)
    inside = {positive for _, positive in pairs}
    fill = [("", text) for text in passages if text not in inside]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    store = Store(str(folder / "store"))
    mining = {"by": "encoder", "max_tokens": ask["max_tokens"], **ask["mining"]}
    settings = Examples.model_validate({"negatives": NEGATIVES, "candidates": ["natural", "others"], "mine": mining})
    natural, others = (store.draft(name, "bench") for name in ("natural", "others"))
    natural.write_table("pairs", table(pairs))
    others.write_table("pairs", table([("others", text) for _, text in fill]))
    inputs = {"encoder": artifact(store, Path(ask["model"]))}
    for name, draft in (("natural", natural), ("others", others)):
        inputs[name] = store.commit(draft, name, "bench", {}, {}, 42, time.time())
    work = Work(settings, inputs, store.draft("mining", "bench"), Workers.model_validate(ask["workers"]), node="bench")
    started = time.perf_counter()
    facts = stage.run(work)
    return {"seconds": time.perf_counter() - started, "rows": work.draft.rows_out, "storage": facts.storage.model_dump()}


def artifact(store: Any, folder: Path) -> Any:
    """The encoder's folder as an artifact."""
    draft = store.draft("model", "bench")
    with draft.folder("model") as target:
        for file in folder.iterdir():
            (target / file.name).symlink_to(file)
    return store.commit(draft, "model", "bench", {}, {}, 42, time.time())


def ruled(ask: Ask) -> Mining:
    """Rules of mining by no encoder: vectors are given."""
    return Mining.model_validate({"by": "none", **ask})


# memory of ready vectors


def numbered(rows: int) -> tuple[list[str], list[str]]:
    """Queries and passages without content: their vectors are given."""
    return [f"query {number:07d}" for number in range(rows)], [f"passage {number:07d}" for number in range(rows)]


def memory_peer(folder: Path, ask: Ask) -> Ask:
    """mine_hard_negatives over FAISS; its cache holds the vectors."""
    import hashlib

    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    queries, passages = numbered(ask["rows"])
    model = peer_model(ask["model"], {"max_tokens": 32, "precision": "fp32"})
    model.truncate_dim = ask["dimension"]
    model.encode(["warm"])
    name = model.model_card_data.base_model or ""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    for side, of in (("query", queries), ("corpus", passages)):
        mark = hashlib.sha256(repr((name, None, None, of)).encode(), usedforsecurity=False).hexdigest()
        link = cache / f"{side}_embeddings_{mark}.npy"
        if not link.exists():
            link.symlink_to(folder / f"{side}.npy")
    import faiss  # noqa: F401

    before, started = beyond(), time.perf_counter()
    data = Dataset.from_dict({"query": queries, "positive": passages})
    found = mine_hard_negatives(
        data, model, use_faiss=True, cache_folder=str(cache), output_format="labeled-list", verbose=False, **ask["peer_mining"]
    )
    return {"mib": resident("VmHWM") - before, "seconds": time.perf_counter() - started, "rows": len(found)}


def memory_ours(folder: Path, ask: Ask) -> Ask:
    """Pairs as a table, vectors as blocks on storage; the examples go to Parquet."""
    import faiss

    faiss.knn(np.ones((64, 8), np.float32), np.ones((64, 8), np.float32), 2)
    rows = ask["rows"]
    documents = blocks(folder / "corpus", rows, ask["dimension"])
    asked = blocks(folder / "query", rows, ask["dimension"])
    before, started = beyond(), time.perf_counter()
    pairs = numbered_table(rows)
    pool = pool_of(pairs)
    settings = ruled(ask["mining"])
    order = np.array([int(text.rsplit(" ", 1)[1]) for text in texts_of(pool)], np.int64)
    pool, queries = replace(pool, vectors=View(documents, order)), View(asked, np.arange(rows))
    count = 0
    found = ranked(pool.vectors, queries, depth(settings, pool), ask["memory_mib"], 2)
    with pq.ParquetWriter(folder / "examples.parquet", MINED) as file:
        for mined in mine(settings, NEGATIVES, pool, pairs, queries, found, Counter()):
            file.write_table(mined)
            count += mined.num_rows
    return {"mib": resident("VmHWM") - before, "seconds": time.perf_counter() - started, "rows": count}


def numbered_table(rows: int) -> pa.Table:
    """The pairs of `numbered`, as a table."""
    queries, passages = numbered(rows)
    same = {"split": "train", "source": "bench", "kind": "pair", "task": "retrieval", "language": "ru"}
    return pa.table(
        {
            "pair_id": queries, "doc_id": passages, "group": passages, **{name: pa.array([value]).take(pa.array([0] * rows, pa.int32()))
            for name, value in same.items()}, "query": queries, "positive": passages,
            "negatives": pa.array([[]], pa.list_(pa.string())).take(pa.array([0] * rows, pa.int32())),
        }
    )  # fmt: skip


def blocks(folder: Path, rows: int, dimension: int) -> Vectors:
    """What mining_data.write wrote."""
    return Vectors(tuple(str(path) for path in sorted(folder.glob("*.f16"))), rows, dimension)


# a million passages


def million_ours(folder: Path, ask: Ask) -> Ask:
    """A searching worker: 20,000 queries against vectors on storage."""
    documents = blocks(folder / "corpus", ask["rows"], ask["dimension"])
    queries = np.load(folder / "query.npy")[: ask["queries"]]
    k = ask["k"]
    before = beyond()
    started = time.perf_counter()
    best = [rows[:, 0] for _, _, _, rows in ranked(documents, queries, k, ask["memory_mib"], 2)]
    seconds = time.perf_counter() - started
    return {"mib": resident("VmHWM") - before, "seconds": seconds, "check": int(np.concatenate(best)[:2000].sum())}


def million_peer(folder: Path, ask: Ask) -> Ask:
    """One FAISS flat index over the same vectors, filled before the clock starts."""
    import faiss

    faiss.omp_set_num_threads(2)
    queries = np.load(folder / "query.npy")[: ask["queries"]]
    before = beyond()
    index = faiss.IndexFlatIP(ask["dimension"])
    documents = blocks(folder / "corpus", ask["rows"], ask["dimension"])
    for start in range(0, ask["rows"], 65536):
        index.add(np.ascontiguousarray(documents[start : start + 65536]))
    started = time.perf_counter()
    best = [index.search(queries[start : start + 16384], ask["k"])[1][:, 0] for start in range(0, len(queries), 16384)]
    seconds = time.perf_counter() - started
    return {"mib": resident("VmHWM") - before, "seconds": seconds, "check": int(np.concatenate(best)[:2000].sum())}


# planted false negatives


def planted(ask: Ask, first: int = 0) -> tuple[list[tuple[str, str]], list[str], dict[str, dict[str, str]]]:
    """Pairs, passages with what was planted among them, and for each positive what was planted, with its kind."""
    pairs, translations = real_pairs()
    asked = pairs[first : first + ask["queries"]]
    plants = {
        text: {reworded(text): "reworded"} | ({translations[text]: "translated"} if text in translations else {}) for _, text in asked
    }
    fill = [text for _, text in pairs[2 * ask["queries"] :]][: ask["passages"] - len(asked)]
    every = [text for _, text in asked] + fill + [text for found in plants.values() for text in sorted(found)]
    return asked, list(dict.fromkeys(every)), plants


def let_through(rows: list[tuple[str, list[str]]], plants: dict[str, dict[str, str]]) -> Ask:
    """How many of the planted texts are among the negatives of the pair that they were planted for."""
    found = Counter(plants[positive][text] for positive, negatives in rows for text in negatives if text in plants[positive])
    total = Counter(kind for kinds in plants.values() for kind in kinds.values())
    return {
        "through": found.total(),
        "planted": total.total(),
        "kinds": {kind: [found[kind], total[kind]] for kind in total},
        "negatives": sum(len(negatives) for _, negatives in rows),
        "rows": sum(bool(negatives) for _, negatives in rows),
    }


def planted_peer(folder: Path, ask: Ask) -> Ask:
    """mine_hard_negatives with the margin that its documentation recommends."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    pairs, passages, plants = planted(ask)
    found = mine_hard_negatives(
        Dataset.from_dict({"query": [query for query, _ in pairs], "positive": [positive for _, positive in pairs]}),
        peer_model(ask["model"], ask),
        corpus=passages,
        query_prompt=E5.retrieval_query,
        corpus_prompt=E5.retrieval_document,
        output_format="labeled-list",
        verbose=False,
        **ask["peer_mining"],
    )
    rows = [(texts[0], texts[1:]) for texts in found["positive"]]
    return let_through(rows, plants)


def planted_ours(folder: Path, ask: Ask) -> Ask:
    """The miner with the same window and share, and with its limit of likeness to the positive.

    That limit depends on the encoder. It is set on pairs of their own: the highest of those asked for that lets at most 1 % through there.
    """
    from raysberta.retrieval.embed import Embedder

    embedder = Embedder(Path(ask["model"]), ask["max_tokens"], ask["precision"])

    def measured(first: int, rules: dict[str, Ask]) -> Ask:
        pairs, passages, plants = planted(ask, first)
        pool = pool_of(table([*pairs, *(("others", text) for text in passages)]))
        vectors = embedder.encode([E5.retrieval_document + text for text in texts_of(pool)])
        queries = embedder.encode([E5.retrieval_query + query for query, _ in pairs])
        pool, found = replace(pool, vectors=vectors), {}
        for name, rule in rules.items():
            settings = ruled(rule)
            ranking = ranked(vectors, queries, depth(settings, pool), 1024, 2)
            rows = [row for part in mine(settings, NEGATIVES, pool, table(pairs), queries, ranking, Counter()) for row in part.to_pylist()]
            found[name] = let_through([(row["positive"], row["negatives"]) for row in rows], plants)
        return found

    base = ask["mining"]
    tried = measured(ask["queries"], {str(limit): {**base, "max_similarity_to_positive": limit} for limit in ask["limits"]})
    good = [float(limit) for limit, found in tried.items() if found["through"] <= 0.01 * found["planted"]]
    limit = max(good, default=min(ask["limits"]))
    unlimited = {name: value for name, value in base.items() if name != "max_share_of_positive"}
    paper = {**unlimited, "ranks": [20, 100], "slicing": "flag_embedding", "sampling": "random"}
    rules = {"limited": {**base, "max_similarity_to_positive": limit}, "share": base, "none": unlimited, "paper": paper}
    return {"limit": limit, "tried": tried, **measured(0, rules)}


# agreement


def agreement_ours(folder: Path, ask: Ask) -> Ask:
    """Negatives chosen by the miner and by a full matrix of scores; recall of IVF and HNSW."""
    from mining_data import clustered
    from raysberta.retrieval.approximate import approximate, finder, recall
    from raysberta.retrieval.search import search

    rows, dimension = ask["rows"], 64
    pairs = numbered_table(rows)
    documents, queries = clustered(rows, dimension, 1), clustered(rows, dimension, 2)
    pool = pool_of(pairs)
    every = texts_of(pool)
    order = np.array([int(text.rsplit(" ", 1)[1]) for text in every])
    pool, same = replace(pool, vectors=documents[order]), 0
    settings = ruled({"sampling": "top", "ranks": [20, 100]})
    ranking = ranked(pool.vectors, queries, 100, 128, 2)
    rows_of = mine(settings, NEGATIVES, pool, pairs, queries, ranking, Counter())
    chosen = [row["negatives"] for part in rows_of for row in part.to_pylist()]
    whole = documents[order].astype(np.float64)
    for number, negatives in enumerate(chosen):
        scores = whole @ queries[number].astype(np.float64)
        best = [every[at] for at in np.argsort(-scores, kind="stable")[:100]]
        same += negatives == [text for text in best[20:] if text != f"passage {number:07d}"][:7]
    sample = queries[:256]
    truth = search(queries[256:768], documents, 100)[1]
    measured = {}
    for method in ("ivf", "hnsw"):
        index, tuned = approximate(method, documents, 0, rows, 100, 0.985, sample, 512, 2)
        measured[method] = {
            "recall": recall(finder(index, 0, 2)(queries[256:768], 100)[1], truth),
            "stated": tuned.recall,
            **tuned.parameters,
        }
    return {"same": same, "rows": rows, **measured}


# scaling


def scaling_ours(folder: Path, ask: Ask) -> Ask:
    """Seconds of search and of embedding with one and with two workers of one core; and of a bare product, for what the cores can."""
    import ray

    from raysberta.retrieval.workers import embed_texts
    from raysberta.storage.artifacts import Store

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    found: Ask = {"search": {}, "embedding": {}, "product": {}}
    if "search" in ask["of"]:
        documents = blocks(folder / "corpus", ask["rows"], ask["dimension"])
        queries = np.load(folder / "query.npy")[: ask["queries"]]
        for workers in (1, 2):
            spans = [(len(queries) * number // workers, len(queries) * (number + 1) // workers) for number in range(workers)]
            actors = [searching(documents) for _ in spans]
            ray.get([one.find.remote(queries[:256]) for one in actors])  # they are up, the files in the system's cache
            started = time.perf_counter()
            ray.get([one.find.remote(queries[start:stop]) for one, (start, stop) in zip(actors, spans, strict=True)])
            found["search"][workers] = time.perf_counter() - started
            for one in actors:
                ray.kill(one)
        found["product"] = {workers: bare_products(workers) for workers in (1, 2)}
    if "embedding" in ask["of"]:
        pairs, _ = real_pairs()
        store = Store(str(folder / "scaling"))
        model = artifact(store, Path(ask["model"]))
        every = [positive for _, positive in pairs]
        for workers in (1, 2):
            spent = []
            for count in ask["texts"]:
                some = pa.array([E5.retrieval_document + text for text in every[:count]], pa.large_string())
                started = time.perf_counter()
                embed_texts(some, model, ask["max_tokens"], Workers(workers=workers, cpus=1.0))
                spent.append(time.perf_counter() - started)
            found["embedding"][workers] = spent
    return found


def searching(documents: Vectors) -> Any:
    """An actor of one core that searches all documents for its share of the queries, as a worker does."""
    import ray

    @ray.remote(num_cpus=1.0)
    class Searching:
        def find(self, queries: np.ndarray) -> int:
            return sum(stop - start for start, stop, _, _ in ranked(documents, queries, 100, 512, 1))

    return Searching.remote()


def bare_products(workers: int) -> float:
    """Seconds a product of matrices takes in each of so many actors at once: what a second core is worth on this machine."""
    import ray

    @ray.remote(num_cpus=1.0)
    def product(seconds: float) -> float:
        torch.set_num_threads(1)
        a, b = torch.randn(1024, 384), torch.randn(384, 16384)
        a @ b
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            a @ b
            done += 1
        return (time.perf_counter() - started) / done

    ray.get([product.remote(0.1) for _ in range(workers)])
    return float(np.mean(ray.get([product.remote(4.0) for _ in range(workers)])))


SIDES: dict[tuple[str, str], Callable[[Path, Ask], Ask]] = {
    ("end_to_end", "ours"): end_to_end_ours,
    ("end_to_end", "peer"): end_to_end_peer,
    ("memory", "ours"): memory_ours,
    ("memory", "peer"): memory_peer,
    ("million", "ours"): million_ours,
    ("million", "peer"): million_peer,
    ("planted", "ours"): planted_ours,
    ("planted", "peer"): planted_peer,
    ("agreement", "ours"): agreement_ours,
    ("scaling", "ours"): scaling_ours,
}

if __name__ == "__main__":
    main()
