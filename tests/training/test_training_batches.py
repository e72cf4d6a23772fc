import logging

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from variants import contrastive_settings

from raysberta.errors import InputError
from raysberta.training import batches
from raysberta.training.batches import ContrastivePlan, TextPlan, fill
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
    most = -(-len(parts[0].rows) // world)
    held = [rank * most + np.arange(len(part.chunks.order)) for rank, part in enumerate(parts)]
    assert sorted(parts[0].rows.tolist()) == np.concatenate(held).tolist(), "every text is encoded once, by one worker"
    assert all(torch.equal(part.rows, parts[0].rows) for part in parts)
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    tables, st.integers(2, 6), st.sampled_from(["stratified", "step_source", "mixed"]), st.sampled_from([0.4, 1.0, 2.5]), st.integers(0, 9)
)
def test_a_resumed_run_plans_its_own_epoch_and_the_first_and_takes_the_same_steps(numbers, rows, size, sampling, weight, seed):
    """Few rows and heavy repetition too: all epochs have as many batches, so a step is found without those before it."""
    examples = numbers([*rows, *[(number % 3, 200 + number, 300 + number) for number in range(40)]])
    weights = {} if sampling == "mixed" else {"s1/k": weight}
    whole = ContrastivePlan(examples, size, 2, weights, seed, sampling)
    steps = [[batch.tolist() for batch in whole.step(number)] for number in range(3 * whole.batches)]
    assert {len(whole.epoch(number)) for number in range(4)} == {whole.batches}
    planned, make = [], ContrastivePlan._plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContrastivePlan, "_plan", lambda plan, epoch: planned.append(epoch) or make(plan, epoch))
        for number in (0, whole.batches, 3 * whole.batches - 1):
            planned.clear()
            again = ContrastivePlan(examples, size, 2, weights, seed, sampling)
            assert [batch.tolist() for batch in again.step(number)] == steps[number]
            own = {2 * number // whole.batches, (2 * number + 1) // whole.batches}
            assert set(planned) == {0, *own} and len(planned) <= 3
    assert whole.steps(3.0) == max(1, 3 * whole.batches // 2)


def slowly_filled(rows, queries, positives, size):
    """Each row into the first batch that has room and none of its texts, but never before one that has."""
    batches = []
    for row in range(len(rows)):
        last = max(
            (
                number
                for number, batch in enumerate(batches)
                for other in batch
                if {queries[row], positives[row]} & {queries[other], positives[other]}
            ),
            default=-1,
        )
        place = next((number for number in range(last + 1, len(batches)) if len(batches[number]) < size), len(batches))
        batches += [[]] * (place == len(batches))
        batches[place] = [*batches[place], row]
    full = [[int(rows[row]) for row in batch] for batch in batches if len(batch) == size]
    fullest = max(batches, key=len, default=[])
    return full or ([[int(rows[row]) for row in fullest]] if len(fullest) > 1 else [])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(4, 12)), max_size=40), st.integers(2, 5), st.randoms(), st.sampled_from([3, 64]))
def test_batches_are_filled_as_a_slow_search_fills_them(pairs, size, random, at_once):
    rows = np.asarray(random.sample(range(1000), len(pairs)), np.int64)
    queries, positives = (np.asarray(side, np.int64) for side in zip(*pairs, strict=True)) if pairs else (rows, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "AT_ONCE", at_once)
        found = [batch.tolist() for batch in fill(rows, queries, positives, size)]
    assert found == slowly_filled(rows, queries.tolist(), positives.tolist(), size)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 9), st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_every_text_is_read_once_an_epoch_and_a_step_is_found_by_its_number(texts, size, seed, asked):
    plan = TextPlan(texts, size, seed)
    steps = plan.steps(1.0)
    for epoch in (0, 2):
        read = np.concatenate([plan.step(epoch * steps + step) for step in range(steps)])
        assert len(set(read.tolist())) == len(read) == steps * min(size, texts) and texts - len(read) < min(size, texts)
    for step in asked:
        place = step % steps * min(size, texts)
        drawn = np.random.default_rng((seed, step // steps)).permutation(texts)[place : place + min(size, texts)]
        assert plan.step(step).tolist() == drawn.tolist() == TextPlan(texts, size, seed).step(step).tolist()
    assert plan.steps(0.01 / texts) == 1 and plan.steps(2.0) == 2 * steps


def test_an_epochs_order_is_drawn_once():
    plan = TextPlan(1000, 10, seed=3)
    held = [plan.step(number).base for number in range(100)]
    assert all(order is held[0] for order in held) and plan.step(100).base is not held[0]
