"""Components by ranges against union-find over all edges at once, and over bands of real texts."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysberta.corpus.components import BANDED, EDGES, large_star, meet_in_range, small_star, star_in_range
from raysberta.corpus.duplicates import BANDS, bands, clusters, forest, minhashes, near
from raysberta.corpus.packaged import docstrings
from raysberta.corpus.shingles import mix
from raysberta.corpus.verdicts import Stays
from raysberta.storage.runs import Place, Run, ranges, read_runs


def everything(runs: list[Run], place: Place) -> np.ndarray:
    table = read_runs(runs, 0, place.buckets, EDGES)
    return np.stack([table["node"].to_numpy(), table["to"].to_numpy()], axis=1)


def settled(edges: list[Run], place: Place, parts: int) -> tuple[dict[int, int], int]:
    """The least node of the component of each node that is not it, and the rounds that it took."""
    rounds, moved = 0, True
    while moved:
        moved, rounds = False, rounds + 1
        for large in (True, False):
            found = [star_in_range([edges], first, last, place, large) for first, last in ranges(place.buckets, parts)]
            edges, moved = [run for runs, _ in found for run in runs], moved or any(more for _, more in found)
    both = everything(edges, place)
    assert {tuple(edge) for edge in both.tolist()} == {tuple(edge) for edge in both[:, ::-1].tolist()}
    return {other: least for least, other in both.tolist() if least < other}, rounds


def written(pairs: np.ndarray, place: Place) -> list[Run]:
    writer = place.writer("edges")
    for own in (pairs, pairs[:, ::-1]):
        writer.add(pa.table([own[:, 0], own[:, 1]], EDGES), mix(np.ascontiguousarray(own[:, 0])))
    return writer.done()


def expected(pairs: np.ndarray) -> dict[int, int]:
    return dict(forest(pairs).tolist())


PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda pair: pair[0] != pair[1]), max_size=60)


@settings(max_examples=120, deadline=None)
@given(pairs=PAIRS, names=st.permutations(range(41)), parts=st.sampled_from([1, 2, 8]))
@example(pairs=[(number, number + 1) for number in range(40)], names=list(range(41)), parts=8)
def test_stars_find_what_union_find_finds(pairs: list[tuple[int, int]], names: list[int], parts: int):
    rows = np.array(names, np.uint64) << np.uint64(33)  # as rows of work units: nothing in the lower bits
    edges = rows[np.array(pairs, np.int64).reshape(-1, 2)]
    with TemporaryDirectory() as folder:
        place = Place(folder, 8, 1 << 20)
        found, _ = settled(written(edges, place), place, parts)
    assert found == expected(edges)


def test_a_long_chain_takes_few_rounds(tmp_path: Path):
    chain = np.stack([np.arange(4000), np.arange(4000) + 1], axis=1).astype(np.uint64)
    order = np.random.default_rng(5).permutation(4001).astype(np.uint64)
    place = Place(str(tmp_path), 16, 1 << 20)
    found, rounds = settled(written(order[chain], place), place, 4)
    assert set(found.values()) == {0} and len(found) == 4000
    assert rounds <= 14


def test_a_star_is_left_as_it_is():
    nodes, to = np.array([5, 5, 7, 9], np.uint64), np.array([7, 9, 5, 5], np.uint64)
    for step in (large_star, small_star):
        edges, moved = step(nodes, to)
        assert sorted(edges.tolist()) == [[7, 5], [9, 5]] and not moved
        empty, moved = step(nodes[:0], to[:0])
        assert empty.shape == (0, 2) and not moved


@pytest.mark.parametrize("parts", [1, 4])
def test_documents_that_share_bands_are_joined_range_by_range(tmp_path: Path, parts: int):
    """Docstrings of numpy, each also with its end cut off, in three work units; every seventh is out already."""
    texts = [found.text for item in docstrings.parts(("numpy",), "key")[:3] for found in docstrings.read(item, "key")][:150]
    texts += [text[: int(len(text) * 0.93)] for text in texts]
    signatures, has = minhashes(texts)
    hashes = bands(signatures)
    starts, stays = np.array([0, 100, 100, 180]), np.arange(len(texts)) % 7 != 0
    unit = np.searchsorted(starts, np.arange(len(texts)), side="right") - 1
    rows = (unit.astype(np.uint64) << np.uint64(36)) + (np.arange(len(texts)) - starts[unit]).astype(np.uint64)
    place = Place(str(tmp_path), 8, 1 << 20)
    writer = place.writer("bands")
    for chosen in np.array_split(np.flatnonzero(has), 3):
        own = hashes[chosen].reshape(-1)
        columns = [own, np.tile(np.arange(BANDS, dtype=np.uint8), len(chosen)), np.repeat(rows[chosen], BANDS)]
        writer.add(pa.table(columns, BANDED), own)
    runs, bits = writer.done(), Stays(starts, np.packbits(stays))
    edges = [run for first, last in ranges(8, parts) for run in meet_in_range([runs], first, last, bits, place)]
    found, _ = settled(edges, place, parts)
    ranks = np.arange(len(texts))
    whole = near(hashes, has & stays, ranks)
    joined = {int(rows[other]): int(rows[least]) for other, least in enumerate(whole.tolist()) if other != least}
    assert found == joined and len(joined) > 40
    place_of = {int(row): number for number, row in enumerate(rows.tolist())}
    pairs = np.array([[place_of[node], place_of[to]] for node, to in everything(edges, place).tolist()])
    assert clusters(pairs, ranks).tolist() == whole.tolist()
