"""IVF and HNSW: the recall that is stated is reached and is the one that a full sort gives."""

import numpy as np
import pytest

from raysberta.errors import InputError
from raysberta.retrieval.approximate import approximate, recall


def clustered(count: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, 32))
    found = centres[draw.integers(0, 40, count)] + 0.5 * draw.normal(size=(count, 32))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_recall_reaches_the_target_and_is_the_true_one(method: str) -> None:
    documents, queries = clustered(4000, 1), clustered(64, 2)
    find, tuned = approximate(method, documents, 1000, 4000, 20, 0.98, queries, 256)  # type: ignore[arg-type]
    scores, rows = find(queries, 20)
    truth = 1000 + np.argsort(-(queries @ documents[1000:].T), axis=1, kind="stable")[:, :20]
    assert tuned.recall >= 0.98
    assert np.isclose(recall(rows, truth), tuned.recall, atol=1e-4)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ documents.T, rows, 1), atol=1e-4)
    again, same = approximate(method, documents, 1000, 4000, 20, 0.98, queries, 256)  # type: ignore[arg-type]
    assert same == tuned
    assert np.array_equal(again(queries, 20)[1], rows)


def test_a_low_target_is_cheaper() -> None:
    documents, queries = clustered(4000, 1), clustered(64, 2)
    effort = [approximate("ivf", documents, 0, 4000, 20, target, queries, 256)[1].parameters["nprobe"] for target in (0.3, 1.0)]
    assert effort[0] < effort[1]


def test_an_index_that_does_not_fit_says_how_many_workers_would() -> None:
    with pytest.raises(InputError, match="times as many workers"):
        approximate("hnsw", np.broadcast_to(np.float32(1), (10**6, 384)), 0, 10**6, 20, 0.9, clustered(2, 0), 512)


def test_recall_of_hand() -> None:
    assert recall(np.array([[1, 2, -1], [7, 8, 9]]), np.array([[1, 2, 3], [9, 8, 7]])) == 5 / 6
    assert recall(np.zeros((0, 3)), np.zeros((0, 3))) == 1.0
