"""How far a node is: what reaches a sink or the log, and what is dropped as too soon."""

import logging
from collections.abc import Iterator

import pytest

from raysberta import progress as module
from raysberta.progress import Report, progress, report_to


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds that the test moves on, right after the machine was started."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "_last", {})
    yield now
    report_to(None)


@pytest.fixture
def said(clock: list[float]) -> list[Report]:
    reports: list[Report] = []
    report_to(reports.append)
    return reports


def test_the_first_the_last_and_one_a_second_are_said(clock: list[float], said: list[Report]) -> None:
    for step in range(1, 31):
        progress("tuned", "steps", step, 30)
        clock[0] += 0.125
    assert [report.done for report in said] == [1, 9, 17, 25, 30]
    assert {(report.node, report.what, report.total) for report in said} == {("tuned", "steps", 30)}
    assert said[0].at > 1.7e9  # seconds since the epoch


def test_nodes_do_not_silence_one_another(clock: list[float], said: list[Report]) -> None:
    for node in ("one", "two", "one", "two"):
        progress(node, "texts", 1, 9)
    assert [report.node for report in said] == ["one", "two"]


def test_another_thing_that_is_counted_is_said_at_once(clock: list[float], said: list[Report]) -> None:
    progress("mined", "texts", 5, 9)
    progress("mined", "queries", 0, 4)
    progress("mined", "queries", 1, 4)
    assert [(report.what, report.done) for report in said] == [("texts", 5), ("queries", 0)]


def test_every_says_how_often(clock: list[float], said: list[Report]) -> None:
    for step in range(4):
        progress("one", "steps", step, 9, every=0.0)
        progress("two", "steps", step, 9, every=5.0)
        clock[0] += 2.0
    assert [report.done for report in said if report.node == "one"] == [0, 1, 2, 3]
    assert [report.done for report in said if report.node == "two"] == [0, 3]


def test_without_a_sink_it_is_a_log_line_every_ten_seconds(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=module.log.name):
        for step in range(1, 26):
            progress("adapted", "steps", step, 25)
            clock[0] += 1.0
    assert caplog.messages == [f"adapted: {done} of 25 steps" for done in (1, 11, 21, 25)]
