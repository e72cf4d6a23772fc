"""Pairs to examples: search the pool of their source, choose, put the supplied negatives first."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raysberta.mining.choose import Pool, choose, draw, normalise
from raysberta.recipe import Mining
from raysberta.retrieval.search import search
from raysberta.schema import EXAMPLE, PAIR

MINED = pa.schema(
    [
        *EXAMPLE,
        ("positive_rank", pa.int32()),  # -1 below the window
        ("skipped", pa.list_(pa.struct([("reason", pa.string()), ("count", pa.int32())]))),
    ]
)
"""An example with what the report counts."""

DRAWS = 50
"""Tries for each random negative before the row has to do with fewer."""


def make_pool(texts: Sequence[str], doc_ids: Sequence[str], groups: Sequence[str]) -> tuple[list[str], list[frozenset[str]]]:
    """Distinct texts in sorted order, each with the doc_ids and groups of all rows that hold it."""
    keys: dict[str, set[str]] = {}
    for text, doc_id, group in zip(texts, doc_ids, groups, strict=True):
        keys.setdefault(text, set()).update((doc_id, group))
    ordered = sorted(keys)
    return ordered, [frozenset(keys[text]) for text in ordered]


def mine(settings: Mining, pool: Pool, rows: Sequence[dict], queries: np.ndarray, threads: int) -> list[dict]:
    """Rows of MINED for rows of PAIR that share one pool, in the same order.

    Args:
        settings: Window, limits and sampling.
        pool: The candidates; holds every positive of `rows`.
        rows: Pairs of one source and kind.
        queries: Vectors of their queries, float32 [len(rows), d], L2-normalised.
        threads: Of the search.
    """
    at = {text: row for row, text in enumerate(pool.texts)}
    positives = _positives(rows)
    ranked, candidates = search(queries, pool.vectors, settings.rank_to, threads)
    found = []
    for number, row in enumerate(rows):
        own_row = at[row["positive"]]
        positive = pool.vectors[own_row]
        score = float(queries[number] @ positive)
        also = positives[normalise(row["query"])]
        lowest = min(float(queries[number] @ pool.vectors[at[text]]) for text in also)
        own = frozenset((row["doc_id"], row["group"]))
        own_texts = _own_texts(row, also)
        chosen = choose(settings, pool, row["pair_id"], own, own_texts, positive, lowest, ranked[number], candidates[number])
        ranks = np.flatnonzero(candidates[number] == own_row)
        texts = [pool.texts[number] for number in chosen.rows]
        skipped = [{"reason": reason, "count": count} for reason, count in sorted(chosen.skipped.items())]
        rank = int(ranks[0]) if len(ranks) else -1
        found.append(_with_supplied(settings, row, texts, chosen.scores, chosen.ranks, score, rank, skipped))
    return found


def sample(settings: Mining, pool: Pool, rows: Sequence[dict]) -> list[dict]:
    """The same for a data set that the recipe does not mine: random texts of its pool, drawn by the pair's id.

    A draw takes as long in a pool of millions as in one of ten. In a small one it may end with fewer: after DRAWS tries a negative.
    """
    positives = _positives(rows)
    found = []
    for row in rows:
        own = frozenset((row["doc_id"], row["group"]))
        own_texts = _own_texts(row, positives[normalise(row["query"])])
        drawn: dict[int, None] = {}
        for attempt in range(DRAWS * settings.negatives):
            number = int.from_bytes(draw(row["pair_id"], str(attempt))) % len(pool.texts)
            if not pool.keys[number] & own and normalise(pool.texts[number]) not in own_texts:
                drawn.setdefault(number)
            if len(drawn) == settings.negatives:
                break
        texts = [pool.texts[number] for number in drawn]
        found.append(_with_supplied(settings, row, texts, [math.nan] * len(texts), [-1] * len(texts), math.nan, -1, []))
    return found


def _positives(rows: Sequence[dict]) -> dict[str, set[str]]:
    """All positives of each query: a text that answers it in one row is no negative in another."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(normalise(row["query"]), set()).add(row["positive"])
    return found


def _own_texts(row: dict, positives: set[str]) -> frozenset[str]:
    return frozenset((normalise(row["query"]), *(normalise(text) for text in positives)))


def _with_supplied(
    settings: Mining, row: dict, texts: list[str], scores: list[float], ranks: list[int], score: float, rank: int, skipped: list[dict]
) -> dict:
    """Supplied negatives come first and count; mined ones fill up to the number wanted."""
    supplied = list(row["negatives"] or [])[: settings.negatives]
    keep = [number for number, text in enumerate(texts) if text not in supplied][: settings.negatives - len(supplied)]
    return {
        **{name: row[name] for name in PAIR.names},
        "negatives": supplied + [texts[number] for number in keep],
        "positive_score": score,
        "negative_scores": [math.nan] * len(supplied) + [scores[number] for number in keep],
        "negative_ranks": [-1] * len(supplied) + [ranks[number] for number in keep],
        "positive_rank": rank,
        "skipped": skipped,
    }
