"""Pairs to examples: rank the pool of their source, choose, put the supplied negatives first; a few hundred queries at a time."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from raysberta.mining.choose import ALLOWED, Chosen, choose, verdicts, window
from raysberta.mining.ids import draw, id_of, normalise, words_of
from raysberta.mining.passages import Looked, Pool
from raysberta.mining.positives import NONE, Positives, barred_of
from raysberta.mining.report import Judge
from raysberta.mining.settings import Mining
from raysberta.retrieval.vectors import Matrix, is_direction, steps
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
IN_HAND = 256
"""Queries chosen for at once: their candidates' vectors are 30 MiB at 80 ranks and 384 dimensions."""
MOST_OWN = 1000
"""Greatest number of further ranks searched for the texts that sentence-transformers' slicing does not count."""


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
        pairs: Rows of PAIR of one source and kind, each `usable`, all of a query among them; in order of their ids, for that says which is
            first.
        queries: Vectors of their queries, [len(pairs), d], L2-normalised.
        ranked: First query, the one after the last, scores float32 [q, k] and rows of the pool int64 [q, k] of `depth` candidates.
        dropped: Takes up how many rows were left out, by reason.
        judge: Scores for the limits, where the settings want a cross-encoder's.
    """
    miner = _Miner(settings, negatives, pool, Positives(pool, pairs), judge)
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


def depth(settings: Mining, pool: Pool) -> int:
    """How many ranks a search must give: to the end of the window; where ranks count only what is not barred, a query's own texts further.

    What limits bar is not made up for, as in sentence-transformers: a limit that bars much leaves less to choose from, not easier texts.
    """
    if settings.slicing == "flag_embedding":
        return settings.ranks[1]
    return settings.ranks[1] + min(MOST_OWN, pool.most_alike())


def sample(negatives: int, pool: Pool, pairs: pa.Table, dropped: Counter[str]) -> Iterator[pa.Table]:
    """The same without a search: supplied negatives, then random texts of the pool, drawn by the pair's id.

    A draw takes as long in a pool of millions as in one of ten. In a small one it may end with fewer: after DRAWS tries a negative.
    """
    there = pool.rows(pairs["positive"].to_pylist()) >= 0
    dropped["positive_not_in_pool"] += int((~there).sum())
    pairs = pairs.filter(pa.array(there))
    positives = Positives(pool, pairs)
    for start, stop in steps(len(pairs), IN_HAND):
        some = pairs.slice(start, stop - start).to_pylist()
        drawn = _drawn(negatives, 2, pool, some, positives)
        short = [number for number, found in enumerate(drawn) if len(found) < negatives]
        for number, found in zip(short, _drawn(negatives, DRAWS, pool, [some[number] for number in short], positives), strict=True):
            drawn[number] = found
        chosen = [_Found(row, Chosen(rows, [math.nan] * len(rows), [-1] * len(rows))) for row, rows in zip(some, drawn, strict=True)]
        yield pa.Table.from_pylist(_with_supplied(negatives, pool, chosen), schema=MINED)


def _drawn(negatives: int, tries: int, pool: Pool, pairs: list[dict], positives: Positives) -> list[list[int]]:
    """For each pair the first so many rows, of `tries` draws for each wanted, that nothing bars."""
    draws = [_draws(row["pair_id"], len(pool), tries * negatives) for row in pairs]
    looked = pool.look(np.concatenate([NONE, *draws]))
    found = []
    for row, numbers in zip(pairs, draws, strict=True):
        barred = set(np.concatenate(list(barred_of(looked, row, positives.words(row["query"])).values())).tolist())
        found.append([number for number in dict.fromkeys(numbers.tolist()) if number not in barred][:negatives])
    return found


@dataclass(frozen=True)
class _Found:
    """What was chosen for a pair."""

    row: dict
    """Of PAIR, with the negatives that it brings."""
    chosen: Chosen
    topped_up: int = 0
    score: float = math.nan
    """Of the positive."""
    rank: int = -1
    """Of the positive; -1 below the window."""
    promoted: bool = False


@dataclass(frozen=True)
class _Ranked:
    """A query with its ranked candidates."""

    query: np.ndarray
    """Its vector, float32 [d]."""
    scores: np.ndarray
    """Cosines of the candidates, float32 [k]."""
    rows: np.ndarray
    """Their rows in the pool, int64 [k]; -1 where there is none."""
    ids: np.ndarray
    """Of their texts, uint64 [k]."""
    languages: np.ndarray
    """Str [k]."""
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
        answers = [self.positives.of(row["query"]) for row in pairs]
        looked = self.pool.look(np.concatenate([rows.reshape(-1), *answers]))
        none = self._none(scores, rows)
        barred = [{"vector_is_none": none, **barred_of(looked, row, self.positives.words(row["query"]))} for row in pairs]
        judged: np.ndarray | None = None
        limits: np.ndarray | None = None
        further = [NONE] * len(pairs)
        if self.judge is not None:
            judged, limits = self._judged(self.judge, pairs, answers, rows, barred)
            if self.settings.promoted:
                for number, row in enumerate(pairs):
                    gained, further[number] = self._gained(
                        row, judged[number], rows[number], float(limits[1, number]), barred[number], looked
                    )
                    answers[number] = np.concatenate([answers[number], gained])
        found = []
        own = self.pool.rows([row["positive"] for row in pairs]).tolist()
        ranked = self._ranked(queries, scores, rows, judged, limits, barred, answers, looked)
        for row, at, more, asked in zip(pairs, own, further, ranked, strict=True):
            found.append(self._example(row, at, asked))
            for became, text in zip(more.tolist(), self.pool.texts(more), strict=True):
                name = text_id("promoted", row["pair_id"], text)
                gaining = {**row, "pair_id": name, "positive": text, "given_score": None}
                found.append(replace(self._example(gaining, became, asked), promoted=True))
        return _with_supplied(self.negatives, self.pool, found)

    def _none(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The rows whose vector is none: it is stored as zeros, so its score is 0 for every query."""
        asked = np.unique(rows[(scores == 0) & (rows >= 0)])
        return asked[~is_direction(np.asarray(self.pool.vectors[asked], np.float32))]

    def _gained(
        self, row: dict, judged: np.ndarray, rows: np.ndarray, highest: float, barred: dict[str, np.ndarray], looked: Looked
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the pool that the query gains as positives, and those of them that become examples beside this pair: its first one's.

        Candidates that score as high as every positive are barred, whether or not they are among the best that become positives.
        """
        order = np.argsort(-judged, kind="stable")
        relevant = rows[order[judged[order] >= highest]]
        words: dict[str, int] = {}
        for at, text in zip(relevant.tolist(), self.pool.texts(relevant), strict=True):
            words.setdefault(normalise(text), at)
        query, fresh = normalise(row["query"]), NONE
        gained = self.gained.get(query)
        if gained is None:
            gained = fresh = np.array(list(words.values())[: self.settings.promoted], np.int64)
            if self.positives.pairs(row["query"]) > 1:
                self.gained[query] = gained
        earlier = [normalise(text) for text in self.pool.texts(gained)]
        same = [looked.same_words[id_of(text)] for text in (*words, *earlier)]
        barred["judged_relevant"] = np.concatenate([NONE, gained, *same])
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
        looked: Looked,
    ) -> Iterator[_Ranked]:
        """Each query with what its examples are chosen from; vectors are read for all at once."""
        owners, flat = _flat(answers)
        answering = np.asarray(self.pool.vectors[flat], np.float32)
        cosines = np.einsum("nd,nd->n", answering, queries[owners])
        lowest, highest = _extremes(cosines, owners) if limits is None else limits
        likeness = _likeness(self.pool, rows, owners, answering) if self.settings.max_similarity_to_positive is not None else None
        there = np.maximum(rows, looked.rows[0])  # what is not there is barred before it is asked for
        for number, given in enumerate(answers):
            own = owners == number
            yield _Ranked(
                queries[number],
                scores[number],
                rows[number],
                looked.of(looked.ids, there[number]),
                looked.of(looked.languages, there[number]),
                None if judged is None else judged[number],
                barred[number],
                given,
                answering[own],
                cosines[own],
                None if likeness is None else likeness[number],
                float(lowest[number]),
                float(highest[number]),
            )

    def _example(self, row: dict, own: int, asked: _Ranked) -> _Found:
        """What is chosen for a pair of the query, whose positive is row `own` of the pool."""
        settings, pool = self.settings, self.pool
        spoken = str(pool.look(np.array([own])).languages[0]) if settings.language != "any" else ""
        scores = asked.scores if asked.judged is None else asked.judged
        languages = (asked.languages, spoken) if settings.language != "any" else None
        reasons = verdicts(settings, scores, asked.rows, asked.barred, asked.lowest, asked.likeness, languages)
        row = {**row, "negatives": self._supplied(row, asked)}
        chosen = choose(settings, self.negatives, len(pool), row["pair_id"], asked.scores, asked.rows, asked.ids, reasons, asked.judged)
        topped = 0
        if settings.too_few == "top_up" and len(chosen.rows) + len(row["negatives"]) < self.negatives:
            topped = self._top_up(row, spoken, asked, chosen)
        at = np.flatnonzero(asked.rows == own)
        score = float(asked.cosines[asked.answers == own][0])
        return _Found(row, chosen, topped, score, int(at[0]) if len(at) else -1)

    def _supplied(self, row: dict, asked: _Ranked) -> list[str]:
        """The negatives that a pair brings, but for what was judged relevant."""
        relevant = {normalise(text) for text in self.pool.texts(asked.barred.get("judged_relevant", NONE))}
        return [text for text in row["negatives"] or () if not relevant or normalise(text) not in relevant]

    def _judged(
        self, judge: Judge, pairs: list[dict], answers: list[np.ndarray], rows: np.ndarray, barred: list[dict[str, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A cross-encoder's scores of the candidates that nothing but a limit could bar [q, k]; of positives least and greatest [2, q]."""
        owners, flat = _flat(answers)
        asked = np.stack(
            [~np.isin(row, np.concatenate(list(forbidden.values()))) & (row >= 0) for row, forbidden in zip(rows, barred, strict=True)]
        )
        if self.settings.slicing == "flag_embedding":
            asked[:, : window(self.settings, len(self.pool))[0]] = False
        which, column = np.nonzero(asked)
        queries = [pairs[number]["query"] for number in (*which, *owners)]
        answer = judge(queries, self.pool.texts(np.concatenate([rows[which, column], flat])))
        judged = np.full(rows.shape, -np.inf, np.float32)
        judged[which, column] = answer[: len(which)]
        return judged, _extremes(answer[len(which) :], owners)

    def _top_up(self, row: dict, spoken: str, asked: _Ranked, chosen: Chosen) -> int:
        """Add texts of the pool that no rule bars, drawn by the pair's id, below the ranks looked at or wherever; their rank is -1."""
        pool = self.pool
        wanted = self.negatives - len(row["negatives"]) - len(chosen.rows)
        drawn = dict.fromkeys(_draws(row["pair_id"], len(pool), DRAWS * wanted).tolist())
        rows = np.array([number for number in drawn if number not in chosen.rows], np.int64)
        vectors = np.asarray(pool.vectors[rows], np.float32)
        looked = pool.look(rows)
        barred = {"vector_is_none": rows[~is_direction(vectors)], **barred_of(looked, row, self.positives.words(row["query"]))}
        scores = judged = vectors @ asked.query
        if self.judge is not None:
            judged = self.judge([row["query"]] * len(rows), pool.texts(rows))
            if self.settings.promoted:
                relevant = words_of(pool.texts(asked.barred["judged_relevant"]))
                same = [looked.same_words[int(each)] for each in relevant]
                barred["judged_relevant"] = np.concatenate([NONE, *same, rows[judged >= asked.highest]])
        languages = (looked.of(looked.languages, rows), spoken) if self.settings.language != "any" else None
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


def _draws(pair_id: str, size: int, count: int) -> np.ndarray:
    """Rows that the pair's id decides, int64 [count]; some come twice."""
    if not size:
        return NONE
    return (draw(id_of(pair_id), np.arange(count, dtype=np.uint64)) % np.uint64(size)).astype(np.int64)


def _with_supplied(negatives: int, pool: Pool, every: list[_Found]) -> list[dict]:
    """Rows of MINED: supplied negatives come first and count, mined ones fill up to the number wanted."""
    rows = np.concatenate([NONE, *(np.array(found.chosen.rows, np.int64) for found in every)])
    texts = iter(pool.texts(rows))
    return [_row(negatives, found, [next(texts) for _ in found.chosen.rows]) for found in every]


def _row(negatives: int, found: _Found, texts: list[str]) -> dict:
    chosen = found.chosen
    supplied = list(found.row["negatives"] or [])[:negatives]
    keep = [number for number, text in enumerate(texts) if text not in supplied][: negatives - len(supplied)]
    return {
        **{name: found.row[name] for name in PAIR.names},
        "negatives": supplied + [texts[number] for number in keep],
        "positive_score": found.score,
        "negative_scores": [math.nan] * len(supplied) + [chosen.scores[number] for number in keep],
        "negative_ranks": [-1] * len(supplied) + [chosen.ranks[number] for number in keep],
        "positive_rank": found.rank,
        "topped_up": found.topped_up,
        "promoted": found.promoted,
        "looked_at": chosen.looked_at,
        "skipped": [{"reason": reason, "count": count} for reason, count in sorted(chosen.skipped.items())],
    }
