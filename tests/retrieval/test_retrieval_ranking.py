"""The search over actors: shards merged give what one process gives, and a killed actor changes nothing."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import ray

from raysberta.errors import InputError
from raysberta.retrieval.search import search
from raysberta.retrieval.vectors import BLOCK_TEXTS, Vectors, write_block
from raysberta.retrieval.workers import Plan, Ranking
from raysberta.work import Workers

TWO = Workers(workers=2, cpus=1.0)


def exact(count: int, seed: int) -> np.ndarray:
    """Vectors whose products are exact in any order of summation, so that equal means equal in any shard."""
    return (np.random.default_rng(seed).integers(-8, 9, (count, 24)) / 32).astype(np.float32)


def ranked(ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    parts = list(ranking)
    assert [part[0] for part in parts] == [0, *(part[1] for part in parts[:-1])]
    return np.concatenate([part[2] for part in parts]), np.concatenate([part[3] for part in parts])


def on_storage(folder: Path, rows: np.ndarray) -> Vectors:
    paths = [str(folder / f"{start}.f16") for start in range(0, len(rows), BLOCK_TEXTS)]
    for number, path in enumerate(paths):
        write_block(path, rows[number * BLOCK_TEXTS : (number + 1) * BLOCK_TEXTS])
    return Vectors(tuple(paths), len(rows), rows.shape[1])


@pytest.mark.usefixtures("ray_local")
def test_two_actors_with_a_shard_each_and_one_of_them_killed(tmp_path: Path) -> None:
    documents = np.concatenate([exact(2600, 1), exact(900, 1)])  # 900 equal pairs, in different shards
    queries = exact(700, 2)
    scores, rows = search(queries, documents, 30)
    vectors = on_storage(tmp_path, documents)
    with Ranking(vectors, queries, 30, Plan(workers=TWO)) as ranking:
        assert len(ranking.actors) == 2
        found = ranked(ranking)
        assert np.array_equal(found[1], rows)
        np.testing.assert_allclose(found[0], scores, atol=1e-6)
        slices = iter(ranking)
        victim = ray.get(ranking.actors[1].process.remote())
        ranking.slices = type(ranking.slices)(100, 1024)
        first = next(slices)
        os.kill(victim, signal.SIGKILL)
        rest = [first, *slices]
        assert len(rest) == 7
        assert np.array_equal(np.concatenate([part[3] for part in rest]), rows)
        assert ray.get(ranking.actors[1].process.remote()) != victim


def test_an_approximate_search_reports_its_recall() -> None:
    documents, queries = exact(3000, 1), exact(300, 2)
    with Ranking(documents, queries, 25, Plan("ivf", 0.95, 256)) as ranking:
        rows = ranked(ranking)[1]
        report = ranking.report
    truth = search(queries, documents, 25)[1]
    true = np.mean([len(np.intersect1d(a, b)) / 25 for a, b in zip(rows, truth, strict=True)])
    assert report["shards"][0]["recall"] == report["recall_measured"]
    assert report["recall_measured"] >= 0.95
    assert abs(report["recall_measured"] - true) < 0.01


def test_one_worker_searches_here_and_within_its_memory() -> None:
    documents, queries = exact(500, 1), exact(40, 2)
    ranking = Ranking(documents, queries, 10, Plan())
    assert ranking.actors == []
    assert np.array_equal(ranked(ranking)[1], search(queries, documents, 10)[1])
    with pytest.raises(InputError, match=r"right would be \d+"):
        Ranking(documents, queries, 10, Plan(memory_mib=80))
    with pytest.raises(InputError, match="no documents"):
        Ranking(documents[:0], queries, 10, Plan())
