"""Intervals by bootstrap: how much a score would move with other queries, pairs or texts of the same kind. Pure numpy.

A draw resamples the items of a task with replacement (Efron 1979), and is held as how often each item is in it. So whatever is computed
from the same seed and number of items is resampled together: the difference of two models' draws is the *paired* bootstrap of their
difference (Koehn 2004), which leaves out how hard the items are that both were asked.

A score whose value leans to one side on a resample (average precision, V-measure: repeated items agree with themselves) would have an
interval that leans as well, so draws are moved until their mean is the score itself before their percentiles are taken.
"""

from collections.abc import Iterator

import numpy as np

DRAWS = 1000
LEVEL = 0.95
CELLS = 4_000_000
"""Counts held at once: a task of more than 4,000 items is resampled some draws at a time."""

Interval = tuple[float, float]


def counts(items: int, seed: int, draws: int = DRAWS) -> Iterator[np.ndarray]:
    """How often each item is in each draw, int32 [some draws, items], blocks of draws in their order; each draw has `items` in all.

    Args:
        items: How many there are; at least 1.
        seed: The same seed and number of items give the same draws.
        draws: How many.
    """
    generator = np.random.default_rng(seed)
    block = max(1, CELLS // items)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        chosen = generator.integers(items, size=(size, items)) + items * np.arange(size)[:, None]
        yield np.bincount(chosen.ravel(), minlength=size * items).reshape(size, items).astype(np.int32)


def means(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Mean of the items of each draw.

    Args:
        values: float64 [items].
        drawn: [draws, items], how often each item is in each draw.

    Returns:
        float64 [draws].
    """
    return drawn @ values / drawn.sum(1)


def average_precisions(alike: np.ndarray, labels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Average precision of the items of each draw, as sklearn.metrics.average_precision_score has it: items that score alike are one step.

    Args:
        alike: float64 [items], higher for items that should have label 1.
        labels: int [items], 0 or 1.
        drawn: [draws, items].

    Returns:
        float64 [draws]; 0 for a draw without an item of label 1.
    """
    order = np.argsort(-alike, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(alike[order]) != 0, True))
    ranked = drawn[:, order]
    found = np.cumsum(ranked * labels[order], axis=1)[:, ends].astype(np.float64)
    taken = np.cumsum(ranked, axis=1)[:, ends]
    total = found[:, -1]
    gained = np.diff(found, axis=1, prepend=0.0)
    precision = found / np.maximum(taken, 1)
    return (gained * precision).sum(1) / np.maximum(total, 1)


def v_measures(labels: np.ndarray, clusters: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """V-measure of the items of each draw (Rosenberg and Hirschberg 2007), 2 I / (H(label) + H(cluster)).

    Args:
        labels: int [items], what they are.
        clusters: int [items], where they were put.
        drawn: [draws, items]; a weight of 0 leaves an item out.

    Returns:
        float64 [draws]; 1 where all items are of one label and in one cluster.
    """
    total = drawn.sum(1).astype(np.float64)
    cells = np.unique(np.stack([labels, clusters]), axis=1, return_inverse=True)[1].ravel()
    of_labels, of_clusters, of_both = (_entropies(_summed(drawn, each), total) for each in (labels, clusters, cells))
    shared, apart = of_labels + of_clusters - of_both, of_labels + of_clusters
    return np.where(apart > 0, 2 * np.maximum(shared, 0) / np.where(apart > 0, apart, 1), 1.0)


def _summed(drawn: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Counts of each group, [draws, groups]."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(groups[order]) != 0))
    return np.add.reduceat(drawn[:, order], starts, axis=1)


def _entropies(sizes: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Entropy of each draw's groups, in nats."""
    shares = sizes / total[:, None]
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1)


def interval(score: float, draws: np.ndarray, level: float = LEVEL) -> Interval:
    """Where a score, or a difference of two, lies.

    Args:
        score: Of the items themselves.
        draws: float64 [draws], the score of each draw, or the difference of two models' scores of the same draw.
        level: Share of the draws between the ends.
    """
    if np.ptp(draws) == 0:  # as where two models do alike on every item: no rounding may make a change of it
        return score, score
    moved = draws - (draws.mean() - score)
    low, high = np.quantile(moved, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
