"""The next batch is made while the one before it is used."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(make: Callable[[int], T], first: int, last: int) -> Iterator[T]:
    """`make(first)` to `make(last - 1)` in order, each made by one other thread while the result before it is in use: one more is held.

    What `make` raises is raised where its result would come.
    """
    with ThreadPoolExecutor(1, "next-batch") as thread:
        coming = thread.submit(make, first) if first < last else None
        for number in range(first + 1, last + 1):
            assert coming is not None
            made = coming.result()
            coming = thread.submit(make, number) if number < last else None
            yield made
