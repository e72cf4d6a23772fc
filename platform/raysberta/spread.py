"""Ray tasks over many arguments, with a bound on how many wait or run at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray

from raysberta.storage.runs import Run
from raysberta.work import Workers


def alone(function: Callable[..., Any], workers: Workers, name: str, *arguments: Any) -> Any:
    """The result of one task with a worker's cores and GPUs. What it raises its stage raises; where it is lost, its stage begins again."""
    task = ray.remote(function).options(name=name, num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=0)
    return ray.get(task.remote(*arguments))


def spread(function: Callable[..., Any], arguments: Iterable[Sequence[Any]], workers: Workers) -> list[Any]:
    """References to the results, in order. At most twice as many tasks as workers wait or run at once."""
    task = ray.remote(num_cpus=workers.cpus)(function)
    found: list[Any] = []
    for number, each in enumerate(arguments):
        before = number - 2 * workers.workers
        if before >= 0:
            ray.wait([found[before]], fetch_local=False)
        found.append(task.remote(*each))
    return found


def by_range(
    function: Callable[..., Any],
    runs: Sequence[Sequence[Run]],
    ranges: Sequence[tuple[int, int]],
    workers: Workers,
    *same: Any,
    each: Sequence[Any] = (),
) -> list[Any]:
    """References to function(runs, first, last, *same) for each range of buckets, in order.

    Args:
        function: Reads what it needs of the runs itself, so nothing but the list of them travels.
        runs: One or more kinds of them.
        ranges: First bucket and the one behind the last, as `ranges` gives them.
        workers: Where.
        same: Further arguments, the same for all.
        each: A further last argument for each range.
    """
    shared = ray.put(list(runs))
    further: list[tuple[Any, ...]] = [(one,) for one in each] or [()] * len(ranges)
    return spread(function, ((shared, *span, *same, *own) for span, own in zip(ranges, further, strict=True)), workers)


def results(function: Callable[..., Any], arguments: Iterable[Sequence[Any]], workers: Workers) -> Iterator[Any]:
    """The results of tasks of a core each, in order, on as many cores as the workers have; twice as many at most wait, run or are held."""
    cores = workers.workers * workers.cpus
    task, shared = ray.remote(num_cpus=min(1.0, cores))(_called), ray.put(function)
    coming: deque[Any] = deque()
    for each in arguments:
        coming.append(task.remote(shared, *each))
        if len(coming) >= 2 * max(1, int(cores)):
            yield ray.get(coming.popleft())
    while coming:
        yield ray.get(coming.popleft())


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function that was put into the object store once, whatever comes with it."""
    return function(*arguments)
