"""Rows of pairs to rows of examples on planted vectors, without Ray, and against a brute-force reading of the whole."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from raysberta.mining.choose import draw, normalise
from raysberta.mining.miner import Judge, depth, mine, sample, usable
from raysberta.mining.pool import Pool, make_texts
from raysberta.mining.settings import Mining
from raysberta.retrieval.search import Slices
from raysberta.retrieval.workers import Plan, Ranking
from raysberta.schema import PAIR


def row(number: int, query: str, positive: str, **values: object) -> dict:
    base = {"pair_id": f"{number:016x}", "doc_id": f"d{number}", "group": f"g{number}", "split": "train", "source": "s", "kind": "k"}
    return {**base, "task": "retrieval", "language": "ru", "query": query, "positive": positive, "negatives": [], **values}


def ruled(**given: object) -> Mining:
    return Mining.model_validate({"by": "miner", **given})


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=PAIR)


def planted(rows: list[dict]) -> tuple[Pool, np.ndarray]:
    """Every text of the pool a little further from the queries than the one before it, in order of its first letter."""
    candidates = make_texts(table(rows))
    angles = np.empty(len(candidates.texts))
    angles[np.argsort(candidates.texts)] = np.linspace(0.0, 1.2, len(candidates.texts))
    queries = np.tile(np.array([1.0, 0.0], np.float32), (len(rows), 1))
    return Pool(candidates, np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)), queries


def mined(
    settings: Mining,
    negatives: int,
    pool: Pool,
    rows: list[dict],
    queries: np.ndarray,
    dropped: Counter[str] | None = None,
    judge: Judge | None = None,
    slices: Slices | None = None,
) -> list[dict]:
    dropped = Counter() if dropped is None else dropped
    pairs, asked = usable(pool, table(rows), queries, dropped)
    ranking = Ranking(pool.vectors, asked, depth(settings, pool.candidates), Plan())
    ranking.slices = slices or ranking.slices
    return [item for part in mine(settings, negatives, pool, pairs, asked, ranking, dropped, judge) for item in part.to_pylist()]


ROWS = [
    row(0, "Отмена", "a cancel"),
    row(1, "отмена ", "b abort"),
    *(row(number, f"слово {number}", f"{chr(97 + number)} word") for number in range(2, 12)),
]
WHOLE = {"ranks": (0, 12), "sampling": "top"}
MANY = 12


def test_another_positive_of_the_query_is_no_negative() -> None:
    pool, queries = planted(ROWS)
    first, second, third = mined(ruled(**WHOLE), MANY, pool, ROWS, queries)[:3]
    assert "b abort" not in first["negatives"]
    assert "a cancel" not in second["negatives"]
    assert {"a cancel", "b abort"} <= set(third["negatives"])
    assert len(first["negatives"]) == 10


def test_what_the_source_ties_together_and_copies_of_the_positive_are_no_negatives() -> None:
    rows = [row(0, "вопрос", "a answer", group="one"), row(1, "иное", "b other", group="one"), row(2, "третье", "A  Answer!"), *ROWS[3:9]]
    pool, queries = planted(rows)
    first = mined(ruled(**WHOLE), MANY, pool, rows, queries)[0]
    assert set(first["negatives"]) == {item["positive"] for item in rows[3:]}
    assert first["skipped"] == [{"reason": "own_text", "count": 2}, {"reason": "same_document", "count": 1}]


def test_the_share_is_of_the_lowest_positive() -> None:
    rows = [row(0, "вопрос", "a near"), row(1, "вопрос", "l far"), *ROWS[3:11]]
    pool, queries = planted(rows)
    found = mined(ruled(**{**WHOLE, "max_share_of_positive": 1.0}), MANY, pool, rows, queries)
    assert found[0]["negatives"] == []
    assert math.isclose(found[0]["positive_score"], 1.0, abs_tol=1e-6)
    assert found[1]["negatives"] == []


def test_a_planted_paraphrase_of_any_positive_is_passed_over() -> None:
    rows = [row(0, "вопрос", "a near"), row(1, "вопрос", "l far"), *ROWS[2:11]]
    pool, queries = planted(rows)
    at = {text: number for number, text in enumerate(pool.candidates.texts)}
    pool.vectors[at["c word"]] = pool.vectors[at["l far"]] + np.float32([0.01, 0])  # type: ignore[index]
    pool.vectors[at["c word"]] /= np.linalg.norm(pool.vectors[at["c word"]])  # type: ignore[index]
    careless = mined(ruled(**WHOLE), MANY, pool, rows, queries)[0]
    careful = mined(ruled(**WHOLE, max_similarity_to_positive=0.999), MANY, pool, rows, queries)[0]
    assert "c word" in careless["negatives"]
    assert "c word" not in careful["negatives"]
    assert {"reason": "like_the_positive", "count": 1} in careful["skipped"]


def test_random_texts_are_distinct_drawn_by_the_pair_and_never_its_own() -> None:
    pool, _ = planted(ROWS)

    def drawn(rows: list[dict], size: int | None = None) -> list[dict]:
        candidates = pool.candidates if size is None else make_texts(table(ROWS[:size]))
        return [item for part in sample(5, candidates, table(rows), Counter()) for item in part.to_pylist()]

    found = drawn(ROWS)
    assert all(len(set(item["negatives"])) == 5 for item in found)
    assert not {"a cancel", "b abort"} & {*found[0]["negatives"], *found[1]["negatives"]}
    assert len({tuple(item["negatives"]) for item in found}) > 6
    assert [item["negatives"] for item in drawn(ROWS[::-1])] == [item["negatives"] for item in found[::-1]]
    assert drawn(ROWS[:2], 3)[0]["negatives"] == ["c word"]


def test_supplied_negatives_come_first_and_count() -> None:
    rows = [row(0, "вопрос", "a answer", negatives=["дано один", "дано два"]), *ROWS[2:]]
    pool, queries = planted(rows)
    first = mined(ruled(ranks=(1, 9)), 4, pool, rows, queries)[0]
    assert first["negatives"][:2] == ["дано один", "дано два"]
    assert len(first["negatives"]) == 4
    assert first["negative_ranks"][:2] == [-1, -1]
    assert all(rank >= 1 for rank in first["negative_ranks"][2:])


@pytest.mark.parametrize("policy", ["keep", "top_up", "drop"])
def test_too_few_negatives_are_kept_topped_up_or_dropped(policy: str) -> None:
    pool, queries = planted(ROWS)
    dropped: Counter[str] = Counter()
    settings = ruled(ranks=(1, 4), max_share_of_positive=0.99, too_few=policy)
    found = mined(settings, 4, pool, ROWS, queries, dropped)
    if policy == "drop":
        assert [item["pair_id"] for item in found] == []
        assert dropped["too_few_negatives"] == len(ROWS)
        return
    assert len(found) == len(ROWS)
    for item in found:
        ceiling = item["positive_score"] * 0.99
        assert all(score <= ceiling for score in item["negative_scores"])
        assert item["positive"] not in item["negatives"]
        assert item["topped_up"] == (0 if policy == "keep" else sum(rank == -1 for rank in item["negative_ranks"]))
    assert len(found[0]["negatives"]) == (2 if policy == "keep" else 4)
    assert sum(item["topped_up"] for item in found) > 0 or policy == "keep"
    if policy == "top_up":
        again = mined(settings, 4, pool, ROWS[::-1], queries)
        assert [item["negatives"] for item in again[::-1]] == [item["negatives"] for item in found]


def test_what_cannot_be_mined_is_left_out_and_counted() -> None:
    pool, queries = planted(ROWS)
    at = {text: number for number, text in enumerate(pool.candidates.texts)}
    pool.vectors[at["e word"]] = 0.0  # type: ignore[index]
    pool = Pool(pool.candidates, pool.vectors, np.array([at["e word"]]))
    queries = queries.copy()
    queries[3] = np.nan
    dropped: Counter[str] = Counter()
    found = mined(ruled(**{**WHOLE, "ranks": (0, 13)}), MANY, pool, [*ROWS[:11], row(99, "чужое", "not in the pool")], queries, dropped)
    assert {item["query"] for item in found} == {item["query"] for item in ROWS[:11]} - {"слово 3", "слово 4"}
    assert dropped == {"vector_is_none": 2, "positive_not_in_pool": 1}
    assert all("e word" not in item["negatives"] for item in found)


def test_fewer_passages_than_the_window() -> None:
    pool, queries = planted(ROWS[:3])
    found = mined(ruled(), 7, pool, ROWS[:3], queries)
    assert [len(item["negatives"]) for item in found] == [1, 1, 1]
    alone, query = planted(ROWS[:1])
    assert mined(ruled(), 7, alone, ROWS[:1], query)[0]["negatives"] == []


def test_a_cross_encoder_s_scores_stand_for_the_cosines_in_the_limits() -> None:
    pool, queries = planted(ROWS)
    asked: list[tuple[str, str]] = []

    def judge(questions: list[str], texts: list[str]) -> np.ndarray:
        asked.extend(zip(questions, texts, strict=True))
        return np.array([0.95 if text in ("d word", "a cancel", "b abort") else 0.2 for text in texts], np.float32)

    first = mined(ruled(**{**WHOLE, "max_score": 0.5}), MANY, pool, ROWS, queries, judge=judge)[0]
    assert set(first["negatives"]) == {item["positive"] for item in ROWS[2:]} - {"d word"}
    assert ("Отмена", "b abort") in asked
    assert np.isclose(first["negative_scores"][0], np.cos(1.2 * 2 / 11), atol=1e-5), "what is written stays the cosine"


CASES = {
    "paper": (7, {"ranks": (5, 40)}),
    "sentence-transformers": (5, {"ranks": (3, 30), "sampling": "top", "slicing": "sentence_transformers"}),
    "limits": (6, {"ranks": (0, 60), "max_share_of_positive": 0.8, "max_similarity_to_positive": 0.7}),
    "margin": (6, {"ranks": (0, 60), "margin_to_positive": 0.2, "slicing": "sentence_transformers"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_whole_agrees_with_brute_force(case: str) -> None:
    """Every negative of every row, whatever the slices, from the full matrix of scores and one candidate after the other."""
    draws = np.random.default_rng(7)
    rows = [
        row(number, f"q{number // 2 if number % 5 == 0 else number}", f"p{number % 180}", group=f"g{number // 3}") for number in range(230)
    ]
    candidates = make_texts(table(rows))
    vectors = draws.normal(size=(len(candidates.texts), 12)).astype(np.float32)
    at = {text: number for number, text in enumerate(candidates.texts)}
    by_query = {item["query"]: vectors[at[item["positive"]]] + 1.2 * draws.normal(size=12).astype(np.float32) for item in rows}
    queries = np.stack([by_query[item["query"]] for item in rows])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    negatives, given = CASES[case]
    settings = ruled(**given)
    found = mined(settings, negatives, Pool(candidates, vectors), rows, queries, slices=Slices(50, 64))
    assert [item["negatives"] for item in found] == brute_force(
        settings, negatives, rows, candidates.texts, vectors, queries, at.__getitem__
    )


def brute_force(
    settings: Mining, negatives: int, rows: list[dict], texts: list[str], vectors: np.ndarray, queries: np.ndarray, at: Callable[[str], int]
) -> list[list[str]]:
    found, deep = [], depth(settings, make_texts(table(rows)))
    groups = {text: {item[name] for item in rows if item["positive"] == text for name in ("doc_id", "group")} for text in texts}
    for number, item in enumerate(rows):
        scores = vectors @ queries[number]
        positives = {other["positive"] for other in rows if other["query"] == item["query"]}
        lowest = min(scores[at(text)] for text in positives)
        free, rank = [], 0
        for place in np.argsort(-scores, kind="stable")[:deep]:
            text = texts[place]
            own = normalise(text) in {normalise(item["query"]), *map(normalise, positives)} or groups[text] & {
                item["doc_id"],
                item["group"],
            }
            limited = (
                (settings.max_share_of_positive and scores[place] > lowest - abs(lowest) * (1 - settings.max_share_of_positive))
                or (settings.margin_to_positive and scores[place] > lowest - settings.margin_to_positive)
                or (
                    settings.max_similarity_to_positive
                    and max(vectors[place] @ vectors[at(other)] for other in positives) > settings.max_similarity_to_positive
                )
            )
            barred = own or limited
            if settings.ranks[0] <= rank < settings.ranks[1] and not barred:
                free.append(text)
            rank += settings.slicing == "flag_embedding" or not barred
        if settings.sampling == "random":
            drawn = set(sorted(free, key=lambda text: draw(item["pair_id"], text))[:negatives])
            free = [text for text in free if text in drawn]
        found.append(free[:negatives])
    return found
