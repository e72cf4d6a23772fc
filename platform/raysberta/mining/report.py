"""What the manifest of examples says, counted from what was written."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.mining.facts import FalseNegatives, Histogram
from raysberta.mining.miner import Judge
from raysberta.mining.output import Output
from raysberta.mining.select import keys


def count(output: Output, negatives: int) -> dict[str, Any]:
    """The fields of ExamplesFacts that follow from the rows alone.

    Args:
        output: What was written.
        negatives: How many a pair gets at most.
    """
    table = output.counted()
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
    return {
        "examples": dict(sorted(Counter(keys(table).to_pylist()).items())),
        "negatives": int(pc.sum(table["count"]).as_py() or 0),
        "examples_with_fewer_negatives": int(pc.sum(pc.less(table["count"], negatives)).as_py() or 0),
        "topped_up": int(pc.sum(table["topped_up"]).as_py() or 0),
        "promoted": output.promoted,
        "suspects": output.suspects,
        "negatives_above_the_positive": int((margin < 0).sum()),
        "looked_at": int(pc.sum(table["looked_at"]).as_py() or 0),
        "skipped": dict(sorted(skipped.items())),
        "histograms": {
            "positive_score": histogram(positive[np.isfinite(positive)]),
            "negative_score": histogram(negative[np.isfinite(negative)]),
            "negative_rank": histogram(ranks[ranks >= 0].astype(np.float64)),
            "margin": histogram(margin[np.isfinite(margin)]),
        },
    }


def false_negatives(output: Output, judge: Judge, seed: int, sample: int) -> FalseNegatives:
    """The share of mined negatives that a cross-encoder scores at least as high as the positive; examples drawn by hash of their id.

    Args:
        output: What was written, with the scores of the mining encoder: what it did not score it did not mine.
        judge: The cross-encoder.
        seed: Of the recipe.
        sample: How many examples are drawn.
    """
    ids = output.counted()["pair_id"].to_pylist()
    drawn = sorted(ids, key=lambda name: hashlib.blake2b(f"{seed} {name}".encode()).digest())[:sample]
    wanted = pa.array(drawn, pa.string())
    table = pa.concat_tables(part.filter(pc.is_in(part["pair_id"], wanted)) for part in output.examples())
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
    return FalseNegatives(share=round(share, 5), negatives=len(rows), examples=table.num_rows)


def histogram(values: np.ndarray, bins: int = 30) -> Histogram:
    """Bin edges [bins + 1] and counts [bins]; empty lists where there is nothing."""
    if len(values) == 0:
        return Histogram(edges=[], counts=[])
    counts, edges = np.histogram(values, bins=bins)
    return Histogram(edges=[round(float(edge), 5) for edge in edges], counts=[int(count) for count in counts])
