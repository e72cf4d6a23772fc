"""benchmarks/rehearsal_server.py: the S3 server that counts."""

import json
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow.fs as pafs
import pytest

from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from rehearsal_run import s3_server


@pytest.mark.timeout(240)
@pytest.mark.parametrize("size", [1000, 1 << 20, 25 << 20])
def test_bytes_of_a_request_are_counted(size: int, tmp_path: Path) -> None:
    """Of an object that is uploaded at once and in parts; a large one lies on the disk."""
    data = np.random.default_rng(0).bytes(size)
    with s3_server(tmp_path / "objects", tmp_path / "requests.jsonl") as uri:
        fs, path = pafs.FileSystem.from_uri(uri)
        with fs.open_output_stream(f"{path}/object") as stream:
            stream.write(data)
        with fs.open_input_stream(f"{path}/object") as stream:
            assert stream.read() == data
        (server,) = [child for child in psutil.Process().children() if str(tmp_path) in child.cmdline()[-1]]
        held = [str(link.readlink()) for link in Path(f"/proc/{server.pid}/fd").iterdir()]
        assert any(place.startswith(str(tmp_path / "objects")) for place in held) == (size > 64 << 10)
    requests = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    written = sum(each["in"] for each in requests if each["method"] in ("PUT", "POST"))
    assert size <= written < size + 2000, requests
    read = [each["out"] for each in requests if each["method"] == "GET" and each["path"].endswith("object")]
    assert sum(read) == size, requests
    assert all(each["path"].startswith("/rehearsal") for each in requests)
