"""Pairs to examples: rank the pool of their source, choose, put the supplied negatives first; a few hundred queries at a time."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from raysberta.mining.choose import ALLOWED, Chosen, choose, draw, normalise, verdicts
from raysberta.mining.pool import Lookup, Pool, Texts
from raysberta.mining.settings import Mining
from raysberta.retrieval.vectors import Matrix, View, steps, undirected
from raysberta.schema import EXAMPLE, PAIR, text_id

MINED = pa.schema(
    [
        *EXAMPLE,
        ("positive_rank", pa.int32()),  # -1 below the window
        ("topped_up", pa.int32()),
        ("promoted", pa.bool_()),  # its positive was a candidate
        ("looked_at", pa.int32()),
        ("skipped", pa.list_(pa.struct([("reason", pa.string()), ("count", pa.int32())]))),
    ]
)
"""An example with what the report counts."""

DRAWS = 50
"""Tries for each random negative before the row has to do with fewer."""
NONE = np.zeros(0, np.int64)
IN_HAND = 256
"""Queries chosen for at once: their candidates' vectors are 30 MiB at 80 ranks and 384 dimensions."""
MOST_OWN = 1000
"""Greatest number of further ranks searched for the texts that sentence-transformers' slicing does not count."""

Judge = Callable[[list[str], list[str]], np.ndarray]
"""A cross-encoder: queries and texts, as many, to scores float32; higher is more relevant."""


def mine(
    settings: Mining,
    negatives: int,
    pool: Pool,
    pairs: pa.Table,
    queries: Matrix,
    ranked: Iterable[tuple[int, int, np.ndarray, np.ndarray]],
    dropped: Counter[str],
    judge: Judge | None = None,
) -> Iterator[pa.Table]:
    """Tables of MINED for rows of PAIR that share one pool, in the same order; what a query gains follows its first row.

    Args:
        settings: Window, limits and sampling.
        negatives: How many a pair gets at most, supplied ones counted.
        pool: The candidates.
        pairs: Rows of PAIR of one source and kind, each `usable`; in order of their ids, for that says which is first.
        queries: Vectors of their queries, [len(pairs), d], L2-normalised.
        ranked: First query, the one after the last, scores float32 [q, k] and rows of the pool int64 [q, k] of `depth` candidates.
        dropped: Takes up how many rows were left out, by reason.
        judge: Scores for the limits, where the settings want a cross-encoder's.
    """
    miner = _Miner(settings, negatives, pool, Positives(pool.candidates, pairs), judge)
    for start, _, scores, rows in ranked:
        for low, high in steps(len(scores), IN_HAND):
            some = pairs.slice(start + low, high - low).to_pylist()
            vectors = np.asarray(queries[start + low : start + high], np.float32)
            found = miner.mine(some, vectors, scores[low:high], rows[low:high])
            if settings.too_few == "drop":
                kept = [row for row in found if len(row["negatives"]) >= negatives]
                dropped["too_few_negatives"] += sum(not row["promoted"] for row in found) - sum(not row["promoted"] for row in kept)
                found = kept
            yield pa.Table.from_pylist(found, schema=MINED)


def depth(settings: Mining, candidates: Texts) -> int:
    """How many ranks a search must give: to the end of the window; where ranks count only what is not barred, a query's own texts further.

    What limits bar is not made up for, as in sentence-transformers: a limit that bars much leaves less to choose from, not easier texts.
    """
    if settings.slicing == "flag_embedding":
        return settings.ranks[1]
    return settings.ranks[1] + min(MOST_OWN, candidates.same_document.most() + candidates.same_words.most())


def sample(negatives: int, candidates: Texts, pairs: pa.Table, dropped: Counter[str]) -> Iterator[pa.Table]:
    """The same without a search: supplied negatives, then random texts of the pool, drawn by the pair's id.

    A draw takes as long in a pool of millions as in one of ten. In a small one it may end with fewer: after DRAWS tries a negative.
    """
    pairs = _with_positive(candidates, pairs, dropped)
    positives = Positives(candidates, pairs)
    for start, stop in steps(len(pairs), IN_HAND):
        found = []
        for row in pairs.slice(start, stop - start).to_pylist():
            barred = _barred(candidates, row, positives.of(row["query"]))
            forbidden = np.concatenate(list(barred.values()))
            drawn: list[int] = []
            for number in _draws(row["pair_id"], len(candidates.texts), DRAWS * negatives):
                if number not in drawn and number not in forbidden:
                    drawn.append(number)
                if len(drawn) == negatives:
                    break
            chosen = Chosen(drawn, [math.nan] * len(drawn), [-1] * len(drawn))
            found.append(_with_supplied(negatives, candidates, row, chosen, 0, math.nan, -1))
        yield pa.Table.from_pylist(found, schema=MINED)


