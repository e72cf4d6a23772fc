"""The mean and what is left without it, against brute force."""

from itertools import combinations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysberta.centring.centre import mean_cosine, mean_of


@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 99))
def test_mean_cosine_is_that_of_all_pairs(count: int, width: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    vectors, less = draw.normal(1, 1, (count, width)).astype(np.float32), draw.normal(size=width)
    moved = torch.from_numpy(vectors - less)
    pairs = [float(torch.cosine_similarity(moved[a], moved[b], dim=0)) for a, b in combinations(range(count), 2)]
    assert abs(mean_cosine(vectors, less) - np.mean(pairs)) < 1e-9


def test_a_mean_of_many_large_numbers_is_exact() -> None:
    vectors = np.full((10_001, 2), 16_777_217.0, np.float32) + np.array([0, 2], np.float32)
    assert mean_of(vectors).tolist() == [16_777_216.0, 16_777_218.0]
