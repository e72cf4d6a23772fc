"""A local single-node Ray of one's own: up, submit a job, down. What it writes stays in the runs folder of the checkout.

It touches no other Ray on the machine: it picks free ports, keeps its own token and session folder, and stops only what it started.
"""

import ctypes
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import psutil

from raysberta.errors import InputError
from raysberta.pipeline.command import EVENTS
from raysberta.pipeline.view import MARK, Event, View

START_SECONDS = 90
CLIENT_PORT = 20001
"""Not the usual 10001: where another Ray has that, the next ones are those that Ray gives its workers."""
LONGEST_SESSION_PATH = 40
"""A UNIX socket's path holds 107 bytes, and Ray appends up to 64 to its temporary folder."""

WORKER = re.compile(r"^(\x1b\[[\d;]*[A-Za-z]|\s)*\(.*\bpid=\d+|(\x1b\[\d+m)?\(\S+ pid=\d+(, ip=[\da-f.:]+)?\)")
"""Where what a worker printed begins: with its name, also within a line, where two threads of a job write at once."""
LOGGED = re.compile(r"^(\[?\d{4}-\d\d-\d\d |\d\d:\d\d:\d\d [A-Z] )")
"""A line that a logger wrote."""
ADVICE = (
    "Job submission server address",
    "Next steps",
    "Query the logs",
    "Query the status",
    "Request the job",
    "ray job ",
    "Tailing logs",
    "-----",
    "Job '",
    "sdk.py:",
    "cli.py:",
    "packaging.py:",
    "working_dir.py:",
    "job_manager.py:",
    "PYTHON worker processes",
    "Running entrypoint",
    "Loading safetensors",
)


@dataclass(frozen=True)
class Cluster:
    """A local Ray: how to reach it, and who answers for it."""

    dashboard: str
    pid: int
    kept: bool
    """Started by `up`: stays until `down`. Otherwise it ends with the run that started it."""
    owner: int
    """Process that started it."""


