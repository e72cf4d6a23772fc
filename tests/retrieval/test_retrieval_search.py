import faiss
import numpy as np
import pytest

from raysberta.errors import InputError
from raysberta.retrieval.search import search


def vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_same_as_sorting_the_full_matrix():
    queries, documents = vectors(40, seed=1), vectors(300, seed=2)
    scores, ids = search(queries, documents, 25, slice_rows=7)
    full = queries @ documents.T
    assert np.array_equal(ids, np.argsort(-full, axis=1, kind="stable")[:, :25])
    assert np.allclose(scores, np.take_along_axis(full, ids, 1), atol=1e-6)
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)


def test_equal_scores_stand_in_order_of_the_index_also_at_the_end():
    documents = np.repeat(vectors(3), 40, axis=0)[np.random.default_rng(3).permutation(120)]
    queries = vectors(5, seed=4)
    for k in (1, 7, 40, 41, 119):
        _, ids = search(queries, documents, k)
        full = np.round(queries @ documents.T, 5)
        assert np.array_equal(ids, np.lexsort((np.broadcast_to(np.arange(120), full.shape), -full))[:, :k])


def test_fewer_documents_than_asked_for_give_fewer_columns():
    scores, ids = search(vectors(2), vectors(3, seed=1), 10)
    assert scores.shape == ids.shape == (2, 3)
    assert all(sorted(row) == [0, 1, 2] for row in ids.tolist())


def test_no_queries_give_no_rows():
    assert search(np.zeros((0, 16), np.float32), vectors(3), 2)[1].shape == (0, 2)


def test_threads_are_set_back():
    before = faiss.omp_get_max_threads()
    search(vectors(3), vectors(4), 2, threads=before + 1)
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize(("value", "word"), [(0.0, "zero"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_a_vector_that_is_none_is_named(value: float, word: str):
    bad = vectors(5)
    bad[3] = value
    with pytest.raises(InputError, match=f"document 3 is {word}"):
        search(vectors(2), bad, 2)
    with pytest.raises(InputError, match=f"query 3 is {word}"):
        search(bad, vectors(2), 2)


def test_what_cannot_be_searched():
    with pytest.raises(InputError, match="no documents"):
        search(vectors(2), np.zeros((0, 16), np.float32), 2)
    with pytest.raises(InputError, match="16 dimensions, documents 8"):
        search(vectors(2), vectors(2, 8), 2)
