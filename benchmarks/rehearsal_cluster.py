"""Two Ray nodes of one core each on this machine, each with a temporary folder of its own; one of them, or a worker, can be killed."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.exceptions import GetTimeoutError, RpcError

from raysberta.pipeline import local

OBJECT_STORE = 512 << 20
"""Bytes of each node's object store."""
START_SECONDS = 120
STARTS = 4
"""On a busy machine a node gives up before its agents are there: it is started so many times at most."""
NO_WORK = ("ray::IDLE", "ray::Board", "ray::_Board", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::SPILL", "ray::RESTORE")


class TwoNodes:
    """A head and a second node. What they start ends with them, and they end with this process."""

    def __init__(self, runs: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rsb-"))  # short: a socket's path holds 107 bytes
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environment = {**local.environment(runs), "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": self.address}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "TwoNodes":
        try:
            self._start("a", ["--head", f"--port={self.port}", "--include-dashboard=false", f"--ray-client-server-port={_free_port()}"])
            self.start_second()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.family():
            _kill(process)
        for node in self.nodes.values():
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_second(self) -> None:
        """Start the second node, with nothing left of one that was there before."""
        self._start("b", [f"--address={self.address}"])

    def alive(self) -> dict[str, Path]:
        """The nodes that the cluster has, by id, with their temporary folders; none before its head answers."""
        if not _listens(self.port):
            return {}
        try:
            told = GcsClient(address=self.address).get_all_node_info(timeout=START_SECONDS)
        except (RpcError, GetTimeoutError):
            return {}
        return {key.hex(): Path(node.temp_dir) for key, node in told.items() if node.state == GcsNodeInfo.GcsNodeState.ALIVE}

    def kill_second(self) -> None:
        """End the second node's raylet as a power cut would; its workers end by themselves."""
        raylet = self._raylet("b")
        if raylet is not None:
            _kill(raylet)
        self.nodes["b"].wait(60)

    def kill_worker(self, leads: Mapping[str, object]) -> str | None:
        """Kill one process that works on a task; its name, or None where none is there.

        Args:
            leads: Names of nodes: the processes that lead their stages are left alone.
        """
        for process in self.family():
            name = name_of(process)
            if name.startswith("ray::") and not name.startswith(NO_WORK) and name.removeprefix("ray::") not in leads:
                _kill(process)
                return name
        return None

    def family(self) -> list[psutil.Process]:
        """Every process of the two nodes."""
        found = [process for node in self.nodes.values() for process in family_of(node.pid)]
        return list({process.pid: process for process in [*found, *self._orphans(str(self.folder))]}.values())

    def _orphans(self, mark: str) -> Iterator[psutil.Process]:
        """Workers whose raylet is gone belong to nobody, but name their folder."""
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and any(mark in part for part in process.cmdline()):
                    yield process
            except psutil.Error:
                continue

    def _start(self, name: str, arguments: list[str]) -> None:
        home = self.folder / name
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats", *arguments]
        command += [f"--temp-dir={home}", f"--object-store-memory={OBJECT_STORE}"]
        # workers of both nodes would else take ports of one range; an agent listens at a fixed one
        command += ["--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--dashboard-agent-listen-port={_free_port()}"]
        own = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"} | {"TMPDIR": str(home / "tmp")}
        for _ in range(STARTS):
            before = self.alive()
            shutil.rmtree(home, ignore_errors=True)
            (home / "tmp").mkdir(parents=True)
            with (self.folder / f"{name}.log").open("wb") as log:
                self.nodes[name] = subprocess.Popen(
                    command, env=own, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
                )
            deadline = time.monotonic() + START_SECONDS
            while self.nodes[name].poll() is None and time.monotonic() < deadline:
                if home in [folder for key, folder in self.alive().items() if key not in before]:
                    return
                time.sleep(0.3)
            for process in [*family_of(self.nodes[name].pid), *self._orphans(str(home))]:
                _kill(process)
            self.nodes[name].wait()
        raise SystemExit(f"error: Ray node {name} did not start: {(self.folder / f'{name}.log').read_text()[-800:]}")

    def _raylet(self, name: str) -> psutil.Process | None:
        return next((process for process in family_of(self.nodes[name].pid) if name_of(process).endswith("/raylet")), None)


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all that it started; none where it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def name_of(process: psutil.Process) -> str:
    """What a process is: Ray names its workers by what they run."""
    try:
        return (process.cmdline() or [process.name()])[0].partition("(")[0].strip().split(" ")[0]
    except psutil.Error:
        return ""


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.Error:
        return


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
