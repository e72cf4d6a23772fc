"""What a person sees of a run: a line a running node on a terminal, short log lines elsewhere, or events for another process to show."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

MARK = "@event "
"""Before an event on a line of its own."""
LINES_SECONDS = 30.0
"""Between two lines on how far a node is, where there is no terminal."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a node, or a line that belongs to none. A warning that names a node says that it does not run any more."""

    what: Literal["said", "started", "progress", "done", "waits", "warned"]
    node: str = ""
    text: str = ""
    done: int = 0
    total: int = 0

    def line(self) -> str:
        """For a process that shows it."""
        return f"{MARK}{json.dumps(asdict(self), ensure_ascii=False)}"

    @classmethod
    def read(cls, line: str) -> "Event | None":
        """An event from its line, None where it is another line."""
        if not line.startswith(MARK):
            return None
        try:
            return cls(**json.loads(line[len(MARK) :]))
        except (ValueError, TypeError):
            return None


class View(Protocol):
    """Shows events."""

    def show(self, event: Event) -> None:
        """Take up an event."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Lines:
    """Short lines: what started, how far it is now and then, what is done."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or (lambda text: print(text, flush=True))
        self._shown: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, event: Event) -> None:
        """Take up an event."""
        now = time.monotonic()
        if event.what == "progress" and now - self._shown.setdefault(event.node, now) < LINES_SECONDS:
            return
        if event.what in ("progress", "started"):
            self._shown[event.node] = now
        self._write(f"{time.strftime('%H:%M:%S')} {_words(event)}")


class Events:
    """Events as lines, for the process that started this one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, event: Event) -> None:
        """Take up an event."""
        sys.stdout.write(f"{event.line()}\n")  # in one piece: Ray's own thread prints what workers say between two pieces
        sys.stdout.flush()


class Live:
    """A line a running node with its progress, rate and time left; what is done stands above."""

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            SpinnerColumn(), TextColumn("[bold]{task.description}"), BarColumn(24), _Count(), _Left(), TimeElapsedColumn(), console=console
        )
        self._tasks: dict[str, TaskID] = {}
        self._waiting: set[str] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Take up an event."""
        if event.what == "started":
            self._tasks[event.node] = self._progress.add_task(event.node, total=None, what="")
            self._waiting.discard(event.node)
        elif event.what == "progress":
            if event.node in self._tasks:
                self._progress.update(self._tasks[event.node], completed=event.done, total=event.total, what=event.text)
        elif event.what != "waits" or event.node not in self._waiting:
            if event.what in ("done", "warned") and event.node in self._tasks:
                self._progress.remove_task(self._tasks.pop(event.node))
            if event.what == "waits":
                self._waiting.add(event.node)
            style = "yellow" if event.what == "warned" else None
            self._progress.console.print(Text(_words(event), style=style or ""), highlight=False)


class _Count(ProgressColumn):
    """Done of how many, and how many a second."""

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text("")
        rate = f", {task.speed:,.1f}/s" if task.speed else ""
        return Text(f"{task.completed:,.0f} of {task.total:,.0f} {task.fields.get('what', '')}{rate}")


class _Left(ProgressColumn):
    """Time left, by the rate so far."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text(f"{left // 60:.0f}:{left % 60:02.0f} left" if left else "", style="cyan")


def _words(event: Event) -> str:
    match event.what:
        case "started":
            return f"{event.node}: started"
        case "progress":
            return f"{event.node}: {event.done:,} of {event.total:,} {event.text}"
        case "done":
            return f"{event.node}: {event.text}"
        case "waits":
            return f"{event.node}: {event.text}"
        case "warned":
            return f"warning: {event.text}"
        case _:
            return event.text


def view_here() -> View:
    """What fits this process's standard output."""
    return Live() if sys.stdout.isatty() else Lines()