class Positives:
    """All positives of each query: a text that answers it in one row is no negative in another."""

    def __init__(self, candidates: Texts, pairs: pa.Table) -> None:
        rows = np.fromiter((candidates.row(text.as_py()) for text in pairs["positive"]), np.int64, len(pairs))
        self._of = Lookup((normalise(query.as_py()) for query in pairs["query"]), rows)

    def of(self, query: str) -> np.ndarray:
        """Rows of the pool, distinct, rising."""
        return np.unique(self._of[normalise(query)])

    def pairs(self, query: str) -> int:
        """How many pairs have the query."""
        return len(self._of[normalise(query)])


def usable(pool: Pool, pairs: pa.Table, queries: Matrix, dropped: Counter[str]) -> tuple[pa.Table, Matrix]:
    """The pairs that can be mined for, with their queries' vectors: both sides point somewhere, and the positive is in the pool."""
    without = np.zeros(len(pairs), bool)
    without[undirected(queries)] = True
    rows = np.fromiter((pool.candidates.row(text.as_py()) for text in pairs["positive"]), np.int64, len(pairs))
    absent = rows < 0
    without |= np.isin(rows, pool.bad)
    dropped["positive_not_in_pool"] += int(absent.sum())
    dropped["vector_is_none"] += int((without & ~absent).sum())
    keep = np.flatnonzero(~(without | absent))
    return (pairs, queries) if len(keep) == len(pairs) else (pairs.take(pa.array(keep)), View(queries, keep))


def _with_positive(candidates: Texts, pairs: pa.Table, dropped: Counter[str]) -> pa.Table:
    there = np.fromiter((candidates.row(text.as_py()) >= 0 for text in pairs["positive"]), bool, len(pairs))
    dropped["positive_not_in_pool"] += int((~there).sum())
    return pairs.filter(pa.array(there))


