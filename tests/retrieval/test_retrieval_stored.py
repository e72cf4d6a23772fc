"""Files of storage: whole or not at all, each once to a node, and as many requests as the server saw."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.retrieval.stored import Files, Traffic
from raysberta.storage.location import join


def test_a_local_file_is_mapped_where_it_lies(tmp_path: Path) -> None:
    files = Files("unit")
    files.write(str(tmp_path / "a" / "b"), b"0123456789")
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "b"]
    assert files.local(str(tmp_path / "a" / "b")) == files.local(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert files.traffic() == Traffic(requests=2, read=10, written=10)
    assert files.traffic() == Traffic()


def test_requests_are_as_many_as_the_server_saw(s3: str, s3_log: Path) -> None:
    """Written, read by two processes of one node, and a Parquet file by ranges."""
    one, other = Files("unit"), Files("unit")
    one.drop()
    rows = pa.table({"text": ["слово " * 50 + str(n) for n in range(20_000)], "number": np.arange(20_000)})
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=5000)
    place, data = join(s3, "stored", "a.parquet"), sink.getvalue()
    one.write(place, data)  # the file system is there, and the bucket's region known
    one.traffic()
    before = len(requests(s3_log))
    one.write(join(s3, "stored", "b.parquet"), data)
    assert one.local(place).read_bytes() == data.to_pybytes()
    assert other.local(place) == one.local(place)
    with other.opened(place) as stream:
        assert pq.ParquetFile(stream).read(columns=["number"]).equals(rows.select(["number"]))
    found = one.traffic() + other.traffic()
    seen = requests(s3_log)[before:]
    assert found.requests == len(seen), seen
    assert found.written == len(data) and len(data) < found.read < 2 * len(data)
    one.drop()
    assert not one.folder.exists()


@pytest.mark.parametrize("mib", [1, 9, 10, 12, 25])
def test_requests_of_a_large_file_are_counted_by_its_parts(mib: int, s3: str, s3_log: Path) -> None:
    files, data = Files("unit"), np.random.default_rng(0).bytes(mib << 20)
    files.write(join(s3, "stored", "first"), b"x")
    files.traffic()
    before = len(requests(s3_log))
    files.write(join(s3, "stored", f"large-{mib}"), data)
    assert files.traffic() == Traffic(len(seen := requests(s3_log)[before:]), 0, len(data)), seen


def requests(log: Path) -> list[str]:
    return re.findall(r'"(?:\x1b\[[0-9;]*m)*((?:GET|PUT|POST|HEAD|DELETE) [^"]*) HTTP', log.read_text())
