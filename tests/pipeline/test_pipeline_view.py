"""What a person sees: lines, events that come back as they were, and the live view drawn into a text."""

import io
import time

from rich.console import Console

from raysberta.pipeline.view import Event, Events, Lines, Live

RUN = (
    Event("said", text="recipe smoke, storage /runs"),
    Event("started", "corpus"),
    Event("progress", "corpus", "documents", 50, 200),
    Event("warned", text="quality: few documents"),
    Event("waits", "e5", "another run makes it (process 7 on host); waiting for that"),
    Event("done", "corpus", "done in 3.0 s: 200 in, 120 out"),
)


def test_lines_say_what_starts_and_ends_and_not_every_step() -> None:
    said: list[str] = []
    with Lines(said.append) as view:
        for event in RUN:
            view.show(event)
        for step in range(100):
            view.show(Event("progress", "tuned", "steps", step, 100))
    texts = [line.split(" ", 1)[1] for line in said]
    assert texts == [
        "recipe smoke, storage /runs",
        "corpus: started",
        "warning: quality: few documents",
        "e5: another run makes it (process 7 on host); waiting for that",
        "corpus: done in 3.0 s: 200 in, 120 out",
    ], "progress comes every half minute only"
    assert all(time.strptime(line.split(" ", 1)[0], "%H:%M:%S") for line in said)


def test_lines_tell_progress_after_a_while(monkeypatch: object) -> None:
    said: list[str] = []
    view = Lines(said.append)
    view.show(Event("started", "tuned"))
    view._shown["tuned"] -= 31
    view.show(Event("progress", "tuned", "steps", 1500, 2000))
    assert said[-1].endswith("tuned: 1,500 of 2,000 steps")


def test_events_come_back_from_their_lines(capsys: object) -> None:
    with Events() as view:
        for event in RUN:
            view.show(event)
    lines = capsys.readouterr().out.splitlines()  # type: ignore[attr-defined]
    assert [Event.read(line) for line in lines] == list(RUN)
    assert Event.read("12:00:00 I raysberta: a line") is None
    assert Event.read("@event {broken") is None
    assert Event.read('@event {"no": "event"}') is None


def test_the_live_view_has_a_line_a_running_node_and_what_is_done_above() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, legacy_windows=False, color_system=None)
    with Live(console) as view:
        for event in RUN:
            view.show(event)
        view.show(Event("waits", "e5", "another run makes it (process 7 on host); waiting for that"))
        view.show(Event("started", "tuned"))
        view.show(Event("progress", "tuned", "steps", 10, 40))
        view._progress.refresh()
        drawn = out.getvalue()
    assert "corpus: done in 3.0 s: 200 in, 120 out" in drawn
    assert drawn.count("waiting for that") >= 1
    assert "tuned" in drawn and "10 of 40 steps" in drawn
    assert drawn.rindex("corpus: done") < drawn.rindex("10 of 40 steps"), "finished ones stand above"


def test_a_node_whose_process_was_lost_has_one_line_when_it_is_started_again() -> None:
    out = io.StringIO()
    with Live(Console(file=out, force_terminal=True, width=120, color_system=None)) as view:
        for event in (Event("started", "mined"), Event("warned", "mined", "mined: its process was lost"), Event("started", "mined")):
            view.show(event)
        assert [task.description for task in view._progress.tasks] == ["mined"]
    assert "warning: mined: its process was lost" in out.getvalue()
