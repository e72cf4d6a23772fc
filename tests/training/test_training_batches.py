import logging

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from variants import contrastive_settings

from raysberta.errors import InputError
from raysberta.training.batches import ContrastivePlan, MlmPlan, fill
from raysberta.training.contrastive import make_batch

tables = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(20, 60)), min_size=12, max_size=120)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(tables, st.integers(2, 6), st.integers(0, 3))
def test_batches_are_of_one_source_without_a_text_twice(numbers, rows, size, seed):
    rows = [*rows, (0, 100, 101), (0, 102, 103), (1, 104, 105), (1, 106, 107), (2, 108, 109), (2, 110, 111)]
    examples = numbers(rows)
    plan = ContrastivePlan(examples, size, 2, {}, seed)
    for batch in plan.epoch(0):
        assert len(set(examples.source[batch])) == 1
        assert 2 <= len(batch) <= size
        for texts in (examples.query[batch], examples.positive[batch]):
            assert len(set(texts.tolist())) == len(batch)
        pairs = [{int(examples.query[row]), int(examples.positive[row])} for row in batch]
        assert all(not (left & right) for number, left in enumerate(pairs) for right in pairs[:number])
    used = np.concatenate(plan.epoch(0))
    assert len(set(used.tolist())) == len(used)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(tables, st.integers(0, 3), st.sampled_from([1, 2, 4]), st.integers(0, 40))
def test_a_step_is_found_by_its_number_and_the_workers_only_share_it(numbers, rows, seed, world, step):
    examples = numbers([*rows, *[(number % 3, 200 + number, 300 + number) for number in range(40)]])
    one, many = ContrastivePlan(examples, 4, 4, {}, seed), ContrastivePlan(examples, 4, 4, {}, seed)
    for earlier in range(0, step, 7):
        one.step(earlier)
    batches = many.step(step)
    assert [batch.tolist() for batch in one.step(step)] == [batch.tolist() for batch in batches] and len(batches) == 4
    parts = [make_batch(examples, batches, contrastive_settings(), torch.device("cpu"), rank, world) for rank in range(world)]
    places = np.concatenate([part.mine.numpy() for part in parts])
    assert sorted(places.tolist()) == list(range(parts[0].texts)), "every text is encoded once, by one worker"
    other = ContrastivePlan(examples, 4, 4, {}, seed + 1)
    assert [batch.tolist() for batch in other.epoch(0)] != [batch.tolist() for batch in one.epoch(0)]
    assert [batch.tolist() for batch in one.epoch(1)] != [batch.tolist() for batch in one.epoch(0)]


def test_sources_come_in_proportion_to_rows_times_weight_in_any_stretch(numbers):
    rows = [(0, number, 1000 + number) for number in range(600)] + [(1, 2000 + number, 3000 + number) for number in range(200)]
    plan = ContrastivePlan(numbers(rows), 10, 1, {"s1/k": 2.0}, seed=1)
    sources = [int(batch[0] >= 600) for batch in plan.epoch(0)]
    assert (sources.count(0), sources.count(1)) == (60, 40)
    for start in range(0, 100, 20):
        assert 7 <= sum(sources[start : start + 20]) <= 9
    without = ContrastivePlan(numbers(rows), 10, 1, {"s0/k": 0}, seed=1)
    assert len(without.epoch(0)) == 20 and all(batch[0] >= 600 for batch in without.epoch(0))
    half = ContrastivePlan(numbers(rows), 10, 1, {"s0/k": 0.5}, seed=1)
    assert len(half.epoch(0)) == 50
    assert (plan.steps(1.0), plan.steps(2.5), plan.steps(0.001)) == (100, 250, 1)


def test_a_steps_sources_are_as_the_sampling_says(numbers):
    rows = [(number % 5 // 3, number, 1000 + number) for number in range(400)]  # 240 of one source, 160 of another
    examples = numbers(rows)

    def sources(sampling):
        plan = ContrastivePlan(examples, 10, 4, {}, 7, sampling)
        steps = [plan.step(step) for step in range(plan.steps(1.0))]
        used = np.concatenate([rows for step in steps for rows in step])
        assert len(used) == len(set(used.tolist())) == 400
        return [[set(examples.source[rows].tolist()) for rows in step] for step in steps]

    assert all(len(one) == 1 for step in sources("stratified") for one in step)
    assert sum(len(set.union(*step)) == 2 for step in sources("stratified")) > 5
    assert (
        all(len(set.union(*step)) == 1 for step in sources("step_source")) and len({min(step[0]) for step in sources("step_source")}) == 2
    )
    assert all(len(one) == 2 for step in sources("mixed") for one in step)


def test_small_sources_weigh_more_with_a_smaller_exponent(numbers):
    rows = [(0, number, 1000 + number) for number in range(400)] + [(1, 2000 + number, 3000 + number) for number in range(100)]
    batches = {}
    for exponent in (1.0, 0.5, 0.0):
        epoch = ContrastivePlan(numbers(rows), 10, 1, {}, 0, size_exponent=exponent).epoch(0)
        batches[exponent] = [sum(int(batch[0] >= 400) == source for batch in epoch) for source in (0, 1)]
    assert batches == {1.0: [40, 10], 0.5: [40, 20], 0.0: [40, 40]}


def test_rows_that_repeat_a_text_wait_and_nothing_else_is_lost():
    queries = np.asarray([1, 1, 1, 2, 3, 4, 5, 6, 7])
    batches = fill(np.arange(9), queries, queries + 100, 3)
    assert [sorted(queries[batch].tolist()) for batch in batches] == [[1, 2, 3], [1, 4, 5], [1, 6, 7]]


def test_a_source_smaller_than_a_batch_gives_a_smaller_batch_and_says_so(numbers, caplog):
    rows = [(0, number, 100 + number) for number in range(20)] + [(1, 300, 400), (1, 301, 401), (1, 302, 402)]
    with caplog.at_level(logging.WARNING):
        plan = ContrastivePlan(numbers(rows), 8, 1, {}, seed=0)
    assert sorted(len(batch) for batch in plan.epoch(0)) == [3, 8, 8]
    assert "s1/k has 3 rows, fewer than a batch of 8" in caplog.text


def test_bad_weights_and_nothing_to_train_on_are_named(numbers):
    with pytest.raises(InputError, match=r"source_weights: no examples of 'nope'; there are s0/k"):
        ContrastivePlan(numbers([(0, 1, 2), (0, 3, 4)]), 2, 1, {"nope": 1.0}, seed=0)
    with pytest.raises(InputError, match="no source has two rows that differ"):
        ContrastivePlan(numbers([(0, 1, 2), (0, 1, 3)]), 2, 1, {}, seed=0)


def test_mlm_reads_every_text_once_an_epoch():
    plan = MlmPlan(100, 25, seed=3)
    assert plan.steps(1.0) == 4 and plan.steps(0.01) == 1
    first = np.concatenate([plan.step(step) for step in range(4)])
    assert sorted(first.tolist()) == list(range(100))
    assert plan.step(5).tolist() == MlmPlan(100, 25, seed=3).step(5).tolist() != plan.step(1).tolist()
    assert len(MlmPlan(7, 25, seed=3).step(0)) == 7
