"""What can be said of a pair by itself, and the keys by which all pairs are compared."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from raysberta.corpus.length import surely_within
from raysberta.pairs.settings import Pairs
from raysberta.pairs.text import normalise
from raysberta.schema import REJECTED_PAIR, SELF_PAIR
from raysberta.storage.runs import numbers

CountTokens = Callable[[Sequence[str]], np.ndarray]
"""Texts to their lengths in tokens, int [n]."""
KEYS = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("pair", pa.uint64()), ("role", pa.uint8())])
"""128 bits of hash of a text or of both texts of a pair, as they count as the same; the pair's id; what was hashed."""
PAIR_OF_TEXTS, OF_TRAINING, HELD_OUT = range(3)
"""Roles: both texts, with whether they are for training; a text of a training pair; a text of another pair."""


def judge(pairs: pa.Table, rules: Pairs, count_tokens: CountTokens | None = None) -> tuple[pa.Table, pa.Table]:
    """Look at each pair by itself.

    Reasons, the first that holds: `too_short`, `query_equals_positive` (but of the kind that is meant so), `too_long` (score: tokens).

    Args:
        pairs: Schema PAIR.
        rules: Which stay.
        count_tokens: Needed where `rules.max_tokens` is set.

    Returns:
        The same rows with schema REJECTED_PAIR, `reason` empty where nothing speaks against a pair; and three KEYS of each such pair.
    """
    queries = [normalise(text) for text in pairs["query"].to_pylist()]
    positives = [normalise(text) for text in pairs["positive"].to_pylist()]
    reasons = [""] * len(queries)
    scores: list[float | None] = [None] * len(queries)
    longest = np.zeros(len(queries), dtype=np.int64)
    if rules.max_tokens is not None and count_tokens is not None:
        longest = np.maximum(*(_counts(pairs[side].to_pylist(), rules.max_tokens, count_tokens) for side in ("query", "positive")))
    for number, (query, positive, kind) in enumerate(zip(queries, positives, pairs["kind"].to_pylist(), strict=True)):
        if min(len(query), len(positive)) < rules.min_characters:
            reasons[number] = "too_short"
        elif query == positive and kind != SELF_PAIR:
            reasons[number] = "query_equals_positive"
        elif rules.max_tokens is not None and longest[number] > rules.max_tokens:
            reasons[number], scores[number] = "too_long", float(longest[number])
    judged = pairs.append_column("reason", pa.array(reasons, pa.string())).append_column("score", pa.array(scores, pa.float64()))
    good = [number for number, reason in enumerate(reasons) if not reason]
    training = pc.equal(pairs["split"], "train").to_numpy()[good]
    keys = _keys([queries[number] for number in good], [positives[number] for number in good], training, numbers(pairs["pair_id"])[good])
    return judged.cast(REJECTED_PAIR), keys


def _counts(texts: Sequence[str], most: int, count_tokens: CountTokens) -> np.ndarray:
    """Tokens of each text, 0 of one that surely has no more than `most`."""
    counts = np.zeros(len(texts), dtype=np.int64)
    unsure = [row for row, text in enumerate(texts) if not surely_within(text, most)]
    counts[unsure] = count_tokens([texts[row] for row in unsure])
    return counts


def _keys(queries: Sequence[str], positives: Sequence[str], training: np.ndarray, ids: np.ndarray) -> pa.Table:
    both = [
        _hash(f"{len(query)} {query}{positive}", 2 if train else 1)
        for query, positive, train in zip(queries, positives, training.tolist(), strict=True)
    ]
    hashes = np.frombuffer(b"".join([*both, *map(_hash, queries), *map(_hash, positives)]), ">u8").reshape(-1, 2).astype(np.uint64)
    role = np.where(training, OF_TRAINING, HELD_OUT).astype(np.uint8)
    roles = np.concatenate([np.full(len(ids), PAIR_OF_TEXTS, np.uint8), role, role])
    return pa.table([hashes[:, 0], hashes[:, 1], np.tile(ids, 3), roles], KEYS)


def _hash(text: str, seed: int = 0) -> bytes:
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass"), seed)
