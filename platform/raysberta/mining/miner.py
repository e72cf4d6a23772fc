"""Pairs to examples: embed the queries of a batch, search the pool of their source, choose. One object an actor."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from raysberta.mining.choose import Pool, choose, draw, normalise
from raysberta.recipe import Mining
from raysberta.retrieval.embed import Embedder
from raysberta.retrieval.search import Index
from raysberta.schema import EXAMPLE, PAIR, Task

MINED = pa.schema(
    [
        *EXAMPLE,
        ("positive_rank", pa.int32()),  # -1 below the window
        ("skipped", pa.list_(pa.struct([("reason", pa.string()), ("count", pa.int32())]))),
    ]
)
"""An example with what the report counts."""


def make_pool(texts: Sequence[str], doc_ids: Sequence[str], groups: Sequence[str]) -> tuple[list[str], list[frozenset[str]]]:
    """Distinct texts in sorted order, each with the doc_ids and groups of all rows that hold it."""
    keys: dict[str, set[str]] = {}
    for text, doc_id, group in zip(texts, doc_ids, groups, strict=True):
        keys.setdefault(text, set()).update((doc_id, group))
    ordered = sorted(keys)
    return ordered, [frozenset(keys[text]) for text in ordered]


class Miner:
    """Mines for batches of pairs of any source that it has a pool for."""

    def __init__(self, settings: Mining, embedder: Embedder, pools: Mapping[str, Pool], unmined: frozenset[str], threads: int) -> None:
        """Build an index for each pool.

        Args:
            settings: Window, limits, sampling, prefixes.
            embedder: The mining encoder.
            pools: Candidates by `source/kind`.
            unmined: Keys whose pairs only get random texts of their pool, because the recipe says so.
            threads: Threads of the search.
        """
        self.settings = settings
        self.embedder = embedder
        self.pools = pools
        self.unmined = unmined
        self.indexes = {key: Index(pool.vectors, threads) for key, pool in pools.items() if len(pool.texts) and key not in unmined}
        self.rows = {key: {text: row for row, text in enumerate(pool.texts)} for key, pool in pools.items()}

    def mine(self, pairs: pa.Table) -> pa.Table:
        """Examples (MINED) of pairs (PAIR), in the same order."""
        rows = pairs.to_pylist()
        by_key: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            by_key.setdefault(f"{row['source']}/{row['kind']}", []).append(number)
        found: dict[int, dict] = {}
        for key, numbers in by_key.items():
            part = [rows[number] for number in numbers]
            mined = self._random(key, part) if key in self.unmined else self._search(key, part)
            found.update(zip(numbers, mined, strict=True))
        return pa.Table.from_pylist([found[number] for number in range(len(rows))], schema=MINED)

    def _search(self, key: str, part: list[dict]) -> list[dict]:
        pool, at = self.pools[key], self.rows[key]
        task: Task = part[0]["task"]
        queries = self.embedder.encode([self.settings.prefixes.of(task, "query") + row["query"] for row in part])
        ranked, candidates = self.indexes[key].search(queries, self.settings.rank_to)
        return [
            self._example(row, pool, queries[number], pool.vectors[at[row["positive"]]], at[row["positive"]], ranked[number], candidates[number])
            for number, row in enumerate(part)
        ]

    def _example(
        self, row: dict, pool: Pool, query: np.ndarray, positive: np.ndarray, own_row: int, ranked: np.ndarray, candidates: np.ndarray
    ) -> dict:
        score = float(query @ positive)
        own_texts = frozenset((normalise(row["query"]), normalise(row["positive"])))
        own = frozenset((row["doc_id"], row["group"]))
        chosen = choose(self.settings, pool, row["pair_id"], own, own_texts, positive, score, ranked, candidates)
        ranks = np.flatnonzero(candidates == own_row)
        texts = [pool.texts[number] for number in chosen.rows]
        skipped = [{"reason": reason, "count": count} for reason, count in sorted(chosen.skipped.items())]
        return self._with_supplied(row, texts, chosen.scores, chosen.ranks, score, int(ranks[0]) if len(ranks) else -1, skipped)

    def _random(self, key: str, part: list[dict]) -> list[dict]:
        pool = self.pools[key]
        found = []
        for row in part:
            own = frozenset((row["doc_id"], row["group"]))
            allowed = [number for number in range(len(pool.texts)) if not pool.keys[number] & own and pool.texts[number] != row["query"]]
            allowed.sort(key=lambda number, row=row: draw(row["pair_id"], pool.texts[number]))  # type: ignore[misc]
            texts = [pool.texts[number] for number in allowed[: self.settings.negatives]]
            found.append(self._with_supplied(row, texts, [math.nan] * len(texts), [-1] * len(texts), math.nan, -1, []))
        return found

    def _with_supplied(
        self, row: dict, texts: list[str], scores: list[float], ranks: list[int], score: float, rank: int, skipped: list[dict]
    ) -> dict:
        """Supplied negatives come first and count; mined ones fill up to the number wanted."""
        supplied = list(row["negatives"] or [])[: self.settings.negatives]
        keep = [number for number, text in enumerate(texts) if text not in supplied][: self.settings.negatives - len(supplied)]
        return {
            **{name: row[name] for name in PAIR.names},
            "negatives": supplied + [texts[number] for number in keep],
            "positive_score": score,
            "negative_scores": [math.nan] * len(supplied) + [scores[number] for number in keep],
            "negative_ranks": [-1] * len(supplied) + [ranks[number] for number in keep],
            "positive_rank": rank,
            "skipped": skipped,
        }
