"""What is tried, which trial wins, and what of finished trials is read again."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from raysberta.tuning.facts import Trial
from raysberta.tuning.finished import FOLDER, best_of, combinations, find, finished, keep, key_of
from raysberta.tuning.settings import Search


def a_trial(score: float, **values: float) -> Trial:
    return Trial(values=values, score=score, own=score, general=None, scores={"Home": score}, seconds=1.5, steps=None)


def test_a_grid_is_every_combination_once_in_rising_order() -> None:
    search = Search(over={"temperature": (0.05, 0.02, 0.05), "batch_size": (16.0, 8.0)})
    assert combinations(search) == [
        {"temperature": 0.02, "batch_size": 8.0},
        {"temperature": 0.02, "batch_size": 16.0},
        {"temperature": 0.05, "batch_size": 8.0},
        {"temperature": 0.05, "batch_size": 16.0},
    ]


def test_best_is_the_highest_and_of_equals_the_smallest() -> None:
    trials = [a_trial(score, weight=weight) for weight, score in ((0.5, 0.7), (0.3, 0.7), (0.1, 0.6), (0.9, 0.7))]
    assert best_of(trials).values == {"weight": 0.3}
    assert best_of([a_trial(0.7, first=0.1, second=0.9), a_trial(0.7, first=0.1, second=0.2)]).values["second"] == 0.2
    assert best_of([a_trial(0.1, weight=0.0), a_trial(0.9, weight=1.0)]).values == {"weight": 1.0}


def test_what_was_kept_is_found_again_whole_and_in_order(tmp_path: Path) -> None:
    home = str(tmp_path / "checkpoints")
    assert finished(home) == [] and find(home, {"weight": 0.1}) is None
    third = 1 / 3
    trials = [a_trial(0.5, weight=0.9), a_trial(0.25, weight=0.1), a_trial(0.125, weight=third)]
    for trial in trials:
        keep(home, trial)
    assert [trial.values["weight"] for trial in finished(home)] == [0.1, third, 0.9]
    assert find(home, {"weight": third}) == trials[2] and find(home, {"weight": 0.333}) is None
    (Path(home) / FOLDER / "abc.json.new").write_text("{")
    assert len(finished(home)) == 3, "what is being written is not read"
    keep(home, a_trial(0.75, weight=0.9))
    assert find(home, {"weight": 0.9}).score == 0.75
    (Path(home) / FOLDER / f"{key_of({'weight': 0.9})}.json").write_text('{"values": 1}')
    with pytest.raises(ValidationError):
        finished(home)


def test_values_are_the_same_whatever_their_order_or_type() -> None:
    assert key_of({"first": 1, "second": 0.5}) == key_of({"second": 0.5, "first": 1.0})
    assert len({key_of({"first": value}) for value in (0.1, 0.2, 0.1 + 2**-50)} | {key_of({"second": 0.1})}) == 4
