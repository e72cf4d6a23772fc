"""Rows of pairs to rows of examples on planted vectors, without Ray, and against a brute-force reading of the whole."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mined_words import ANIMALS, pairs_of_words
from pools import pool_of, ranked, texts_of
from pydantic import ValidationError

from raysberta.mining import miner
from raysberta.mining.ids import draw, id_of, normalise
from raysberta.mining.miner import depth, mine, sample
from raysberta.mining.passages import Pool
from raysberta.mining.positives import usable
from raysberta.mining.report import Judge
from raysberta.mining.settings import Mining
from raysberta.retrieval.embed import Embedder
from raysberta.retrieval.search import Slices
from raysberta.schema import PAIR, text_id


def row(number: int, query: str, positive: str, **values: object) -> dict:
    base = {"pair_id": f"{number:016x}", "doc_id": f"d{number}", "group": f"g{number}", "split": "train", "source": "s", "kind": "k"}
    return {**base, "task": "retrieval", "language": "ru", "query": query, "positive": positive, "negatives": [], **values}


def ruled(**given: object) -> Mining:
    return Mining.model_validate({"by": "miner", **given})


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=PAIR)


def planted(rows: list[dict]) -> tuple[Pool, np.ndarray]:
    """Every text of the pool a little further from the queries than the one before it, in order of its first letter."""
    pool = pool_of(rows)
    angles = np.empty(len(pool))
    angles[np.argsort(texts_of(pool))] = np.linspace(0.0, 1.2, len(pool))
    queries = np.tile(np.array([1.0, 0.0], np.float32), (len(rows), 1))
    return replace(pool, vectors=np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)), queries


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
    found = ranked(pool, asked, depth(settings, pool), slices) if len(pairs) else iter([])
    return [item for part in mine(settings, negatives, pool, pairs, asked, found, dropped, judge) for item in part.to_pylist()]


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
    at = {text: number for number, text in enumerate(texts_of(pool))}
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
        candidates = pool if size is None else pool_of(ROWS[:size])
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
    at = {text: number for number, text in enumerate(texts_of(pool))}
    pool.vectors[at["e word"]] = 0.0  # type: ignore[index]
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


JUDGED = {**WHOLE, "cross_encoder": "judge", "cross_encoder_for": "limits"}


def test_what_is_judged_as_relevant_as_every_positive_becomes_a_positive() -> None:
    """Of four such candidates the best two; none of the four is a negative of a pair of the query, not even one that a source supplies."""
    rows = [{**item, "negatives": ["Given.", "f word!"] if item["query"] == "отмена " else []} for item in ROWS]
    rows.append(row(12, "слово 12", "D  word!"))
    pool, queries = planted(rows)
    relevance = {"a cancel": 0.5, "b abort": 0.4, "c word": 0.45, "d word": 0.8, "e word": 0.9, "f word": 0.5, "g word": 0.6}

    def judge(questions: list[str], texts: list[str]) -> np.ndarray:
        own = {item["query"]: item["positive"] for item in rows}
        asked = zip(questions, texts, strict=True)
        return np.array(
            [relevance.get(text, 0.1) if normalise(query) == "отмена" else own[query] == text for query, text in asked], np.float32
        )

    found = mined(ruled(**JUDGED, promoted=2), MANY, pool, rows, queries, judge=judge)
    first, best, good, second = found[:4]
    assert [(item["query"], item["positive"]) for item in (best, good)] == [("Отмена", "e word"), ("Отмена", "d word")]
    assert [item["promoted"] for item in found] == [False, True, True, *[False] * 12], "the query's first pair alone brings them in"
    for item in (best, good):
        assert item["pair_id"] == text_id("promoted", first["pair_id"], item["positive"])
        assert {**first, **{name: item[name] for name in ("query", "group", "doc_id", "source", "kind", "task", "language")}} == first
        assert item["positive_score"] < first["positive_score"] and item["positive_rank"] > 0
    for item in (first, best, good, second):
        assert not {"a cancel", "b abort", "d word", "D  word!", "e word", "f word", "f word!", "g word"} & set(item["negatives"])
        assert "c word" in item["negatives"], "less relevant than one of the positives"
    assert second["negatives"][0] == "Given."
    assert {"reason": "judged_relevant", "count": 5} in first["skipped"]
    assert "e word" in found[4]["negatives"], "of another query it still is"
    few = mined(ruled(**{**JUDGED, "ranks": (3, 4), "too_few": "top_up"}, promoted=2), MANY, pool, rows, queries, judge=judge)
    assert not {"d word", "e word", "f word", "g word"} & {text for item in few if item["query"] == "Отмена" for text in item["negatives"]}
    assert sum(item["topped_up"] for item in few[:2]) > 0


@pytest.mark.parametrize("slicing", ["flag_embedding", "sentence_transformers"])
def test_relabelling_agrees_with_brute_force_however_many_are_in_hand(slicing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(3)
    rows = [row(number, f"q{number % 60}", f"p{number % 70}", group=f"g{number // 3}") for number in range(90)]
    vectors = draws.normal(size=(70, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pool = replace(pool_of(rows), vectors=vectors)
    texts = texts_of(pool)
    by_query = {item["query"]: vectors[texts.index(item["positive"])] for item in rows}
    queries = np.stack([by_query[item["query"]] for item in rows])

    def relevance(query: str, text: str) -> float:
        number = draw(id_of(query), np.array([id_of(text)], np.uint64))[0]
        return float(number) / 2**64 + 0.6 * any(item["query"] == query and item["positive"] == text for item in rows)

    def judge(questions: list[str], texts: list[str]) -> np.ndarray:
        return np.array([relevance(*each) for each in zip(questions, texts, strict=True)], np.float32)

    settings = ruled(**{**JUDGED, "ranks": (5, 40), "slicing": slicing, "sampling": "random"}, promoted=3)
    found = mined(settings, 6, pool, rows, queries, judge=judge)
    monkeypatch.setattr(miner, "IN_HAND", 7)
    assert mined(settings, 6, pool, rows, queries, judge=judge) == found
    given = {item["pair_id"] for item in rows}
    gained = [item for item in found if item["pair_id"] not in given]
    assert len({item["pair_id"] for item in found}) == len(found) and len(gained) > 20
    expected, relevant = [], {}
    first, deep = (5, 40) if slicing == "flag_embedding" else (0, depth(settings, pool))
    for number, item in enumerate(rows):
        positives = {other["positive"] for other in rows if other["query"] == item["query"]}
        tied = {other["positive"] for other in rows if other["group"] == item["group"]}
        ranked = [texts[place] for place in np.argsort(-(vectors @ queries[number]), kind="stable")[first:deep]]
        least = max(relevance(item["query"], text) for text in positives)
        high = [text for text in ranked if text not in positives | tied and relevance(item["query"], text) >= least]
        if item["query"] not in relevant:
            best = sorted(high, key=lambda text: -relevance(item["query"], text))[:3]
            expected += [(item["query"], text) for text in best]
        relevant.setdefault(item["query"], set()).update(high)
    assert [(item["query"], item["positive"]) for item in gained] == expected
    assert not any(set(item["negatives"]) & {text for query, text in expected if query == item["query"]} for item in found)


def test_a_planted_second_definition_of_a_word_becomes_its_positive(e5_folder: Path) -> None:
    """Real words ranked by the real encoder, each with a second definition under another headword; the judge knows which word is meant."""
    words = pairs_of_words().to_pylist()
    extra = [
        row(number, f"{word} (зоология)", f"Зверь, которого зовут «{word}», знаком всем с детства") for number, word in enumerate(ANIMALS)
    ]
    rows = sorted([{**item, "source": "words", "kind": "term_definition"} for item in (*words, *extra)], key=lambda item: item["pair_id"])
    embedder, pool = Embedder(e5_folder, 32, device="cpu"), pool_of(rows)
    pool = replace(pool, vectors=embedder.encode([f"passage: {text}" for text in texts_of(pool)]))
    queries = embedder.encode([f"query: {item['query']}" for item in rows])

    def judge(questions: list[str], texts: list[str]) -> np.ndarray:
        return np.array([query.split()[0] in text for query, text in zip(questions, texts, strict=True)], np.float32)

    def confused(found: list[dict]) -> int:
        return sum(item["query"].split()[0] in text for item in found for text in item["negatives"])

    settings = {"ranks": (0, 36), "cross_encoder": "judge", "cross_encoder_for": "limits"}
    before = mined(ruled(**settings), 35, pool, rows, queries, judge=judge)
    after = mined(ruled(**settings, promoted=1), 35, pool, rows, queries, judge=judge)
    assert confused(before) == 24 and confused(after) == 0
    assert {(item["query"].split()[0], item["promoted"]) for item in after} >= {(word, True) for word in ANIMALS}
    assert len(after) == len(before) + 24
    assert [item for item in after if item["query"] == "молоток"] == [item for item in before if item["query"] == "молоток"]


def test_relabelling_needs_a_judge() -> None:
    with pytest.raises(
        ValidationError, match="promoted: nothing judges the candidates; right would be a cross_encoder and cross_encoder_for"
    ):
        ruled(cross_encoder="judge", promoted=1)


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
    pool = pool_of(rows)
    vectors = draws.normal(size=(len(pool), 12)).astype(np.float32)
    at = {text: number for number, text in enumerate(texts_of(pool))}
    by_query = {item["query"]: vectors[at[item["positive"]]] + 1.2 * draws.normal(size=12).astype(np.float32) for item in rows}
    queries = np.stack([by_query[item["query"]] for item in rows])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    negatives, given = CASES[case]
    settings = ruled(**given)
    found = mined(settings, negatives, replace(pool, vectors=vectors), rows, queries, slices=Slices(50, 64))
    assert [item["negatives"] for item in found] == brute_force(settings, negatives, rows, texts_of(pool), vectors, queries, at.__getitem__)


def brute_force(
    settings: Mining, negatives: int, rows: list[dict], texts: list[str], vectors: np.ndarray, queries: np.ndarray, at: Callable[[str], int]
) -> list[list[str]]:
    found, deep = [], depth(settings, pool_of(rows))
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
            numbers = draw(id_of(item["pair_id"]), np.array([id_of(text) for text in free], np.uint64))
            drawn = {free[place] for place in np.argsort(numbers)[:negatives]}
            free = [text for text in free if text in drawn]
        found.append(free[:negatives])
    return found
