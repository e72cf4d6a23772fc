"""What the manifest of examples says: counted by whoever writes a range of them, added up, and read from the scores that were written."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.mining.facts import Histogram

SCORES = ["positive_score", "negative_scores", "negative_ranks"]
NUMBERS = ("negatives", "examples_with_fewer_negatives", "topped_up", "promoted", "looked_at", "suspects")
"""The fields of ExamplesFacts that are counted row by row."""
BINS = 30

Judge = Callable[[list[str], list[str]], np.ndarray]
"""A cross-encoder: queries and texts, as many, to scores float32; higher is more relevant."""


@dataclass
class Counts:
    """Of some examples."""

    examples: Counter[str] = field(default_factory=Counter)
    """By `source/kind`."""
    numbers: Counter[str] = field(default_factory=Counter)
    """By NUMBERS."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Candidates that may not be negatives, by reason."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Pairs left out, by reason."""

    def count(self, name: str, mined: pa.Table, negatives: int) -> None:
        """Take up rows of MINED.

        Args:
            name: `source/kind`.
            mined: The rows.
            negatives: How many a pair gets at most.
        """
        lengths = pc.list_value_length(mined["negatives"])
        self.examples[name] += len(mined)
        self.numbers.update(
            negatives=_sum(lengths),
            examples_with_fewer_negatives=_sum(pc.less(lengths, negatives)),
            topped_up=_sum(mined["topped_up"]),
            promoted=_sum(mined["promoted"]),
            looked_at=_sum(mined["looked_at"]),
            suspects=_sum(suspect(mined)),
        )
        for entry in pc.list_flatten(mined["skipped"]).to_pylist():
            self.skipped[entry["reason"]] += entry["count"]

    def add(self, other: "Counts") -> None:
        """Take up those of other examples."""
        for mine, theirs in zip(self._counters(), other._counters(), strict=True):
            mine.update(theirs)

    def _counters(self) -> list[Counter[str]]:
        return [self.examples, self.numbers, self.skipped, self.dropped]


def _sum(values: pa.ChunkedArray) -> int:
    return pc.sum(values).as_py() or 0


def suspect(mined: pa.Table) -> pa.ChunkedArray:
    """Which rows of MINED have a positive that stands below the window of its own query."""
    return pc.and_(pc.equal(mined["positive_rank"], -1), pc.is_finite(mined["positive_score"]))


def histograms(tables: Callable[[], Iterator[pa.Table]]) -> tuple[dict[str, Histogram], int]:
    """Histograms of scores, ranks and margins, and how many examples have a negative above their positive.

    Args:
        tables: Gives the columns SCORES of all examples, some rows at a time; it is asked twice, first for where the bins end.
    """
    ends: dict[str, tuple[float, float]] = {}
    above = 0
    for table in tables():
        for name, values in _values(table).items():
            if len(values):
                low, high = ends.get(name, (np.inf, -np.inf))
                ends[name] = min(low, float(values.min())), max(high, float(values.max()))
        above += int((_margins(table) < 0).sum())
    edges = {name: np.histogram_bin_edges(np.array(pair), BINS) for name, pair in ends.items()}
    counts = {name: np.zeros(BINS, np.int64) for name in edges}
    for table in tables():
        for name, values in _values(table).items():
            if name in edges:
                counts[name] += np.histogram(values, edges[name])[0]
    names = ("positive_score", "negative_score", "negative_rank", "margin")
    return {name: _histogram(edges.get(name), counts.get(name)) for name in names}, above


def _values(table: pa.Table) -> dict[str, np.ndarray]:
    """What is drawn of rows with the columns SCORES, float64."""
    positive, margin = table["positive_score"].to_numpy().astype(np.float64), _margins(table)
    negative = pc.list_flatten(table["negative_scores"]).to_numpy().astype(np.float64)
    ranks = pc.list_flatten(table["negative_ranks"]).to_numpy()
    return {
        "positive_score": positive[np.isfinite(positive)],
        "negative_score": negative[np.isfinite(negative)],
        "negative_rank": ranks[ranks >= 0].astype(np.float64),
        "margin": margin[np.isfinite(margin)],
    }


def _margins(table: pa.Table) -> np.ndarray:
    """How far each positive is above its hardest negative; infinite where none has a score."""
    scores = table["negative_scores"].combine_chunks()
    negative = pc.list_flatten(scores).to_numpy()
    hardest = np.full(len(table), -np.inf, np.float32)
    np.maximum.at(hardest, pc.list_parent_indices(scores).to_numpy(), np.where(np.isfinite(negative), negative, -np.inf))
    return (table["positive_score"].to_numpy() - hardest).astype(np.float64)


def _histogram(edges: np.ndarray | None, counts: np.ndarray | None) -> Histogram:
    if edges is None or counts is None:
        return Histogram(edges=[], counts=[])
    return Histogram(edges=[round(float(edge), 5) for edge in edges], counts=counts.tolist())


def drawn(ids: Sequence[str], seed: int) -> np.ndarray:
    """A number of each example by which the sample of the estimate is drawn: the least ones; uint64."""
    return np.fromiter(
        (int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big") for name in ids), np.uint64
    )


def false_negatives(examples: pa.Table, judge: Judge) -> tuple[int, int]:
    """How many mined negatives a cross-encoder scores at least as high as the positive, and how many there are.

    Args:
        examples: Rows of EXAMPLE with the scores of the mining encoder: what it did not score it did not mine.
        judge: The cross-encoder.
    """
    rows = [
        (row["query"], row["positive"], text)
        for row in examples.to_pylist()
        for text, score in zip(row["negatives"], row["negative_scores"], strict=True)
        if np.isfinite(score)
    ]
    queries = [query for query, _, _ in rows]
    of_positive = judge(queries, [positive for _, positive, _ in rows])
    of_negative = judge(queries, [text for _, _, text in rows])
    return int((of_negative >= of_positive).sum()), len(rows)
