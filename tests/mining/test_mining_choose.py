"""The choice of negatives against a plain reading of the rules, and planted cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.mining.choose import REASONS, Chosen, choose, verdicts, window
from raysberta.mining.ids import normalise
from raysberta.mining.settings import Mining

SIZE = 60
IDS = np.arange(SIZE, dtype=np.uint64)


def vectors(seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(SIZE, 8)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def ruled(**given: object) -> Mining:
    return Mining.model_validate({"by": "miner", **given})


def mined(rules: Mining, negatives: int, at: int = 5, seed: int = 0, pair_id: str = "p") -> tuple[Chosen, np.ndarray, np.ndarray]:
    pool = vectors(seed)
    query = pool[at] * 0.8 + 0.05
    scores = pool @ (query / np.linalg.norm(query))
    rows = np.argsort(-scores, kind="stable")
    barred = {"own_text": np.array([at]), "same_document": np.array([at, at - 1])}
    reasons = verdicts(rules, scores[rows], rows, barred, float(scores[at]), pool[rows] @ pool[at])
    return choose(rules, negatives, SIZE, pair_id, scores[rows], rows, IDS[rows], reasons), scores, rows


def plainly(rules: Mining, scores: np.ndarray, rows: np.ndarray, pool: np.ndarray, at: int = 5) -> list[int]:
    """Rows that may be chosen, in order, candidate by candidate."""
    low, high = window(rules, SIZE)
    free, counted = [], 0
    for rank, row in enumerate(rows.tolist()):
        score, positive = float(scores[row]), float(scores[at])
        own = row in (at, at - 1)
        limited = (
            (rules.max_share_of_positive is not None and score > positive - abs(positive) * (1 - rules.max_share_of_positive))
            or (rules.margin_to_positive is not None and score > positive - rules.margin_to_positive)
            or (rules.max_score is not None and score > rules.max_score)
            or (rules.min_score is not None and score < rules.min_score)
            or (rules.max_similarity_to_positive is not None and float(pool[row] @ pool[at]) > rules.max_similarity_to_positive)
        )
        place = rank if rules.slicing == "flag_embedding" else counted
        if not own and not limited:
            counted += 1
            if low <= place < high:
                free.append(row)
    return free


limit = st.one_of(st.none(), st.sampled_from([0.05, 0.3, 0.9]))


@settings(deadline=None, max_examples=120)
@given(
    st.builds(
        lambda first, width, **rest: ruled(ranks=(first, first + width), **rest),
        first=st.integers(0, 30),
        width=st.integers(1, 40),
        sampling=st.sampled_from(["random", "top"]),
        slicing=st.sampled_from(["flag_embedding", "sentence_transformers"]),
        max_share_of_positive=limit,
        margin_to_positive=limit,
        max_score=limit,
        min_score=st.one_of(st.none(), st.sampled_from([-0.5, 0.0])),
        max_similarity_to_positive=limit,
    ),
    st.integers(0, 9),
    st.integers(0, 50),
)
def test_every_negative_obeys_every_rule(rules: Mining, negatives: int, seed: int) -> None:
    chosen, scores, rows = mined(rules, negatives, seed=seed)
    allowed = plainly(rules, scores, rows, vectors(seed))
    assert set(chosen.rows) <= set(allowed)
    assert len(chosen.rows) == min(negatives, len(allowed))
    assert chosen.ranks == sorted(chosen.ranks)
    assert np.allclose(chosen.scores, scores[chosen.rows])
    if rules.sampling == "top":
        assert chosen.rows == allowed[:negatives]
    if rules.slicing == "flag_embedding":
        assert chosen.looked_at - sum(chosen.skipped.values()) == len(allowed)
        assert [rows[rank] for rank in chosen.ranks] == chosen.rows


def test_the_two_slicings_differ_by_what_is_barred_before_the_window() -> None:
    scores = np.linspace(0.9, 0.1, SIZE, dtype=np.float32)
    rows, barred = np.arange(SIZE), {"own_text": np.array([0, 2])}
    taken = {}
    for slicing in ("flag_embedding", "sentence_transformers"):
        rules = ruled(ranks=(3, 8), sampling="top", slicing=slicing)
        taken[slicing] = choose(rules, 9, SIZE, "p", scores, rows, IDS[rows], verdicts(rules, scores, rows, barred, 0.9))
    assert taken["flag_embedding"].rows == [3, 4, 5, 6, 7]
    assert taken["sentence_transformers"].rows == [5, 6, 7, 8, 9]
    assert taken["sentence_transformers"].ranks == [3, 4, 5, 6, 7]


def test_the_draw_depends_on_the_pair_alone() -> None:
    rules = ruled(ranks=(0, 50))
    first = mined(rules, 5, pair_id="one")[0]
    assert first == mined(rules, 5, pair_id="one")[0]
    assert first.rows != mined(rules, 5, pair_id="two")[0].rows


@pytest.mark.parametrize(("size", "expected"), [(1000, (20, 100)), (60, (20, 60)), (30, (15, 30)), (2, (1, 2)), (1, (0, 1)), (0, (0, 0))])
def test_the_window_moves_up_in_a_small_pool(size: int, expected: tuple[int, int]) -> None:
    assert window(ruled(), size) == expected


@pytest.mark.parametrize(("size", "expected"), [(1000, (60, 100)), (100, (60, 100)), (99, (49, 99)), (10, (5, 10))])
def test_a_window_that_begins_late_stays_where_it_is_while_the_pool_reaches_its_end(size: int, expected: tuple[int, int]) -> None:
    assert window(ruled(ranks=(60, 100)), size) == expected


@settings(deadline=None, max_examples=60)
@given(st.floats(-1, 1), st.floats(0.5, 1.0), st.floats(-1, 1))
def test_a_share_never_lets_a_text_above_the_positive_through(positive: float, share: float, score: float) -> None:
    rules = ruled(max_share_of_positive=share)
    reason = REASONS[verdicts(rules, np.array([score]), np.array([1]), {}, positive)[0]]
    assert (reason == "") == (score <= positive - abs(positive) * (1 - share))
    if score > positive:
        assert reason == "too_close_to_query"


def test_a_negative_positive_score_does_not_turn_the_share_around() -> None:
    rules = ruled(ranks=(0, SIZE), max_share_of_positive=0.9)
    scores, rows = np.linspace(-0.2, -0.9, SIZE, dtype=np.float32), np.arange(SIZE)
    chosen = choose(rules, 60, SIZE, "p", scores, rows, IDS[rows], verdicts(rules, scores, rows, {}, -0.5))
    assert chosen.scores
    assert max(chosen.scores) <= -0.55


def test_languages_and_what_a_search_did_not_find() -> None:
    scores, rows = np.array([0.9, 0.8, 0.7, 0.0]), np.array([3, 1, 2, -1])
    languages = (np.array(["ru", "en", "", "ru"]), "ru")
    same = verdicts(ruled(language="same"), scores, rows, {}, 1.0, None, languages)
    other = verdicts(ruled(language="other"), scores, rows, {}, 1.0, None, languages)
    assert [REASONS[reason] for reason in same] == ["", "language", "language", "nothing_found"]
    assert [REASONS[reason] for reason in other] == ["language", "", "", "nothing_found"]


def test_a_cross_encoder_s_order_decides_what_is_on_top() -> None:
    rules = ruled(ranks=(0, 4), sampling="top", max_score=0.5)
    scores, rows, judged = np.array([0.9, 0.8, 0.7, 0.6]), np.arange(4), np.array([0.1, 0.7, 0.3, 0.2])
    chosen = choose(rules, 2, SIZE, "p", scores, rows, IDS[rows], verdicts(rules, judged, rows, {}, 1.0), judged)
    assert chosen.rows == [2, 3]
    assert chosen.scores == [0.7, 0.6]
    assert chosen.skipped == {"score_too_high": 1}


def test_texts_that_differ_in_signs_alone_are_the_same() -> None:
    assert normalise("  Ещё раз, «ЁЛКА»! ") == normalise("еще раз елка")
    assert normalise("+ +") == "+ +"
    assert normalise("кот") != normalise("кит")
