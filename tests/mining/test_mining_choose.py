"""The choice of negatives against a brute-force reading of the rules, and planted cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.mining.choose import Pool, choose, window
from raysberta.recipe import Mining

SIZE = 60


def pool(seed: int = 0) -> Pool:
    vectors = np.random.default_rng(seed).normal(size=(SIZE, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Pool([f"text {n}" for n in range(SIZE)], [frozenset((f"doc {n}", f"group {n // 2}")) for n in range(SIZE)], vectors)


def mined(rules: Mining, at: int = 5, seed: int = 0, pair_id: str = "p"):
    candidates = pool(seed)
    query = candidates.vectors[at] * 0.8 + 0.05
    query /= np.linalg.norm(query)
    scores = candidates.vectors @ query
    rows = np.argsort(-scores, kind="stable")[: rules.rank_to]
    own = frozenset((f"doc {at}", f"group {at // 2}"))
    chosen = choose(
        rules, candidates, pair_id, own, frozenset((f"text {at}", "a query")), candidates.vectors[at], float(scores[at]), scores[rows], rows
    )
    return chosen, candidates, scores, rows


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 30), st.integers(1, 40), st.integers(0, 9), st.sampled_from(["random", "top"]), st.integers(0, 50))
def test_every_negative_obeys_every_rule(first: int, width: int, negatives: int, sampling: str, seed: int) -> None:
    rules = Mining(rank_from=first, rank_to=first + width, negatives=negatives, sampling=sampling, max_share_of_positive=0.9)
    chosen, _, scores, rows = mined(rules, seed=seed)
    low, high = window(rules, SIZE)
    ceiling = scores[5] - abs(scores[5]) * 0.1
    allowed = [rank for rank in range(low, high) if rows[rank] not in (4, 5) and scores[rows[rank]] <= ceiling]
    assert set(chosen.ranks) <= set(allowed)
    assert len(chosen.rows) == min(negatives, len(allowed))
    assert chosen.ranks == sorted(chosen.ranks)
    if sampling == "top":
        assert chosen.ranks == allowed[:negatives]
    assert sum(chosen.skipped.values()) == high - low - len(allowed)


def test_the_draw_depends_on_the_pair_alone() -> None:
    rules = Mining(rank_from=0, rank_to=50, negatives=5)
    first = mined(rules, pair_id="one")[0]
    assert first == mined(rules, pair_id="one")[0]
    assert first.rows != mined(rules, pair_id="two")[0].rows


@pytest.mark.parametrize(("size", "expected"), [(1000, (20, 100)), (60, (20, 60)), (30, (15, 30)), (2, (1, 2)), (1, (0, 1)), (0, (0, 0))])
def test_the_window_moves_up_in_a_small_pool(size: int, expected: tuple[int, int]) -> None:
    assert window(Mining(), size) == expected


def test_a_planted_paraphrase_of_the_positive_is_passed_over() -> None:
    candidates = pool()
    candidates.vectors[17] = candidates.vectors[5] * 0.999 + 0.001
    candidates.vectors[17] /= np.linalg.norm(candidates.vectors[17])
    scores = candidates.vectors @ candidates.vectors[5]
    rows = np.argsort(-scores, kind="stable")
    arguments = (candidates, "p", frozenset(("doc 5",)), frozenset(("text 5",)), candidates.vectors[5], 1.0, scores[rows], rows)
    careless = choose(Mining(rank_from=0, rank_to=10, negatives=9), *arguments)
    careful = choose(Mining(rank_from=0, rank_to=10, negatives=9, max_similarity_to_positive=0.98), *arguments)
    assert 17 in careless.rows
    assert 17 not in careful.rows
    assert careful.skipped["like_the_positive"] == 1


def test_a_negative_positive_score_does_not_turn_the_limit_around() -> None:
    candidates = pool()
    scores = np.linspace(-0.2, -0.9, SIZE, dtype=np.float32)
    rows = np.arange(SIZE)
    chosen = choose(
        Mining(rank_from=0, rank_to=SIZE, negatives=60, max_share_of_positive=0.9),
        candidates, "p", frozenset(), frozenset(), candidates.vectors[0], -0.5, scores, rows,
    )  # fmt: skip
    assert chosen.scores
    assert max(chosen.scores) <= -0.55
