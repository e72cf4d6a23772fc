"""Ids and splits depend on content alone."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from raysberta.schema import split_of, text_id


def test_parts_do_not_run_together() -> None:
    assert text_id("ab", "c") != text_id("a", "bc") != text_id("abc")
    assert text_id("ёлка") != text_id("елка")
    assert len(text_id("\ud800")) == 16, "a lone surrogate is text too"


@given(st.text(), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_group_has_one_split_and_growing_shares_only_take_from_train(group: str, dev: float, test: float) -> None:
    first = split_of(group, dev, test)
    assert first == split_of(group, dev, test)
    if first == "test":
        assert split_of(group, dev, min(1.0, test + 0.1)) == "test"


def test_shares_are_met() -> None:
    found = Counter(split_of(f"group {n}", 0.1, 0.2) for n in range(20_000))
    assert abs(found["dev"] / 20_000 - 0.1) < 0.01
    assert abs(found["test"] / 20_000 - 0.2) < 0.01
