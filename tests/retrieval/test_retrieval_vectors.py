"""Vectors on storage: what is written comes back, whole or not at all, and only what is missing is asked for."""

from pathlib import Path

import numpy as np
import pytest

from raysberta.errors import InputError
from raysberta.retrieval import vectors
from raysberta.retrieval.vectors import Vectors, View, block_path, missing, require, undirected, write_block


def stored(folder: Path, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch, block: int = 7) -> Vectors:
    monkeypatch.setattr(vectors, "BLOCK_TEXTS", block)
    paths = []
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        paths.append(block_path(str(folder), [str(row) for row in range(start, start + len(part))]))
        write_block(paths[-1], part)
    return Vectors(tuple(paths), len(rows), rows.shape[1])


def test_rows_come_back_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(40, 6)).astype(np.float16).astype(np.float32)
    found = stored(tmp_path, rows, monkeypatch)
    assert found.shape == (40, 6)
    assert np.array_equal(found[3:29], rows[3:29])
    assert np.array_equal(found[35:99], rows[35:])
    some = draw.integers(0, 40, 90)
    assert np.array_equal(found[some], rows[some])
    assert found[np.zeros(0, np.int64)].shape == (0, 6)
    view = View(found, some)
    assert np.array_equal(view[5:60], rows[some][5:60])
    assert np.array_equal(View(view, np.array([4, 1]))[:], rows[some][[4, 1]])


def test_only_blocks_that_are_not_whole_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 4))
    sizes = [7, 7, 6]
    found = stored(tmp_path, rows, monkeypatch)
    assert missing(found.paths, sizes) == ([], 4)
    Path(found.paths[1]).write_bytes(b"cut short")
    assert missing(found.paths, sizes) == ([1], 4)
    Path(found.paths[0]).unlink()
    assert missing(found.paths, sizes) == ([0, 1], 4)
    assert missing([str(tmp_path / "nowhere" / "a.f16")], [3]) == ([0], 0)
    assert missing([], []) == ([], 0)
    assert block_path("f", ["ab", "c"]) != block_path("f", ["a", "bc"])


def test_a_vector_that_is_none_is_stored_as_zeros_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.ones((9, 3), np.float32)
    rows[2, 1], rows[4], rows[8, 0] = np.nan, 0.0, np.inf
    assert write_block(str(tmp_path / "block.f16"), rows) == 3
    found = stored(tmp_path, rows, monkeypatch)
    assert undirected(found, step=4).tolist() == [2, 4, 8]
    assert not found[np.array([2, 4, 8])].any()
    with pytest.raises(InputError, match="the vector of passage 2 is zero"):
        require(found, "passage")


def test_options_of_a_uri_stay_behind_the_path() -> None:
    place = block_path("s3://bucket/runs/vectors/0a?endpoint_override=http://localhost:9000&scheme=http", ["a", "b"])
    head, _, options = place.partition("?")
    assert head.startswith("s3://bucket/runs/vectors/0a/") and head.endswith(".f16")
    assert options == "endpoint_override=http://localhost:9000&scheme=http"


def test_blocks_below_a_uri_are_found_and_read(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float16).astype(np.float32)
    path = block_path(f"file://{tmp_path}/vectors", ["nine texts"])
    assert missing([path], [9]) == ([0], 0)
    assert write_block(path, rows) == 0
    assert missing([path, block_path(f"file://{tmp_path}/vectors", ["other"])], [9, 2]) == ([1], 4)
    assert np.array_equal(Vectors((path,), 9, 4)[:], rows)
