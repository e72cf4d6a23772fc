"""The next batch is made while the one before it trains, and nothing else changes."""

import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from variants import SEED, comparable

from raysberta.models.load import load_encoder
from raysberta.training import loop
from raysberta.training.ahead import ahead
from raysberta.training.contrastive import train_contrastive
from raysberta.training.mlm import train_mlm


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5), st.integers(0, 8))
def test_all_come_in_order_made_by_one_other_thread(first, count):
    threads = []

    def make(number: int) -> int:
        threads.append(threading.get_ident())
        return number * number

    assert list(ahead(make, first, first + count)) == [number * number for number in range(first, first + count)]
    assert len(threads) == count and len(set(threads)) <= 1 and threading.get_ident() not in threads


def test_one_is_made_while_one_is_used_and_no_more():
    made = []
    parts = ahead(lambda number: made.append(number) or number, 0, 9)
    for number in parts:
        until = time.monotonic() + 10
        while len(made) < min(9, number + 2) and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.01)
        assert made == list(range(min(9, number + 2)))


def test_what_goes_wrong_is_raised_where_its_result_would_come():
    def make(number: int) -> int:
        if number == 3:
            raise ValueError("row 3")
        return number

    seen = []
    with pytest.raises(ValueError, match="row 3"):
        for number in ahead(make, 0, 9):
            seen.append(number)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("kind", ["contrastive", "mlm"])
def test_losses_and_weights_are_those_of_batches_made_in_the_loop(kind, contrastive, mlm, tiny, examples, tmp_path, monkeypatch):
    """Bit for bit, dropout on."""

    def run(name: str) -> list[dict[str, float]]:
        if kind == "contrastive":
            return comparable(train_contrastive(contrastive, tiny, examples, tmp_path / name, seed=SEED, steps=5))
        return comparable(train_mlm(mlm, tiny, examples.tokens, tmp_path / name, seed=SEED, steps=5))

    one = run("ahead")
    monkeypatch.setattr(loop, "ahead", lambda make, first, last: map(make, range(first, last)))
    assert run("in turn") == one
    left, right = (load_encoder(tmp_path / name).state_dict() for name in ("ahead", "in turn"))
    assert all(torch.equal(left[name], right[name]) for name in right)
