"""How far a node is: a stage says it now and then, whoever runs the plan shows it.

What is said goes to a sink that the process sets; without one it is a log line, at most one every ten seconds.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

SECONDS = 10.0


@dataclass(frozen=True)
class Report:
    """How far a node is."""

    node: str
    what: str
    """What is counted: texts, steps, trials."""
    done: int
    total: int
    at: float
    """Seconds since the epoch."""


Sink = Callable[[Report], None]
_sink: Sink | None = None
_last: dict[tuple[str, str], float] = {}


def report_to(sink: Sink | None) -> None:
    """Where this process's reports go."""
    global _sink
    _sink = sink


def progress(node: str, what: str, done: int, total: int, every: float | None = None) -> None:
    """Say how far a node is. Cheap: what is said too soon after the last time is dropped, unless it is the end.

    Args:
        node: Its name in the recipe.
        what: What is counted.
        done: How many are done.
        total: Of how many.
        every: Seconds between two reports; by whether somebody watches where None.
    """
    now = time.monotonic()
    gap = every if every is not None else (1.0 if _sink is not None else SECONDS)
    if done < total and now - _last.get((node, what), -gap) < gap:
        return
    _last[node, what] = now
    if _sink is not None:
        _sink(Report(node, what, done, total, time.time()))
    else:
        log.info("%s: %d of %d %s", node, done, total, what)
