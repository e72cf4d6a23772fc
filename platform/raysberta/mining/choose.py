"""Which of the candidates become hard negatives: the rank window, what is never a negative, and the draw.

The window is cut from the ranking that still holds the positive (FlagEmbedding's slicing, RECIPE.md 1.4), exclusions come after.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from raysberta.recipe import Mining


@dataclass(frozen=True)
class Pool:
    """The candidates: distinct texts with what they belong to."""

    texts: Sequence[str]
    keys: Sequence[frozenset[str]]
    """For each text, the doc_ids and groups of all pairs that it is the positive of."""
    vectors: np.ndarray
    """float32 [n, d], L2-normalised."""


@dataclass
class Chosen:
    """The negatives of one query, best rank first, and why others were passed over."""

    rows: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Count a candidate of the window that may not be a negative."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


def window(settings: Mining, size: int) -> tuple[int, int]:
    """The rank window in a pool of `size` texts: as the recipe says, moved up where the pool ends before it."""
    last = min(settings.rank_to, size)
    return min(settings.rank_from, last // 2), last


def choose(
    settings: Mining,
    pool: Pool,
    pair_id: str,
    own: frozenset[str],
    own_texts: frozenset[str],
    positive: np.ndarray,
    positive_score: float,
    scores: np.ndarray,
    rows: np.ndarray,
) -> Chosen:
    """Choose up to `settings.negatives` of the ranked candidates of one query.

    Args:
        settings: Window, limits and sampling.
        pool: The candidates.
        pair_id: Seeds the draw, so it does not depend on batch, worker or order.
        own: doc_id and group of the pair; candidates that share one are not negatives.
        own_texts: Query and all its positives, normalised; candidates with the same text are not negatives.
        positive: Vector of the positive, float32 [d].
        positive_score: Its cosine to the query; the lowest of them where the query has several positives.
        scores: Cosines of the ranked candidates, float32 [k], falling.
        rows: Their rows in the pool, int64 [k].
    """
    chosen = Chosen()
    first, last = window(settings, len(pool.texts))
    allowed: list[int] = []
    ceiling = (
        None if settings.max_share_of_positive is None else positive_score - abs(positive_score) * (1 - settings.max_share_of_positive)
    )
    for rank in range(first, min(last, len(rows))):
        row = int(rows[rank])
        if normalise(pool.texts[row]) in own_texts:
            chosen.skip("own_text")
        elif pool.keys[row] & own:
            chosen.skip("same_document")
        elif ceiling is not None and scores[rank] > ceiling:
            chosen.skip("too_close_to_query")
        elif settings.max_similarity_to_positive is not None and float(pool.vectors[row] @ positive) > settings.max_similarity_to_positive:
            chosen.skip("like_the_positive")
        else:
            allowed.append(rank)
    if settings.sampling == "random":
        allowed.sort(key=lambda rank: draw(pair_id, pool.texts[int(rows[rank])]))
    for rank in sorted(allowed[: settings.negatives]):
        chosen.rows.append(int(rows[rank]))
        chosen.scores.append(float(scores[rank]))
        chosen.ranks.append(rank)
    return chosen


def draw(pair_id: str, text: str) -> bytes:
    """A number for a candidate that depends on pair and text alone: the smallest are drawn."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=pair_id.encode()[:64]).digest()


def normalise(text: str) -> str:
    """What makes two texts the same for mining: case and blanks aside."""
    return " ".join(text.casefold().split())
