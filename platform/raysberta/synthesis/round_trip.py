"""The consistency filter of E5 and nomic-embed: a pair stays when its own passage is among the best of a large pool for its query.

Wang et al. 2022, "Text Embeddings by Weakly-Supervised Contrastive Pre-training", and Nussbaum et al. 2024, "Nomic Embed".
"""

import numpy as np

SLICE_SCORES = 1 << 24
"""Scores held at once: 64 MiB."""


def ranks(queries: np.ndarray, pool: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How many texts of the pool score higher for each query than its own passage.

    The pool must hold each text once: a copy of the passage would count as a rival only by rounding, yet a near copy does.

    Args:
        queries: float32 [q, d], normalised.
        pool: float32 [n, d], normalised; the queries' own passages among them.
        own: int [q], the row of each query's passage in the pool.

    Returns:
        int32 [q]; 0 where nothing scores higher.
    """
    found = np.zeros(len(queries), np.int32)
    step = max(1, SLICE_SCORES // max(1, len(pool)))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        scores = queries[rows] @ pool.T
        mine = np.take_along_axis(scores, own[rows, None], axis=1)
        found[rows] = (scores > mine).sum(axis=1)
    return found
