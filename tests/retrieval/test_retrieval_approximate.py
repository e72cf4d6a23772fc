"""IVF and HNSW: the recall that is stated is reached and is the one that a full sort gives."""

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from raysberta.errors import InputError
from raysberta.retrieval.approximate import approximate, every, finder, gpu, loaded, placed, recall, saved
from raysberta.retrieval.search import search


def clustered(count: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, 32))
    found = centres[draw.integers(0, 40, count)] + 0.5 * draw.normal(size=(count, 32))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_recall_reaches_the_target_and_is_the_true_one(method: str) -> None:
    documents, queries = clustered(4000, 1), clustered(64, 2)
    index, tuned = approximate(method, documents, 1000, 4000, 20, 0.98, queries, 256)  # type: ignore[arg-type]
    scores, rows = finder(index, 1000)(queries, 20)
    truth = 1000 + np.argsort(-(queries @ documents[1000:].T), axis=1, kind="stable")[:, :20]
    assert tuned.recall >= 0.98
    assert np.isclose(recall(rows, truth), tuned.recall, atol=1e-4)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ documents.T, rows, 1), atol=1e-4)
    again, same = approximate(method, documents, 1000, 4000, 20, 0.98, queries, 256)  # type: ignore[arg-type]
    assert same == tuned
    assert np.array_equal(finder(again, 1000)(queries, 20)[1], rows)


def test_a_low_target_is_cheaper() -> None:
    documents, queries = clustered(4000, 1), clustered(64, 2)
    effort = [approximate("ivf", documents, 0, 4000, 20, target, queries, 256)[1].parameters["nprobe"] for target in (0.3, 1.0)]
    assert effort[0] < effort[1]


def test_an_index_that_does_not_fit_says_how_much_would() -> None:
    with pytest.raises(InputError, match=r"right would be search_memory_mib: \d+ or more, or method exact"):
        approximate("hnsw", np.broadcast_to(np.float32(1), (10**6, 384)), 0, 10**6, 20, 0.9, clustered(2, 0), 512)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_indexes_from_files_one_after_the_other_find_what_a_search_of_all_finds(method: str, tmp_path: Path) -> None:
    documents, queries = clustered(4000, 1), clustered(64, 2)
    bounds, opened = [(0, 1500), (1500, 3000), (3000, 4000)], []
    for first, last in bounds:
        index, tuned = approximate(method, documents, first, last, 20, 1.0, queries, 256)  # type: ignore[arg-type]
        (tmp_path / str(first)).write_bytes(saved(index))
        opened.append(lambda first=first, tuned=tuned: finder(loaded(tmp_path / str(first), tuned), first))
    scores, rows = every(opened, documents)(queries, 20)
    found = np.concatenate([each()(queries, 20)[1] for each in opened], axis=1)
    exact = np.where(found < 0, -np.inf, np.take_along_axis(queries @ documents.T, found, 1))
    best = np.take_along_axis(found, np.argsort(-exact, axis=1, kind="stable")[:, :20], 1)
    assert recall(rows, best) > 0.999, "the best of what each of them finds"
    assert recall(rows, search(queries, documents, 20)[1]) > (0.98 if method == "ivf" else 0.9)
    assert scores.shape == rows.shape == (64, 20)


def test_an_index_is_searched_where_it_was_measured_to_be_quicker() -> None:
    """A GPU's index stands for by a copy on the processor: what it is given and what it gives back have the same shapes and types."""
    documents, queries = clustered(3000, 1), clustered(64, 2)
    index, tuned = approximate("ivf", documents, 0, 3000, 20, 0.95, queries, 256)
    assert gpu() is None or faiss.get_num_gpus()
    owners: list[faiss.Index] = []  # a downcast index lives as long as the one that it was
    moved: list[faiss.Index] = []

    def move(given: faiss.Index) -> faiss.Index:
        owners.append(faiss.clone_index(given))
        copy = faiss.downcast_index(owners[-1])
        assert copy.nprobe == tuned.parameters["nprobe"], "effort goes along"
        moved.append(copy)
        return copy

    where, taken = placed(index, tuned, queries, 20, 1, move)
    assert set(taken) == {"cpu", "gpu"} and where.device == min(taken, key=taken.__getitem__) and len(moved) == 1
    assert placed(index, tuned, queries, 20, 1, None)[0] == tuned
    too_many = replace(tuned, parameters={**tuned.parameters, "nprobe": 4096})
    assert set(placed(index, too_many, queries, 20, 1, move)[1]) == {"cpu"}
    scores, rows = finder(moved[0], 500)(queries, 20)
    assert (scores.dtype, rows.dtype, scores.shape, rows.shape) == (np.float32, np.int64, (64, 20), (64, 20))
    assert np.array_equal(rows, finder(index, 500)(queries, 20)[1]) and rows.min() >= 500


def test_recall_of_hand() -> None:
    assert recall(np.array([[1, 2, -1], [7, 8, 9]]), np.array([[1, 2, 3], [9, 8, 7]])) == 5 / 6
    assert recall(np.zeros((0, 3)), np.zeros((0, 3))) == 1.0
