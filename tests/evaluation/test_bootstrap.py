"""Resampled scores against sklearn on the resampled items, and intervals against what simulated data is known to hold."""

import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, v_measure_score

from raysberta.evaluation.bootstrap import DRAWS, average_precisions, counts, interval, means, v_measures

GENERATOR = np.random.default_rng


def drawn(items: int, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    return np.concatenate(list(counts(items, seed, draws)))


def resampled(times: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(times)), times)


def test_draws_are_of_as_many_items_and_the_same_again_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    found = drawn(50, 7)
    assert found.shape == (DRAWS, 50) and (found.sum(1) == 50).all()
    assert found.mean() == 1 and found.var() == pytest.approx(1 - 1 / 50, rel=0.03)
    monkeypatch.setattr("raysberta.evaluation.bootstrap.CELLS", 333)
    assert np.array_equal(drawn(50, 7), found) and not np.array_equal(drawn(50, 8), found)


def test_a_resampled_mean_is_the_mean_of_the_resampled() -> None:
    values = GENERATOR(0).random(40)
    times = drawn(40)
    assert np.allclose(means(values, times), [values[resampled(each)].mean() for each in times], atol=1e-12)


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_average_precision_is_that_of_sklearn_ties_too(digits: int) -> None:
    labels = GENERATOR(1).integers(2, size=60)
    alike = np.round(GENERATOR(2).normal(size=60) + labels, digits)
    times = drawn(60, draws=100)
    expected = [average_precision_score(labels[resampled(each)], alike[resampled(each)]) for each in times]
    assert np.allclose(average_precisions(alike, labels, times), expected, atol=1e-12)
    assert average_precisions(alike, np.zeros(60, int), times[:3]).tolist() == [0, 0, 0]


def test_v_measure_is_that_of_sklearn() -> None:
    labels, clusters = GENERATOR(3).integers(5, size=80), GENERATOR(4).integers(7, size=80)
    clusters[:50] = labels[:50]
    times = drawn(80, draws=100)
    expected = [v_measure_score(labels[resampled(each)], clusters[resampled(each)]) for each in times]
    assert np.allclose(v_measures(labels, clusters, times), expected, atol=1e-9)
    ones = np.ones((1, 4), int)
    assert v_measures(np.array([0, 0, 1, 1]), np.array([5, 5, 9, 9]), ones) == pytest.approx(1)
    assert v_measures(np.zeros(4, int), np.zeros(4, int), ones).tolist() == [1]
    assert v_measures(np.array([0, 0, 1, 1]), np.zeros(4, int), ones) == pytest.approx(0)


def test_an_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    values = GENERATOR(5).normal(0.6, 0.2, size=400)
    low, high = interval(values.mean(), means(values, drawn(400)))
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.004) and high == pytest.approx(values.mean() + half, abs=0.004)
    assert interval(0.5, np.full(DRAWS, 0.5)) == (0.5, 0.5)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Share of 400 simulated tasks whose interval holds the known score; 95 % is meant, and small samples reach a little less."""
    generator, held = GENERATOR(6), {"mean": 0, "precision": 0}
    labels, alike = generator.integers(2, size=400_000), generator.normal(size=400_000)
    truth = average_precision_score(labels, alike + labels)
    for seed in range(400):
        times = drawn(200, seed, 400)
        values = generator.beta(2, 1, size=200)
        low, high = interval(values.mean(), means(values, times))
        held["mean"] += low <= 2 / 3 <= high
        labels = generator.integers(2, size=200)
        alike = generator.normal(size=200) + labels
        low, high = interval(average_precision_score(labels, alike), average_precisions(alike, labels, times))
        held["precision"] += low <= truth <= high
    assert 0.92 <= held["mean"] / 400 <= 0.98 and 0.89 <= held["precision"] / 400 <= 0.98


def test_an_interval_of_a_leaning_score_holds_the_score() -> None:
    """V-measure of a resample is higher than that of its items, since repeated items agree: percentiles as they are would miss it."""
    generator = GENERATOR(7)
    labels = generator.integers(12, size=100)
    clusters = np.where(generator.random(100) < 0.4, labels, generator.integers(12, size=100))
    score, found = v_measure_score(labels, clusters), v_measures(labels, clusters, drawn(100))
    assert np.quantile(found, 0.025) > score
    low, high = interval(score, found)
    assert low < score < high


def test_a_paired_difference_is_found_where_two_intervals_overlap() -> None:
    """Two models that find the same queries hard: the second is better by a little on nearly all of them."""
    generator = GENERATOR(8)
    hard = generator.beta(1, 1, size=300)
    first, second = hard, np.clip(hard + generator.normal(0.02, 0.05, size=300), 0, 1)
    times = drawn(300)
    one, other = (interval(values.mean(), means(values, times)) for values in (first, second))
    assert other[0] < one[1], "each by itself says nothing"
    low, high = interval(second.mean() - first.mean(), means(second, times) - means(first, times))
    assert 0 < low < high < 0.05


def test_no_difference_is_called_one_as_seldom_as_it_says() -> None:
    generator, called = GENERATOR(9), 0
    for seed in range(400):
        hard, times = generator.random(150), drawn(150, seed, 400)
        first, second = (np.clip(hard + generator.normal(0, 0.2, size=150), 0, 1) for _ in range(2))
        low, high = interval(second.mean() - first.mean(), means(second, times) - means(first, times))
        called += low > 0 or high < 0
    assert 0.02 <= called / 400 <= 0.09


def test_a_task_of_many_items_takes_seconds() -> None:
    started = time.monotonic()
    for times in counts(10_000, 0):
        means(GENERATOR(0).random(10_000), times)
    assert time.monotonic() - started < 20
