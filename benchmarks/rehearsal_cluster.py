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
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from raysberta.pipeline import local

OBJECT_STORE = 512 << 20
"""Bytes of each node's object store."""
START_SECONDS = 120
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
        self._start("a", ["--head", f"--port={self.port}", "--include-dashboard=false"])
        self._wait(lambda: _listens(self.port), "a")
        self.start_second()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.family():
            _kill(process)
        for node in self.nodes.values():
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_second(self) -> None:
        """Start the second node, with nothing left of one that was there before."""
        shutil.rmtree(self.folder / "b", ignore_errors=True)
        self._start("b", [f"--address={self.address}"])
        self._wait(lambda: self._raylet("b") is not None, "b")

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
        mark = str(self.folder)
        roots = [psutil.Process(node.pid) for node in self.nodes.values() if node.poll() is None]
        found = {process.pid: process for root in roots for process in [root, *root.children(recursive=True)]}
        for process in psutil.process_iter():  # workers whose raylet is gone belong to nobody
            try:
                if process.pid != os.getpid() and process.pid not in found and any(mark in part for part in process.cmdline()):
                    found[process.pid] = process
            except psutil.Error:
                continue
        return list(found.values())

    def _start(self, name: str, arguments: list[str]) -> None:
        home = self.folder / name
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats", *arguments]
        command += [f"--temp-dir={home}", f"--object-store-memory={OBJECT_STORE}"]
        own = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"} | {"TMPDIR": str(home / "tmp")}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.nodes[name] = subprocess.Popen(
                command, env=own, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
            )

    def _raylet(self, name: str) -> psutil.Process | None:
        try:
            family = psutil.Process(self.nodes[name].pid).children(recursive=True)
            return next((process for process in family if process.name() == "raylet"), None)
        except psutil.Error:
            return None

    def _wait(self, there: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not there():
            if self.nodes[name].poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"error: Ray node {name} did not start: {(self.folder / f'{name}.log').read_text()[-800:]}")
            time.sleep(0.3)


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
