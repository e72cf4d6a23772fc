"""Tasks over many arguments: results in order, and never more at once than was granted."""

import itertools
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from raysberta.spread import by_range, spread
from raysberta.storage.runs import Place, Run, ranges, read_runs
from raysberta.work import Workers

SCHEMA = pa.schema([("id", pa.uint64())])


def span(number: int) -> tuple[int, float, float]:
    begun = time.time()
    time.sleep(0.2)
    return number, begun, time.time()


def summed(runs: list[list[Run]], first: int, last: int, factor: int, plus: int = 0) -> tuple[int, int]:
    return first, factor * sum(read_runs(runs[0], first, last, SCHEMA)["id"].to_pylist()) + plus


@pytest.mark.usefixtures("ray_local")
def test_results_come_in_order_and_within_the_grant() -> None:
    found = ray.get(spread(span, [(number,) for number in range(8)], Workers(workers=1, cpus=2)))
    assert [number for number, _, _ in found] == list(range(8))
    ordered = sorted((begun, ended) for _, begun, ended in found)
    assert all(later[0] >= earlier[1] - 0.01 for earlier, later in itertools.pairwise(ordered)), "each takes both cores"


@pytest.mark.usefixtures("ray_local")
def test_each_range_has_its_own_rows_and_what_is_given_to_it(tmp_path: Path) -> None:
    writer = Place(str(tmp_path), 4, 1 << 20).writer("rows")
    ids = np.array([1, 2**62, 2**62 + 5, 2**63, 3 * 2**62], np.uint64)
    writer.add(pa.table([ids], SCHEMA), ids)
    runs = [writer.done()]
    assert ray.get(by_range(summed, runs, ranges(4, 2), Workers(), 2)) == [(0, 2 * (1 + 2**63 + 5)), (2, 2 * (2**63 + 3 * 2**62))]
    found = ray.get(by_range(summed, runs, ranges(4, 4), Workers(workers=2), 1, each=[10, 20, 30, 40]))
    assert found == [(0, 11), (1, 2**63 + 25), (2, 2**63 + 30), (3, 3 * 2**62 + 40)]
    assert spread(span, [], Workers()) == []
