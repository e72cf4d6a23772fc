import itertools

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.errors import InputError
from raysberta.retrieval.search import FAISS_MIB, Slices, merge, search
from raysberta.retrieval.vectors import BLOCK_TEXTS


def vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def signs(count: int, seed: int) -> np.ndarray:
    """Unit vectors whose products are exact in any order of summation, so that equal means equal."""
    return np.random.default_rng(seed).choice(np.array([-0.25, 0.25], np.float32), (count, 16))


def test_the_same_as_sorting_the_full_matrix():
    queries, documents = vectors(40, seed=1), vectors(300, seed=2)
    scores, ids = search(queries, documents, 25, slices=Slices(7, 60))
    full = queries @ documents.T
    assert np.array_equal(ids, np.argsort(-full, axis=1, kind="stable")[:, :25])
    assert np.allclose(scores, np.take_along_axis(full, ids, 1), atol=1e-6)
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)


def test_equal_scores_stand_in_order_of_the_index_also_at_the_end():
    documents = np.repeat(signs(3, 1), 40, axis=0)[np.random.default_rng(3).permutation(120)]
    queries = signs(30, 2)
    full = queries @ documents.T
    order = np.lexsort((np.broadcast_to(np.arange(120), full.shape), -full))
    for k, slices, device in itertools.product((1, 7, 40, 41, 119), (Slices(), Slices(3, 50)), ("cpu", "cpu:0")):
        _, ids = search(queries, documents, k, slices=slices, device=device)
        assert np.array_equal(ids, order[:, :k])


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


def test_torch_slices_give_what_faiss_gives():
    queries, documents = vectors(50, seed=1), vectors(400, seed=2)
    scores, ids = search(queries, documents, 33)
    for slices in (Slices(), Slices(9, 64)):
        torch_scores, torch_ids = search(queries, documents, 33, slices=slices, device="cpu:0")
        assert np.array_equal(torch_ids, ids)
        np.testing.assert_allclose(torch_scores, scores, atol=1e-6)


def test_merged_shards_are_the_whole():
    queries, documents = vectors(30, seed=1), vectors(300, seed=2)
    scores, ids = search(queries, documents, 20)
    parts = []
    for first, last in ((0, 100), (100, 110), (110, 300)):
        some, rows = search(queries, documents[first:last], 20)
        parts.append((some, rows + first))
    merged = merge(parts, queries, documents, 20)
    assert np.array_equal(merged[1], ids)
    np.testing.assert_allclose(merged[0], scores, atol=1e-6)


def test_scores_closer_than_rounding_stand_as_in_float64_whatever_the_slices_and_the_library():
    draw = np.random.default_rng(5)
    documents = np.repeat(vectors(6, 48), 50, axis=0) + draw.normal(0, 3e-8, (300, 48))
    documents, queries = documents.astype(np.float32), vectors(40, 48, seed=1)
    truth = queries.astype(np.float64) @ documents.astype(np.float64).T
    expected = np.lexsort((np.broadcast_to(np.arange(300), truth.shape), -truth))
    changed = 0
    for k, slices, device in itertools.product((10, 60), (Slices(), Slices(9, 70)), ("cpu", "cpu:0")):
        assert np.array_equal(search(queries, documents, k, slices=slices, device=device)[1], expected[:, :k])
        changed += int((np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k] != expected[:, :k]).sum())
    assert changed, "float32 alone gives another order"


@settings(deadline=None, max_examples=40)
@given(st.integers(81, 4000), st.integers(2, 1024), st.integers(1, 500))
def test_slices_stay_within_the_memory_or_say_what_is_needed(memory: int, dimension: int, k: int):
    try:
        slices = Slices.within(memory, dimension, k)
    except InputError as error:
        least = int(str(error).rsplit(" ", 1)[1])
        assert least > memory
        Slices.within(least, dimension, k)
        return
    held = (slices.documents + BLOCK_TEXTS) * 4 * dimension + slices.queries * (4 * dimension + 36 * (k + 1))
    assert held <= (memory - FAISS_MIB) * 2**20