def environment(runs: Path) -> dict[str, str]:
    """The environment of everything that is started: caches inside `runs`, no usage reports, token authentication."""
    cache = runs / "cache"
    inside = {
        "XDG_CACHE_HOME": cache,
        "HF_HOME": cache / "huggingface",
        "TORCH_EXTENSIONS_DIR": cache / "torch_extensions",
        "TRITON_CACHE_DIR": cache / "triton",
        "VLLM_CACHE_ROOT": cache / "vllm",
        "VLLM_CONFIG_ROOT": cache / "vllm",
        "MTEB_CACHE": cache / "mteb",
        "MPLCONFIGDIR": cache / "matplotlib",
        "NUMBA_CACHE_DIR": cache / "numba",
        "RAY_AUTH_TOKEN_PATH": runs / "ray" / "token",
    }
    plain = {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_COLOR_PREFIX": "0",
        "RAY_memory_monitor_refresh_ms": "1000",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    return {**os.environ, **{name: str(path) for name, path in inside.items()}, **plain}


def running(runs: Path) -> Cluster | None:
    """The cluster that the runs folder knows, if it still answers; a leftover of a dead run is stopped."""
    try:
        cluster = Cluster(**json.loads((runs / "ray" / "cluster.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if psutil.pid_exists(cluster.pid) and (cluster.kept or psutil.pid_exists(cluster.owner)) and _answers(cluster.dashboard):
        return cluster
    stop(runs)
    return None


def start(runs: Path, kept: bool) -> Cluster:
    """Start a head node with its dashboard and wait until it answers and its agent, which takes jobs, listens.

    Raises:
        InputError: it did not come up; the message names the log.
    """
    home = runs / "ray"
    home.mkdir(parents=True, exist_ok=True)
    token = home / "token"
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
    port, agent = _free_port(8265), _free_port(53365)  # not the default, which any other Ray may be about to take
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0", "--disable-usage-stats"]
    command += [
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={port}",
        f"--ray-client-server-port={_free_port(CLIENT_PORT)}",
    ]
    command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={_session_folder(runs)}"]
    with (home / "start.log").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(runs),
            start_new_session=True,
            preexec_fn=None if kept else _die_with_parent,
        )
    cluster = Cluster(f"http://127.0.0.1:{port}", process.pid, kept, os.getpid())
    (home / "cluster.json").write_text(json.dumps(asdict(cluster)))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(cluster.dashboard) and _listening(agent):
            return cluster
        time.sleep(0.5)
    stop(runs)
    said = [line for line in (home / "start.log").read_text(errors="replace").splitlines() if line.strip()]
    raise InputError(
        f"the local Ray did not start: {said[-1].strip() if said else f'no word within {START_SECONDS} s'} ({home / 'start.log'})"
    )


def stop(runs: Path) -> bool:
    """Stop the cluster of the runs folder and everything it started; whether there was one."""
    known = runs / "ray" / "cluster.json"
    folder = str(_session_folder(runs))
    found = known.exists()
    try:
        head = psutil.Process(json.loads(known.read_text())["pid"])
        family = [head, *head.children(recursive=True)]
    except (OSError, ValueError, KeyError, psutil.Error):
        family = []
    family += [process for process in psutil.process_iter() if process.pid != os.getpid() and _belongs(process, folder)]
    for process in family:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=4)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)
    known.unlink(missing_ok=True)
    return found


def submit(root: Path, runs: Path, cluster: Cluster, job: str, arguments: Sequence[str], view: View) -> tuple[int, str]:
    """Submit `jobs/<job>.py` with `ray job submit`, show its events and its own words, and give its exit code and its last JSON line.

    Everything goes to a log file; what workers and libraries print goes nowhere else. The JSON line is held back, so that the caller can
    print it last.

    Raises:
        InputError: Ray stopped on the way.
    """
    name = f"{job}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.dashboard, "--submission-id", name]
    command += ["--working-dir", str(root), "--log-style", "record", "--runtime-env-json", json.dumps({"env_vars": {EVENTS: "1"}})]
    command += ["--", sys.executable, f"jobs/{job}.py", *arguments]
    logs = runs / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (
        (logs / f"{name}.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, env=environment(runs), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        words, last = _shown(process.stdout, log, view)
    code = _exit_code(runs, cluster, name, process.returncode)  # first: the words of a client that has lost its Ray are a traceback
    for line in words:
        print(line, end="", flush=True)
    print(f"log:    {logs / f'{name}.log'}", flush=True)
    return code, last


def _shown(lines: Iterable[str], log: TextIO, view: View) -> tuple[list[str], str]:
    """Show the events among a job's lines; its own words, which it says at its end, and its last line if that is JSON."""
    words, last = [], ""
    repeated = False  # from there on Ray repeats the end of the log
    with view:
        for line in _own(lines, log):
            event = Event.read(line)
            repeated = repeated or "Status message:" in line
            if repeated:
                continue
            if event is not None:
                view.show(event)
            elif line.startswith("{") and '"reused"' in line:
                last = line.strip()
            elif _worth_showing(line):
                words.append(line)
    return words, last


def _own(lines: Iterable[str], log: TextIO) -> Iterator[str]:
    """A job's lines without what workers printed into them; all of it goes to the log."""
    for line in lines:
        log.write(line)
        log.flush()
        found = WORKER.search(line)
        if found is None:
            yield line
            continue
        before, rest = line[: found.start()], line[found.start() :]
        if before.strip():
            yield f"{before}\n"
        if MARK in rest:
            yield rest[rest.index(MARK) :]


def _exit_code(runs: Path, cluster: Cluster, name: str, otherwise: int) -> int:
    """The exit code of the job's own process: `ray job submit` only tells success from failure.

    Raises:
        InputError: Ray is there no more.
    """
    os.environ.update({key: environment(runs)[key] for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")})
    from ray.job_submission import JobSubmissionClient

    try:
        code = JobSubmissionClient(cluster.dashboard).get_job_info(name).driver_exit_code
    except ConnectionError as error:
        gone = f"the Ray at {cluster.dashboard} has stopped, with the run that had started it"
        raise InputError(f"{gone}; right would be the same command again, which goes on from what is there") from error
    except RuntimeError:
        return otherwise
    return otherwise if code is None else int(code)


def _worth_showing(line: str) -> bool:
    """The job's own words: not Ray's advice on logs, nor what workers print (the log file has all)."""
    return bool(line.strip()) and not LOGGED.match(line) and not any(part in line for part in ADVICE)


def _session_folder(runs: Path) -> Path:
    """Ray's session folder: inside `runs`, or a short one in the temporary directory where sockets would get too long a path."""
    inside = (runs / "ray").resolve()
    if len(str(inside)) <= LONGEST_SESSION_PATH:
        return inside
    return Path(tempfile.gettempdir()) / f"raysberta-{hashlib.sha256(str(inside).encode()).hexdigest()[:8]}"


def _listening(port: int) -> bool:
    """Whether some process of this machine listens there, on whatever address."""
    return any(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in psutil.net_connections(kind="tcp"))


def _answers(dashboard: str) -> bool:
    host, port = dashboard.removeprefix("http://").split(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


def _free_port(wanted: int) -> int:
    for port in (*range(wanted, wanted + 50), 0):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))  # on all addresses: another Ray's agent listens on the node's, not on the loopback
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise InputError("no free port on this machine")


def _belongs(process: psutil.Process, folder: str) -> bool:
    try:
        return any(folder in part for part in process.cmdline()) and "ray" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _signal(process: psutil.Process, what: signal.Signals) -> None:
    try:
        process.send_signal(what)
    except psutil.Error:
        return


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a killed run leaves no cluster behind
