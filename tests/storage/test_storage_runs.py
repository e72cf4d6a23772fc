"""Runs: every row comes back once, in its range, however rows and files are cut, and on an object store too."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.schema import text_id
from raysberta.storage import runs as module
from raysberta.storage.artifacts import Store
from raysberta.storage.runs import MOST_IDS, Place, RunWriter, bucket_of, numbers, power_of_two, ranges, read_runs, scratch, texts

SCHEMA = pa.schema([("id", pa.uint64()), ("text", pa.string()), ("more", pa.list_(pa.string()))])


def table(ids: list[int]) -> pa.Table:
    return pa.table([pa.array(ids, pa.uint64()), [f"слово {each}" for each in ids], [["a"] * (each % 3) for each in ids]], SCHEMA)


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 2**64 - 1), max_size=80),
    cut=st.integers(1, 80),
    most=st.sampled_from([1, 500, 1 << 20]),
    buckets=st.sampled_from([1, 4, 64]),
    parts=st.sampled_from([1, 2, 16, 128]),
)
def test_every_row_comes_back_in_its_range(ids: list[int], cut: int, most: int, buckets: int, parts: int):
    with TemporaryDirectory() as folder:
        writer = RunWriter(Place(folder, buckets, most), "rows")
        for start in range(0, len(ids), cut):
            own = table(ids[start : start + cut])
            writer.add(own, own["id"].to_numpy())
        runs = writer.done()
        assert sum(run.rows for run in runs) == len(ids) and len(runs) == len(list(Path(folder).iterdir()))
        found = [read_runs(runs, first, last, SCHEMA) for first, last in ranges(buckets, parts)]
    assert len(found) == min(parts, buckets)
    for number, own in enumerate(found):
        assert all(each * len(found) >> 64 == number for each in own["id"].to_pylist())
    rows = [row for own in found for row in own.to_pylist()]
    key = lambda row: row["id"]  # noqa: E731
    assert sorted(rows, key=key) == sorted(table(ids).to_pylist(), key=key)


def test_ids_are_numbers_in_the_same_order():
    ids = sorted([text_id(str(number)) for number in range(500)] + ["0" * 16, "f" * 16, "00" * 4 + "ff" * 4])
    found = numbers(pa.chunked_array([ids[:100], ids[100:]]))
    assert found.tolist() == [int(each, 16) for each in ids]
    assert texts(found).to_pylist() == ids
    assert numbers(pa.array([], pa.string())).tolist() == texts(np.empty(0, np.uint64)).to_pylist() == []


def test_more_ids_than_a_column_of_strings_holds_are_refused(monkeypatch: pytest.MonkeyPatch):
    assert MOST_IDS * 16 == 1 << 31, "which an offset of 32 bits is below"
    monkeypatch.setattr(module, "MOST_IDS", 3)
    assert len(texts(np.arange(2, dtype=np.uint64))) == 2
    with pytest.raises(ValueError, match="3 ids are more"):
        texts(np.arange(3, dtype=np.uint64))


def test_ranges_of_more_buckets_are_the_same_ranges():
    ids = np.random.default_rng(1).integers(0, 2**64, 2000, dtype=np.uint64)
    for buckets in (8, 64, 4096):
        width = buckets // 8
        assert (bucket_of(ids, buckets) // width == bucket_of(ids, 8)).all()
        assert ranges(buckets, 8) == [(first, first + width) for first in range(0, buckets, width)]
    assert [power_of_two(each) for each in (0, 0.3, 1, 1.1, 2, 5, 64, 65)] == [1, 1, 1, 2, 2, 8, 64, 128]


def test_scratch_is_gone_afterwards_and_no_part_of_the_artifact(tmp_path: Path):
    _check_scratch(Store(str(tmp_path)))


def test_scratch_behind_a_uri(s3: str):
    _check_scratch(Store(s3))


def _check_scratch(store: Store) -> None:
    draft = store.draft("pairs", "runs")
    with pytest.raises(KeyError), scratch(draft) as folder:
        _written(folder)
        raise KeyError
    with scratch(draft) as folder:
        runs = _written(folder)
        assert read_runs(runs, 0, 4, SCHEMA).num_rows == 5 and len(runs) == 2
        assert store.fs.get_file_info(pafs.FileSelector(f"{store.home('pairs', 'runs')}", recursive=True))
    assert [file.path for file in store.commit(draft, "pairs", "runs", {}, {}, 1, 0.0).manifest.files] == []


def _written(folder: str) -> list:
    writer = Place(folder, 4, 1).writer("rows")
    for ids in ([1, 2**63], [3, 4, 2**62]):
        writer.add(table(ids), np.array(ids, np.uint64))
    return writer.done()
