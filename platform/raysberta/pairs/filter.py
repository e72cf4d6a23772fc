"""Which pairs stay: one pass over all pairs of a run, so copies and what the held-out halves hold are seen across sources.

Nothing here is drawn: a pair's id is a hash, so the first ids are a random sample, the same in every run.
"""

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.pairs.settings import Pairs
from raysberta.pairs.text import normalise
from raysberta.schema import PAIR, REJECTED_PAIR

CountTokens = Callable[[Sequence[str]], np.ndarray]
"""Texts to their lengths in tokens, int [n]."""


@dataclass
class Filtered:
    """What came of it."""

    kept: pa.Table
    """Schema PAIR, sorted by pair_id."""
    rejected: pa.Table
    """Schema REJECTED_PAIR, sorted by pair_id; pairs over a limit are counted only: they are good, and may be millions."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> rows, `over_limit` included."""


def filter_pairs(
    pairs: pa.Table,
    settings: Pairs,
    count_tokens: CountTokens | None = None,
    repeated: Container[str] = frozenset(),
    limits: Mapping[str, int] = MappingProxyType({}),
) -> Filtered:
    """Reject what cannot teach or would leak, then keep each source and kind within its limit.

    Reasons, the first that holds: `too_short`, `query_equals_positive`, `too_long` (score: tokens), `duplicate` (of a pair with a
    lower id, either of training or of held-out data), `in_evaluation` (a training pair one of whose texts a dev or test pair or an
    evaluation set has).

    Args:
        pairs: Schema PAIR, in any order.
        settings: Which stay.
        count_tokens: Needed where `settings.max_tokens` is set.
        repeated: The pair_ids whose texts an evaluation set has.
        limits: What data sets themselves are limited to, keyed `source/kind`; the smaller of it and the settings' limit holds.
    """
    pairs = pairs.sort_by("pair_id")
    queries = [normalise(text) for text in pairs["query"].to_pylist()]
    positives = [normalise(text) for text in pairs["positive"].to_pylist()]
    training = pc.equal(pairs["split"], "train").to_pylist()
    reasons, scores = _alone(pairs, queries, positives, settings, count_tokens)
    _mark_duplicates(queries, positives, training, reasons)
    _mark_leaks(queries, positives, training, reasons)
    for number, pair_id in enumerate(pairs["pair_id"].to_pylist()):
        if training[number] and not reasons[number] and pair_id in repeated:
            reasons[number] = "in_evaluation"
    over = _over_limit(pairs, training, reasons, settings, limits)
    dropped = Counter(reason for reason in reasons if reason)
    if over.any():
        dropped["over_limit"] = int(over.sum())
    bad = np.array([bool(reason) for reason in reasons], dtype=bool)
    rejected = pairs.append_column("reason", pa.array(reasons, pa.string())).append_column("score", pa.array(scores, pa.float64()))
    return Filtered(
        kept=pairs.filter(pa.array(~bad & ~over)).cast(PAIR),
        rejected=rejected.filter(pa.array(bad)).cast(REJECTED_PAIR),
        dropped=dict(dropped),
    )


def _alone(
    pairs: pa.Table, queries: list[str], positives: list[str], settings: Pairs, count_tokens: CountTokens | None
) -> tuple[list[str], list[float | None]]:
    """What can be said of a pair by itself."""
    reasons = [""] * len(queries)
    scores: list[float | None] = [None] * len(queries)
    longest = np.zeros(len(queries), dtype=np.int64)
    if settings.max_tokens is not None and count_tokens is not None:
        longest = np.maximum(count_tokens(pairs["query"].to_pylist()), count_tokens(pairs["positive"].to_pylist()))
    for number, (query, positive) in enumerate(zip(queries, positives, strict=True)):
        if min(len(query), len(positive)) < settings.min_characters:
            reasons[number] = "too_short"
        elif query == positive:
            reasons[number] = "query_equals_positive"
        elif settings.max_tokens is not None and longest[number] > settings.max_tokens:
            reasons[number], scores[number] = "too_long", float(longest[number])
    return reasons, scores


def _mark_duplicates(queries: list[str], positives: list[str], training: list[bool], reasons: list[str]) -> None:
    seen: set[tuple[bool, str, str]] = set()
    for number, key in enumerate(zip(training, queries, positives, strict=True)):
        if not reasons[number]:
            if key in seen:
                reasons[number] = "duplicate"
            seen.add(key)


def _mark_leaks(queries: list[str], positives: list[str], training: list[bool], reasons: list[str]) -> None:
    held_out: set[str] = set()
    for number, train in enumerate(training):
        if not train and not reasons[number]:
            held_out.update((queries[number], positives[number]))
    for number, train in enumerate(training):
        if train and not reasons[number] and (queries[number] in held_out or positives[number] in held_out):
            reasons[number] = "in_evaluation"


def _over_limit(pairs: pa.Table, training: list[bool], reasons: list[str], settings: Pairs, limits: Mapping[str, int]) -> np.ndarray:
    """Good training pairs beyond the limit of their source and kind; pairs stand in order of their id."""
    over = np.zeros(len(reasons), dtype=bool)
    counts: Counter[str] = Counter()
    names = zip(pairs["source"].to_pylist(), pairs["kind"].to_pylist(), strict=True)
    for number, (source, kind) in enumerate(names):
        if training[number] and not reasons[number]:
            key = f"{source}/{kind}"
            asked = (settings.limits.get(key, settings.per_source), limits.get(key))
            over[number] = any(limit is not None and counts[key] >= limit for limit in asked)
            counts[key] += not over[number]
    return over
