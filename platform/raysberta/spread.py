"""Ray tasks over many arguments, with a bound on how many wait or run at once."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ray

from raysberta.work import Workers


def spread(function: Callable[..., Any], arguments: Iterable[Sequence[Any]], workers: Workers, returns: int = 1) -> list[Any]:
    """References to the results, in order: one each, or a list of `returns`. At most twice as many tasks as workers wait or run at once."""
    task = ray.remote(num_cpus=workers.cpus, num_returns=returns)(function)
    found: list[Any] = []
    for number, each in enumerate(arguments):
        before = number - 2 * workers.workers
        if before >= 0:
            ray.wait([found[before] if returns == 1 else found[before][0]], fetch_local=False)
        found.append(task.remote(*each))
    return found
