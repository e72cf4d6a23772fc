"""The board: one actor of a run, on which its processes write how far they are and what they warn of, for the terminal to show."""

import contextlib
import logging
from typing import Any

import ray

from raysberta.progress import Report, report_to

NAME = "raysberta-board"
FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"
QUIET = ("ray", "transformers", "DeepSpeed", "deepspeed", "mteb", "sentence_transformers", "datasets", "httpx", "faiss")
MOST_WARNINGS = 200


class Board:
    """What was said since it was last read: the newest report of each node, and warnings, each text once in its life."""

    def __init__(self) -> None:
        self._reports: dict[str, Report] = {}
        self._fresh: list[str] = []
        self._seen: set[str] = set()

    def report(self, report: Report) -> None:
        """How far a node is."""
        self._reports[report.node] = report

    def warn(self, text: str) -> None:
        """A warning, kept the first time it is said."""
        if text not in self._seen and len(self._seen) < MOST_WARNINGS:
            self._seen.add(text)
            self._fresh.append(text)

    def read(self) -> tuple[list[Report], list[str]]:
        """Take down what is new."""
        found = list(self._reports.values()), self._fresh
        self._reports, self._fresh = {}, []
        return found


def open_board() -> Any:
    """The board of this run, made by the process that runs the plan; it ends with it."""
    actor: Any = ray.remote(Board)
    return actor.options(name=NAME, get_if_exists=True, num_cpus=0).remote()


def attach() -> None:
    """Log in this project's form, and send this process's progress and warnings to the board of the run, where there is one."""
    configure_logging()
    try:
        board = ray.get_actor(NAME)
    except ValueError:
        report_to(None)
        return
    report_to(lambda report: _say(board.report, report))
    room = logging.getLogger("raysberta")
    for old in [handler for handler in room.handlers if isinstance(handler, _ToBoard)]:
        room.removeHandler(old)  # a process outlives a run, and the board of that run is gone
    room.addHandler(_ToBoard(board))


def configure_logging() -> None:
    """Lines of this package with time and level; only warnings of the libraries."""
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt="%H:%M:%S", force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class _ToBoard(logging.Handler):
    """Sends warnings."""

    def __init__(self, board: Any) -> None:
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        _say(self._board.warn, f"{record.name.rsplit('.', 1)[-1]}: {record.getMessage()}")


def _say(method: Any, value: object) -> None:
    with contextlib.suppress(ray.exceptions.RayError):  # the run is over, nobody reads
        method.remote(value)
