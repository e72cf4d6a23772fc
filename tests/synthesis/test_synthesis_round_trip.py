import numpy as np

from raysberta.synthesis import round_trip
from raysberta.synthesis.round_trip import ranks


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_ranks_are_places_in_the_sorted_pool(monkeypatch):
    draw = np.random.default_rng(0)
    pool, queries = unit(draw.normal(size=(50, 8))), unit(draw.normal(size=(20, 8)))
    own = draw.integers(0, 50, 20)
    order = np.argsort(-(queries @ pool.T), axis=1)
    expected = [int(np.flatnonzero(order[row] == own[row])[0]) for row in range(20)]
    assert ranks(queries, pool, own).tolist() == expected
    monkeypatch.setattr(round_trip, "SLICE_SCORES", 120)
    assert ranks(queries, pool, own).tolist() == expected


def test_a_query_equal_to_its_passage_ranks_first():
    pool = unit(np.eye(5) + 0.1)
    assert ranks(pool, pool, np.arange(5)).tolist() == [0] * 5
