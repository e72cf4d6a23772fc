"""Which of the candidates become hard negatives: the rank window, what is never a negative, and the draw.

Two readings of a rank window are in use, and they differ. FlagEmbedding's `hn_mine.py` cuts the window from the ranking that still holds
the positive, and bars texts afterwards; sentence-transformers' `mine_hard_negatives` bars first and counts ranks over what is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from raysberta.mining.ids import draw, id_of
from raysberta.mining.settings import Mining

ALLOWED = 0
REASONS = (
    "",
    "nothing_found",
    "vector_is_none",
    "own_text",
    "same_document",
    "language",
    "too_close_to_query",
    "within_the_margin",
    "score_too_high",
    "score_too_low",
    "like_the_positive",
    "judged_relevant",
)
"""Why a candidate may not be a negative, by number; the first that holds counts."""


@dataclass
class Chosen:
    """The negatives of one query, best rank first, and why others were passed over."""

    rows: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    looked_at: int = 0
    """Candidates of the window."""

    def skip(self, reasons: np.ndarray) -> None:
        """Count candidates that may not be negatives, by reason."""
        for reason, count in enumerate(np.bincount(reasons).tolist()):
            if reason != ALLOWED and count:
                self.skipped[REASONS[reason]] = count


def window(settings: Mining, size: int) -> tuple[int, int]:
    """The rank window in a pool of `size` texts: as the settings say; where the pool is smaller, no more than half of it is left out."""
    first, last = settings.ranks
    return (first, last) if last <= size else (min(first, size // 2), size)


def verdicts(
    settings: Mining,
    scores: np.ndarray,
    rows: np.ndarray,
    barred: Mapping[str, np.ndarray],
    positive_score: float,
    likeness: np.ndarray | None = None,
    languages: tuple[np.ndarray, str] | None = None,
) -> np.ndarray:
    """For each candidate why it may not be a negative, as a number of REASONS; 0 where it may. int8 [k].

    Args:
        settings: The limits. A share is taken of the positive's absolute value, p - |p| (1 - share), so that it lowers a negative score
            too, as sentence-transformers' `relative_margin` does.
        scores: What limits read, float [k]: cosines to the query, or a cross-encoder's scores.
        rows: Rows of the candidates in the pool, int64 [k]; -1 where there is none.
        barred: By reason, the rows of the pool that are no negatives of this query.
        positive_score: Of the positive on the same scale; the lowest of them where the query has several.
        likeness: Greatest cosine of each candidate to a positive of the query, float [k]; read where the settings limit it.
        languages: Of the candidates, str [k], and of the positive; read where the settings ask for one.
    """
    found = np.zeros(len(rows), np.int8)

    def bar(mask: np.ndarray, reason: str) -> None:
        found[mask & (found == ALLOWED)] = REASONS.index(reason)

    bar(rows < 0, "nothing_found")
    for reason, forbidden in barred.items():
        if len(forbidden):
            bar(np.isin(rows, forbidden), reason)
    if languages is not None and settings.language != "any":
        of_candidate, of_positive = languages
        bar((of_candidate == of_positive) != (settings.language == "same"), "language")
    if settings.max_share_of_positive is not None:
        bar(scores > positive_score - abs(positive_score) * (1 - settings.max_share_of_positive), "too_close_to_query")
    if settings.margin_to_positive is not None:
        bar(scores > positive_score - settings.margin_to_positive, "within_the_margin")
    if settings.max_score is not None:
        bar(scores > settings.max_score, "score_too_high")
    if settings.min_score is not None:
        bar(scores < settings.min_score, "score_too_low")
    if likeness is not None and settings.max_similarity_to_positive is not None:
        bar(likeness > settings.max_similarity_to_positive, "like_the_positive")
    return found


def choose(
    settings: Mining,
    negatives: int,
    size: int,
    pair_id: str,
    scores: np.ndarray,
    rows: np.ndarray,
    ids: np.ndarray,
    reasons: np.ndarray,
    judged: np.ndarray | None = None,
) -> Chosen:
    """Choose up to so many of the ranked candidates of one query.

    Args:
        settings: Window, slicing and sampling.
        negatives: How many at most.
        size: Passages in the pool.
        pair_id: Seeds the draw, so it does not depend on batch, worker or order.
        scores: Cosines of the ranked candidates, float32 [k], falling.
        rows: Their rows in the pool, int64 [k].
        ids: Their ids, uint64 [k]: the draw depends on pair and text alone.
        reasons: The verdict on each, int8 [k].
        judged: A cross-encoder's scores, float [k]: `sampling: top` takes the best of these.
    """
    chosen = Chosen()
    first, last = window(settings, size)
    if settings.slicing == "flag_embedding":
        ranks = np.arange(first, min(last, len(rows)))
        chosen.skip(reasons[ranks])
        chosen.looked_at = len(ranks)
        allowed = ranked = ranks[reasons[ranks] == ALLOWED]
    else:
        free = np.flatnonzero(reasons == ALLOWED)[:last]
        end = int(free[-1]) + 1 if len(free) == last else len(rows)
        chosen.skip(reasons[:end])
        chosen.looked_at = end
        allowed, ranked = free[first:], np.arange(first, len(free))
    if settings.sampling == "random":
        order = list(np.argsort(draw(id_of(pair_id), ids[allowed]), kind="stable"))
    elif judged is not None:
        order = list(np.argsort(-judged[allowed], kind="stable"))
    else:
        order = list(range(len(allowed)))
    for place in sorted(order[:negatives]):
        at = int(allowed[place])
        chosen.rows.append(int(rows[at]))
        chosen.scores.append(float(scores[at]))
        chosen.ranks.append(int(ranked[place]))
    return chosen
