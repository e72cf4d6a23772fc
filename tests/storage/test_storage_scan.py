"""Rows of a table, as Arrow's own scan gives them, without what that has in memory."""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.storage.scan import scan


def written(folder: Path, table: pa.Table, files: int, group: int) -> pads.Dataset:
    step = -(-table.num_rows // files) or 1
    for number in range(files):
        pq.write_table(table.slice(number * step, step), folder / f"part-{number:05d}.parquet", row_group_size=group)
    return pads.dataset(sorted(folder.iterdir()), format="parquet")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["train", "dev"]), max_size=60), st.integers(1, 3), st.integers(1, 7), st.integers(1, 9))
def test_rows_are_those_of_arrows_own_scan_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, splits: list[str], files: int, group: int, rows: int
) -> None:
    table = pa.table({"split": pa.array(splits, pa.string()), "n": pa.array(range(len(splits)), pa.int64())})
    chosen, doubled = pc.field("split") == "train", {"twice": pc.field("n") * 2}
    for dataset in (written(tmp_path_factory.mktemp("scan"), table, files, group), pads.dataset(table)):
        found = list(scan(dataset, ["n"], chosen, rows))
        assert [n for batch in found for n in batch["n"].to_pylist()] == dataset.to_table(filter=chosen)["n"].to_pylist()
        assert all(batch.num_rows <= rows and batch.schema.names == ["n"] for batch in found)
        assert [n for batch in scan(dataset, doubled, chosen, rows) for n in batch["twice"].to_pylist()] == [
            2 * n for batch in found for n in batch["n"].to_pylist()
        ]


def test_a_slow_reader_has_one_row_group_in_memory(tmp_path: Path) -> None:
    """64 groups of a MiB in eight files."""
    table = pa.table({"n": np.random.default_rng(0).integers(0, 1 << 62, 64 << 17)})
    dataset, everything = written(tmp_path, table, 8, 1 << 17), pc.field("n") >= 0
    del table

    def held(batches: Iterable[pa.RecordBatch]) -> int:
        before, most = pa.total_allocated_bytes(), 0
        for number, _ in enumerate(batches):
            if number % 1000 == 0:
                time.sleep(0.2)
            most = max(most, pa.total_allocated_bytes() - before)
        return most >> 20

    assert held(scan(dataset, ["n"], everything, 1024)) <= 4
    assert held(dataset.to_batches(columns=["n"], filter=everything, batch_size=1024)) > 16, "or there is no need for it"
