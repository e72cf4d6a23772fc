"""Pairs against one another: copies, and training pairs that have a text of held-out ones; then which of the good ones a limit leaves.

Nothing here is drawn: a pair's id is a hash, so the first ids are a random sample, the same in every run.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.pairs.filter import HELD_OUT, OF_TRAINING, PAIR_OF_TEXTS
from raysberta.schema import PAIR, REJECTED_PAIR, text_id
from raysberta.storage.runs import numbers

VERDICTS = pa.schema([("pair", pa.uint64()), ("copy", pa.bool_())])
"""Ids of pairs that go: copies of a pair with a lower id where `copy`, otherwise those that share a text with a held-out pair."""
OPEN = pa.schema([("pair", pa.uint64()), ("kind", pa.int32())])
"""Training pairs that nothing speaks against by themselves, with the number of their source and kind."""
REPEATED = pa.schema([("id", pa.uint64()), ("name", pa.string())])
"""Pairs that repeat an item of an evaluation set, and the item."""

UNLIKE = pa.schema([("pair", pa.uint64()), ("cosine", pa.float32())])
"""Pairs whose sides an encoder finds unlike, and how much."""


def compare(keys: pa.Table) -> pa.Table:
    """What speaks against pairs within a range of keys, schema VERDICTS.

    Args:
        keys: Schema KEYS, all of a range, in any order; a pair may stand there several times.
    """
    high, low, pair, role = (keys[name].to_numpy() for name in ("high", "low", "pair", "role"))
    order = np.lexsort((pair, low, high))
    high, low, pair, role = high[order], low[order], pair[order], role[order]
    starts = np.flatnonzero(np.r_[True, (high[1:] != high[:-1]) | (low[1:] != low[:-1])]) if len(pair) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[starts, len(pair)])
    first = np.repeat(pair[starts], sizes)
    copies = np.unique(pair[(role == PAIR_OF_TEXTS) & (pair != first)])
    held_out = np.add.reduceat(role == HELD_OUT, starts, dtype=np.int64) > 0 if len(pair) else np.empty(0, bool)
    leaks = np.unique(pair[(role == OF_TRAINING) & np.repeat(held_out, sizes)])
    return pa.table([np.r_[copies, leaks], np.r_[np.ones(len(copies), bool), np.zeros(len(leaks), bool)]], VERDICTS)


def good_pairs(open_pairs: pa.Table, verdicts: pa.Table, repeated: pa.Table, unlike: pa.Table, kinds: int) -> np.ndarray:
    """Training pairs of a range of ids that only a limit can drop, by number of source and kind, int64 [kinds].

    Args:
        open_pairs: Schema OPEN.
        verdicts: Schema VERDICTS.
        repeated: Schema REPEATED.
        unlike: Schema UNLIKE.
        kinds: How many numbers there are.
    """
    ids, rows = np.unique(open_pairs["pair"].to_numpy(), return_index=True)
    gone = np.isin(ids, np.r_[verdicts["pair"].to_numpy(), repeated["id"].to_numpy(), unlike["pair"].to_numpy()])
    return np.bincount(open_pairs["kind"].to_numpy()[rows[~gone]], minlength=kinds)


@dataclass(frozen=True)
class Settled:
    """What becomes of the pairs of a range of ids."""

    kept: pa.Table
    """Schema PAIR, sorted by pair_id."""
    rejected: pa.Table
    """Schema REJECTED_PAIR, sorted by pair_id; pairs over a limit are counted only: they are good, and may be millions."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> rows, `over_limit` included."""


def settle(pairs: pa.Table, verdicts: pa.Table, repeated: pa.Table, unlike: pa.Table, room: Mapping[str, int]) -> Settled:
    """Keep what nothing speaks against.

    Further reasons: `unlike` (score: the cosine), `duplicate` (of a pair with a lower id, or of another row of its own id; either of
    training or of held-out data; of an unlike one too, whose texts are the same),
    `in_evaluation` (a training pair one of whose texts a dev or test pair or an evaluation set has).

    Args:
        pairs: Schema REJECTED_PAIR, all of a range of ids, in any order.
        verdicts: Schema VERDICTS, of that range.
        repeated: Schema REPEATED, of that range.
        unlike: Schema UNLIKE, of that range.
        room: How many training pairs of this range are kept, by `source/kind`; all where nothing is said.
    """
    ids = numbers(pairs["pair_id"])
    order = _order(pairs, ids)
    pairs, ids = pairs.take(order), ids[order]
    copy = verdicts["copy"].to_numpy()
    copies, leaks = verdicts["pair"].to_numpy()[copy], np.r_[verdicts["pair"].to_numpy()[~copy], repeated["id"].to_numpy()]
    reasons = np.array(pairs["reason"].to_pylist(), dtype=object)
    training = pc.equal(pairs["split"], "train").to_numpy()
    again = np.r_[False, ids[1:] == ids[:-1]] if len(ids) else np.empty(0, bool)
    scores = np.array(pairs["score"].to_pylist(), dtype=object)
    cosine = dict(zip(unlike["pair"].to_pylist(), unlike["cosine"].to_pylist(), strict=True))
    odd = (reasons == "") & np.isin(ids, unlike["pair"].to_numpy())
    reasons[odd], scores[odd] = "unlike", [cosine[number] for number in ids[odd].tolist()]
    reasons[(reasons == "") & (again | np.isin(ids, copies))] = "duplicate"
    reasons[(reasons == "") & training & np.isin(ids, leaks)] = "in_evaluation"
    over = _over(pairs, training & (reasons == ""), room)
    dropped = Counter(reason for reason in reasons.tolist() if reason)
    if over.any():
        dropped["over_limit"] = int(over.sum())
    rejected = pairs.set_column(pairs.schema.get_field_index("reason"), "reason", pa.array(reasons, pa.string()))
    rejected = rejected.set_column(rejected.schema.get_field_index("score"), "score", pa.array(scores, pa.float64()))
    return Settled(
        kept=pairs.filter(pa.array((reasons == "") & ~over)).select(PAIR.names).cast(PAIR),
        rejected=rejected.filter(pa.array(reasons != "")).cast(REJECTED_PAIR),
        dropped=dropped,
    )


def _order(pairs: pa.Table, ids: np.ndarray) -> np.ndarray:
    """Rows by id; those of one id by all that is in them, so that it is always the same one that stays."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    for start, end in _repeats(ordered):
        rows = order[start:end]
        content = [text_id(str(sorted(row.items()))) for row in pairs.take(rows).to_pylist()]
        order[start:end] = rows[np.argsort(np.array(content))]
    return order


def _repeats(ordered: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of each stretch of equal ids."""
    same = np.r_[False, ordered[1:] == ordered[:-1], False] if len(ordered) else np.zeros(1, bool)
    begins = np.flatnonzero(~same[:-1] & same[1:])
    ends = np.flatnonzero(same[:-1] & ~same[1:]) + 1
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def _over(pairs: pa.Table, good: np.ndarray, room: Mapping[str, int]) -> np.ndarray:
    """Good training pairs beyond the room of their source and kind, bool [rows]; rows stand in order of their id."""
    over = np.zeros(len(good), dtype=bool)
    if not room:
        return over
    names = np.array([f"{source}/{kind}" for source, kind in zip(pairs["source"].to_pylist(), pairs["kind"].to_pylist(), strict=True)])
    for name, most in room.items():
        over[np.flatnonzero(good & (names == name))[most:]] = True
    return over
