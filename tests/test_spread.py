"""Tasks over many arguments: results in order, and never more at once than was granted."""

import itertools
import time

import pytest
import ray

from raysberta.spread import spread
from raysberta.work import Workers


def span(number: int) -> tuple[int, float, float]:
    begun = time.time()
    time.sleep(0.2)
    return number, begun, time.time()


def halves(number: int) -> tuple[int, int]:
    return number, -number


@pytest.mark.usefixtures("ray_local")
def test_results_come_in_order_and_within_the_grant() -> None:
    found = ray.get(spread(span, [(number,) for number in range(8)], Workers(workers=1, cpus=2)))
    assert [number for number, _, _ in found] == list(range(8))
    ordered = sorted((begun, ended) for _, begun, ended in found)
    assert all(later[0] >= earlier[1] - 0.01 for earlier, later in itertools.pairwise(ordered)), "each takes both cores"


@pytest.mark.usefixtures("ray_local")
def test_a_task_may_return_several_things() -> None:
    found = spread(halves, [(number,) for number in range(5)], Workers(), returns=2)
    assert [ray.get(pair) for pair in found] == [[number, -number] for number in range(5)]
    assert spread(halves, [], Workers()) == []
