"""What the cluster has when asked, and an autoscaler's nodes used as they come: Ray's own autoscaling test cluster, from zero workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray._private.services import get_node_ip_address
from ray.cluster_utils import AutoscalingCluster

from raysberta.errors import InputError
from raysberta.pipeline.cluster import Cluster, Free
from raysberta.work import Workers

ROOT = Path(__file__).parents[2]
RUN = """
import json, sys, time
sys.path[:0] = sys.argv[2:4]
import ray
from pipeline.small_stages import RECIPE, Seen, planned
from raysberta.pipeline.execution import execute
from raysberta.storage.artifacts import Store
from raysberta.work import Workers
ray.init(address=sys.argv[1], log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": ":".join(sys.argv[2:4])}})
begun = ray.cluster_resources().get("CPU", 0)
recipe = RECIPE.model_copy(update={"limits": RECIPE.limits.model_copy(update={"wait_for_nodes": True, "wait_minutes": float(sys.argv[5])})})
store, seen = Store(sys.argv[4]), Seen()
more = json.loads(sys.argv[6])
nodes = [(name, (), {"seconds": 8, "workers": Workers(**more)}) for name in ("a", "b")]
plan = planned(store, *nodes, recipe=recipe)
try:
    outcome = execute(plan, store, seen)
    made = [outcome.artifacts[key].manifest for key in plan.ids["runner"].values()]
    print(json.dumps({"begun": begun, "spans": [(item.started, item.started + item.seconds) for item in made],
                      "cpus": ray.cluster_resources().get("CPU", 0)}))
except Exception as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


class TestCluster(AutoscalingCluster):
    """The same beside other Rays of this machine: its `start` would stop them all."""

    __test__ = False

    def __init__(self, folder: Path, types: dict) -> None:
        super().__init__({"CPU": 0}, types, idle_timeout_minutes=10, max_workers=4)
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment |= {
            "RAY_AUTH_MODE": "disabled",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def _generate_config(self, head_resources: dict, worker_node_types: dict, autoscaler_v2: bool = False, **more: object) -> dict:
        """What Ray's own class reads from a file that its package lacks."""
        head = {"ray.head.default": {"resources": head_resources, "node_config": {}, "max_workers": 0}}
        empty = ("file_mounts", "docker")
        lists = (
            "cluster_synced_files",
            "file_mounts_sync_continuously",
            "initialization_commands",
            "setup_commands",
            "head_setup_commands",
        )
        lists += ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter")
        return {
            "cluster_name": "fake_multinode",
            "provider": {"type": "fake_multinode", "disable_node_updaters": True, "disable_launch_config_check": True},
            "available_node_types": {**worker_node_types, **head},
            "head_node_type": "ray.head.default",
            "upscaling_speed": 1.0,
            "auth": {"ssh_user": "nobody"},
            **{name: {} for name in empty},
            **{name: [] for name in lists if name != "file_mounts_sync_continuously"},
            "file_mounts_sync_continuously": False,
            "no_restart": False,
            **more,
        }

    def up(self) -> None:
        self._config["provider"]["gcs_address"] = f"{get_node_ip_address()}:{self.port}"  # it would look at the usual port
        file = self.folder / "cluster.json"
        file.write_text(json.dumps(self._config))
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={self.port}", "--num-cpus=0"]
        command += [f"--autoscaling-config={file}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        command += ["--object-store-memory=100000000", "--disable-usage-stats"]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def down(self) -> None:
        mark = str(self.folder)
        ours = [process for process in psutil.process_iter(["cmdline"]) if any(mark in part for part in process.info["cmdline"] or [])]
        for process in ours:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        self.process.wait(timeout=20)

    def run(self, storage: Path, minutes: float, workers: dict) -> dict:
        arguments = [f"127.0.0.1:{self.port}", str(ROOT / "platform"), str(ROOT / "tests"), str(storage), str(minutes), json.dumps(workers)]
        done = subprocess.run([sys.executable, "-c", RUN, *arguments], env=self.environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def autoscaling() -> Iterator[TestCluster]:
    """A head of no cores, and an autoscaler that brings at most two workers of one core."""
    with tempfile.TemporaryDirectory(prefix="rsb-") as folder:
        types = {"small": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}}
        cluster = TestCluster(Path(folder), types)
        cluster.up()
        try:
            deadline = time.monotonic() + 90
            while not _listens(cluster.port):
                assert cluster.process.poll() is None, (cluster.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.5)
            yield cluster
        finally:
            cluster.down()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.timeout(600)
def test_nodes_come_from_zero_and_independent_stages_overlap(autoscaling: TestCluster, tmp_path: Path) -> None:
    found = autoscaling.run(tmp_path / "store", 5, {})
    assert "error" not in found, found
    assert found["begun"] == 0
    assert found["cpus"] == 2
    (first, second) = found["spans"]
    assert max(first[0], second[0]) < min(first[1], second[1]), "both ran at once, on nodes that were not there at the start"


@pytest.mark.timeout(600)
def test_what_never_fits_is_refused_after_a_while_with_the_nodes_name(autoscaling: TestCluster, tmp_path: Path) -> None:
    found = autoscaling.run(tmp_path / "store", 0.1, {"gpus": 1.0})
    assert found["error"].startswith("InputError: resources: a asks for 1 CPU, 1 GPU, the cluster has ")
    assert "no node has come for 0.1 minutes" in found["error"]


@pytest.mark.usefixtures("ray_local")
def test_what_one_node_cannot_hold_is_refused_at_once() -> None:
    cluster = Cluster(wait_for_nodes=False, patience_seconds=1)
    cluster.check("small", Workers(workers=2))
    with pytest.raises(InputError, match="resources: large asks for 3 CPU, the cluster has 2"):
        cluster.check("large", Workers(workers=1, cpus=3))
    with pytest.raises(InputError, match="resources: drawn asks for 1 GPU, the cluster has 0"):
        cluster.check("drawn", Workers(gpus=1))
    Cluster(wait_for_nodes=True, patience_seconds=1).check("large", Workers(cpus=300))


@pytest.mark.usefixtures("ray_local")
def test_free_is_counted_anew() -> None:
    cluster = Cluster(wait_for_nodes=False, patience_seconds=1)
    assert cluster.free([]) == Free(2.0, 0.0)
    left = cluster.free([("a", Workers(workers=1, cpus=1.5))])
    assert left == Free(0.5, 0.0)
    assert left.holds(Workers(cpus=0.5)) and not left.holds(Workers(cpus=0.6)) and not left.holds(Workers(cpus=0.1, gpus=1))
    options = cluster.place(0.5)
    assert options["memory"] == 1 << 29 and options["scheduling_strategy"].node_id