def _barred(candidates: Texts, row: dict, positives: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of the pool that are no negatives of a pair: its query, every positive of that, and what shares its document or group."""
    same = [candidates.same_words[normalise(text)] for text in (row["query"], *(candidates.texts[at] for at in positives.tolist()))]
    document = np.concatenate([candidates.same_document[row["doc_id"]], candidates.same_document[row["group"]]])
    return {"own_text": np.concatenate(same), "same_document": document}


@dataclass(frozen=True)
class _Ranked:
    """A query with its ranked candidates."""

    query: np.ndarray
    """Its vector, float32 [d]."""
    scores: np.ndarray
    """Cosines of the candidates, float32 [k]."""
    rows: np.ndarray
    """Their rows in the pool, int64 [k]."""
    judged: np.ndarray | None
    """A cross-encoder's scores of them, float32 [k]; -inf where it was not asked."""
    barred: dict[str, np.ndarray]
    """By reason, rows of the pool that are no negatives."""
    answers: np.ndarray
    """Rows of the pool: its positives, gained ones last."""
    answering: np.ndarray
    """Their vectors, float32 [p, d]."""
    cosines: np.ndarray
    """Their cosines to the query, float32 [p]."""
    likeness: np.ndarray | None
    """Greatest cosine of each candidate to a positive, float32 [k]; None where no setting asks."""
    lowest: float
    """The least score of the positives that were given, on the scale of the limits."""
    highest: float
    """The greatest."""


@dataclass(frozen=True)
class _Miner:
    """What is the same for all pairs of a pool."""

    settings: Mining
    negatives: int
    pool: Pool
    positives: Positives
    judge: Judge | None
    gained: dict[str, np.ndarray] = field(default_factory=dict)
    """Rows of the pool that became positives of a query with its first pair; of queries that several pairs have, by their words."""

    def mine(self, pairs: list[dict], queries: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> list[dict]:
        """Rows of MINED for some queries and their ranked candidates."""
        candidates = self.pool.candidates
        answers = [self.positives.of(row["query"]) for row in pairs]
        barred = [{"vector_is_none": self.pool.bad, **_barred(candidates, row, found)} for row, found in zip(pairs, answers, strict=True)]
        judged: np.ndarray | None = None
        limits: np.ndarray | None = None
        further = [NONE] * len(pairs)
        if self.judge is not None:
            judged, limits = self._judged(self.judge, pairs, answers, rows, barred)
            if self.settings.promoted:
                for number, row in enumerate(pairs):
                    gained, further[number] = self._gained(row, judged[number], rows[number], float(limits[1, number]), barred[number])
                    answers[number] = np.concatenate([answers[number], gained])
        found = []
        ranked = self._ranked(queries, scores, rows, judged, limits, barred, answers)
        for row, more, asked in zip(pairs, further, ranked, strict=True):
            found.append(self._example(row, asked))
            for text in (candidates.texts[int(at)] for at in more):
                gaining = {**row, "pair_id": text_id("promoted", row["pair_id"], text), "positive": text}
                found.append({**self._example(gaining, asked), "promoted": True})
        return found

    def _gained(
        self, row: dict, judged: np.ndarray, rows: np.ndarray, highest: float, barred: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the pool that the query gains as positives, and those of them that become examples beside this pair: its first one's.

        Candidates that score as high as every positive are barred, whether or not they are among the best that become positives.
        """
        candidates = self.pool.candidates
        order = np.argsort(-judged, kind="stable")
        relevant = rows[order[judged[order] >= highest]]
        words: dict[str, int] = {}
        for at in relevant.tolist():
            words.setdefault(normalise(candidates.texts[at]), at)
        query, fresh = normalise(row["query"]), NONE
        gained = self.gained.get(query)
        if gained is None:
            gained = fresh = np.array(list(words.values())[: self.settings.promoted], np.int64)
            if self.positives.pairs(row["query"]) > 1:
                self.gained[query] = gained
        same = [candidates.same_words[normalise(candidates.texts[at])] for at in (*words.values(), *gained)]
        barred["judged_relevant"] = np.concatenate([NONE, *same])
        return gained, fresh

    def _ranked(
        self,
        queries: np.ndarray,
        scores: np.ndarray,
        rows: np.ndarray,
        judged: np.ndarray | None,
        limits: np.ndarray | None,
        barred: list[dict[str, np.ndarray]],
        answers: list[np.ndarray],
    ) -> Iterator[_Ranked]:
        """Each query with what its examples are chosen from; vectors are read for all at once."""
        owners, flat = _flat(answers)
        answering = np.asarray(self.pool.vectors[flat], np.float32)
        cosines = np.einsum("nd,nd->n", answering, queries[owners])
        lowest, highest = _extremes(cosines, owners) if limits is None else limits
        likeness = _likeness(self.pool, rows, owners, answering) if self.settings.max_similarity_to_positive is not None else None
        for number, given in enumerate(answers):
            own = owners == number
            yield _Ranked(
                queries[number],
                scores[number],
                rows[number],
                None if judged is None else judged[number],
                barred[number],
                given,
                answering[own],
                cosines[own],
                None if likeness is None else likeness[number],
                float(lowest[number]),
                float(highest[number]),
            )

    def _example(self, row: dict, asked: _Ranked) -> dict:
        """A row of MINED for a pair of the query."""
        settings, pool, candidates = self.settings, self.pool, self.pool.candidates
        own = candidates.row(row["positive"])
        languages = None
        if pool.languages is not None:
            languages = (pool.languages[asked.rows], str(pool.languages[own]))
        scores = asked.scores if asked.judged is None else asked.judged
        reasons = verdicts(settings, scores, asked.rows, asked.barred, asked.lowest, asked.likeness, languages)
        row = {**row, "negatives": self._supplied(row, asked)}
        chosen = choose(settings, self.negatives, candidates.texts, row["pair_id"], asked.scores, asked.rows, reasons, asked.judged)
        topped = 0
        if settings.too_few == "top_up" and len(chosen.rows) + len(row["negatives"]) < self.negatives:
            topped = self._top_up(row, own, asked, chosen)
        at = np.flatnonzero(asked.rows == own)
        score = float(asked.cosines[asked.answers == own][0])
        return _with_supplied(self.negatives, candidates, row, chosen, topped, score, int(at[0]) if len(at) else -1)

    def _supplied(self, row: dict, asked: _Ranked) -> list[str]:
        """The negatives that a pair brings, but for what was judged relevant."""
        texts = self.pool.candidates.texts
        relevant = {normalise(texts[at]) for at in asked.barred.get("judged_relevant", NONE)}
        return [text for text in row["negatives"] or () if not relevant or normalise(text) not in relevant]

    def _judged(
        self, judge: Judge, pairs: list[dict], answers: list[np.ndarray], rows: np.ndarray, barred: list[dict[str, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A cross-encoder's scores of the candidates that nothing but a limit could bar [q, k]; of positives least and greatest [2, q]."""
        texts = self.pool.candidates.texts
        owners, flat = _flat(answers)
        asked = np.stack(
            [~np.isin(row, np.concatenate(list(forbidden.values()))) & (row >= 0) for row, forbidden in zip(rows, barred, strict=True)]
        )
        if self.settings.slicing == "flag_embedding":
            asked[:, : min(self.settings.ranks[0], len(texts) // 2)] = False
        which, column = np.nonzero(asked)
        queries = [pairs[number]["query"] for number in (*which, *owners)]
        answer = judge(queries, [texts[row] for row in (*rows[which, column], *flat)])
        judged = np.full(rows.shape, -np.inf, np.float32)
        judged[which, column] = answer[: len(which)]
        return judged, _extremes(answer[len(which) :], owners)

    def _top_up(self, row: dict, own: int, asked: _Ranked, chosen: Chosen) -> int:
        """Add texts of the pool that no rule bars, drawn by the pair's id, below the ranks looked at or wherever; their rank is -1."""
        pool, barred = self.pool, asked.barred
        wanted = self.negatives - len(row["negatives"]) - len(chosen.rows)
        drawn = dict.fromkeys(_draws(row["pair_id"], len(pool.candidates.texts), DRAWS * wanted))
        rows = np.array([number for number in drawn if number not in chosen.rows], np.int64)
        vectors = np.asarray(pool.vectors[rows], np.float32)
        scores = judged = vectors @ asked.query
        if self.judge is not None:
            judged = self.judge([row["query"]] * len(rows), [pool.candidates.texts[number] for number in rows])
            if self.settings.promoted:
                barred = {**barred, "judged_relevant": np.concatenate([barred["judged_relevant"], rows[judged >= asked.highest]])}
        languages = None if pool.languages is None else (pool.languages[rows], str(pool.languages[own]))
        reasons = verdicts(self.settings, judged, rows, barred, asked.lowest, (vectors @ asked.answering.T).max(axis=1), languages)
        taken = np.flatnonzero(reasons == ALLOWED)[:wanted]
        chosen.rows += rows[taken].tolist()
        chosen.scores += scores[taken].tolist()
        chosen.ranks += [-1] * len(taken)
        return len(taken)


def _flat(answers: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The number of each query as often as it has positives, and these: int64 [p] both."""
    return np.repeat(np.arange(len(answers)), [len(found) for found in answers]), np.concatenate(answers)


def _extremes(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """The least and the greatest score of each query's positives, [2, q]."""
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    return np.stack([np.minimum.reduceat(scores, begins), np.maximum.reduceat(scores, begins)])


def _likeness(pool: Pool, rows: np.ndarray, owners: np.ndarray, answering: np.ndarray) -> np.ndarray:
    """The greatest cosine of every candidate to a positive of its query, [q, k]."""
    distinct, where = np.unique(rows, return_inverse=True)
    vectors = np.asarray(pool.vectors[np.maximum(distinct, 0)], np.float32)
    found = np.empty(rows.shape, np.float32)
    for number, at in enumerate(where.reshape(rows.shape)):
        found[number] = (vectors[at] @ answering[owners == number].T).max(axis=1)
    return found


def _draws(pair_id: str, size: int, count: int) -> Iterator[int]:
    """Row numbers that the pair's id decides; some come twice."""
    for attempt in range(count):
        yield int.from_bytes(draw(pair_id, str(attempt))) % size


def _with_supplied(negatives: int, candidates: Texts, row: dict, chosen: Chosen, topped_up: int, score: float, rank: int) -> dict:
    """Supplied negatives come first and count; mined ones fill up to the number wanted."""
    supplied = list(row["negatives"] or [])[:negatives]
    texts = [candidates.texts[number] for number in chosen.rows]
    keep = [number for number, text in enumerate(texts) if text not in supplied][: negatives - len(supplied)]
    return {
        **{name: row[name] for name in PAIR.names},
        "negatives": supplied + [texts[number] for number in keep],
        "positive_score": score,
        "negative_scores": [math.nan] * len(supplied) + [chosen.scores[number] for number in keep],
        "negative_ranks": [-1] * len(supplied) + [chosen.ranks[number] for number in keep],
        "positive_rank": rank,
        "topped_up": topped_up,
        "promoted": False,
        "looked_at": chosen.looked_at,
        "skipped": [{"reason": reason, "count": count} for reason, count in sorted(chosen.skipped.items())],
    }
