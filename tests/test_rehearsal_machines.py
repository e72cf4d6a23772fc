"""benchmarks/rehearsal_*.py: two Ray nodes of this machine, one of which is killed and started anew, and the S3 server that counts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow.fs as pafs
import pytest

from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from rehearsal_cluster import TwoNodes
from rehearsal_run import s3_server

ON_EACH = """
import os, sys, time, ray

ray.init(logging_level="error", log_to_driver=False)

@ray.remote(num_cpus=1, max_retries=3)
def work(seconds):
    time.sleep(seconds)
    return ray.get_runtime_context().get_node_id(), os.environ["TMPDIR"], os.getpid()

for line in sys.stdin:
    for node, folder, _ in ray.get([work.remote(float(line)) for _ in range(2)]):
        print("at", node, folder, flush=True)
    print("done", flush=True)
"""


@pytest.mark.timeout(240)
def test_two_nodes_work_and_are_killed(tmp_path: Path) -> None:
    """Both take a task of one core at once, each with a temporary folder of its own; a killed worker's task is done again, and a second
    node is there again after its raylet was killed."""
    with TwoNodes(tmp_path) as nodes:
        first = nodes.alive()
        assert sorted(first.values()) == [nodes.folder / "a", nodes.folder / "b"]
        command = [sys.executable, "-c", ON_EACH]
        with subprocess.Popen(command, env=nodes.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdin is not None and driver.stdout is not None

            def ask(seconds: float) -> None:
                driver.stdin.write(f"{seconds}\n")
                driver.stdin.flush()

            def told() -> set[tuple[str, ...]]:
                lines = iter(driver.stdout.readline, "done\n")  # Ray has its say among them
                return {tuple(line.split()[1:]) for line in lines if line.startswith("at ")}

            ask(1)
            both = {(key, str(folder / "tmp")) for key, folder in first.items()}
            assert told() == both
            ask(3)
            while (killed := nodes.kill_worker({})) is None:
                assert driver.poll() is None
            assert killed == "ray::work" and told() == both
            nodes.kill_second()
            nodes.start_second()
            second = nodes.alive()
            (lost,), (new,) = first.keys() - second.keys(), second.keys() - first.keys()
            assert first[lost] == second[new] == nodes.folder / "b" and len(second) == 2
            ask(1)
            assert told() == {(key, str(folder / "tmp")) for key, folder in second.items()}
            driver.stdin.close()
        assert {process.pid for process in nodes.family()} >= {node.pid for node in nodes.nodes.values()}
        started = nodes.family()
    assert not psutil.wait_procs(started, timeout=10)[1]
    assert not nodes.folder.exists()


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
