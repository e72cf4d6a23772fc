"""A rehearsed recipe on two nodes: run until it is done, with a worker and a raylet killed on the way, watched throughout."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from raysberta.nodes import nodes_of
from raysberta.parsing import load
from raysberta.pipeline.plan import plan
from raysberta.storage.artifacts import Store
from rehearsal_cluster import TwoNodes, family_of
from rehearsal_watch import Watch

ROOT = Path(__file__).parents[1]
SERVER = Path(sys.prefix) / "s3" / "bin" / "python"
KILLS = {"worker": "natural", "raylet": "mined"}
"""What is killed, and in which node's stage."""
AFTER_SECONDS = 4.0
"""After the stage has started."""
ATTEMPTS = 4
NO_SUCH_WORKER_SECONDS = 20.0


@dataclass
class Sitting:
    """What became of a run so far; kept in a file, so that several sittings count as one."""

    file: Path
    attempts: int = 0
    killed: dict[str, str] = field(default_factory=dict)
    """What was killed, and what it was doing."""
    seconds: float = 0.0

    @classmethod
    def read(cls, file: Path) -> "Sitting":
        """As the file has it."""
        return cls(file, **json.loads(file.read_text())) if file.exists() else cls(file)

    def write(self) -> None:
        """Keep it."""
        said = {name: value for name, value in vars(self).items() if name != "file"}
        self.file.write_text(json.dumps(said), encoding="utf-8")


def run(recipe: Path, runs: Path, place: Path, kills: bool) -> Sitting:
    """Run a recipe to its end, going on from what is there.

    Args:
        recipe: Its file.
        runs: Caches of everything that is started.
        place: For what is known of the run: looks, logs, kills.
        kills: Whether a worker and a raylet are killed, each once.

    Raises:
        SystemExit: it did not end well in ATTEMPTS attempts; the message has the job's last words.
    """
    place.mkdir(parents=True, exist_ok=True)
    sitting = Sitting.read(place / "sitting.json")
    titles = dict.fromkeys(nodes_of(load(recipe)))
    for _ in range(ATTEMPTS):
        if _whole(recipe):
            return sitting
        begun = time.monotonic()
        sitting.attempts += 1
        sitting.write()
        log = place / f"attempt-{sitting.attempts}.log"
        with TwoNodes(runs) as nodes, _job(recipe, nodes, log) as job:
            watched = lambda: [*nodes.family(), *family_of(job.pid)]  # noqa: E731 - within this turn
            with Watch(watched, place / "looks.jsonl"):
                while job.poll() is None:
                    time.sleep(0.5)
                    if kills:
                        _kill(sitting, nodes, log, titles)
        sitting.seconds += time.monotonic() - begun
        sitting.write()
        if job.returncode == 0:
            return sitting
        if job.returncode == 2:
            break
    words = "\n".join(log.read_text(errors="replace").strip().splitlines()[-12:])
    raise SystemExit(f"error: {recipe.name} did not end well in {sitting.attempts} attempts ({log}):\n{words}")


def _whole(recipe: Path) -> bool:
    """Whether every node of a recipe is there."""
    asked = load(recipe)
    return all(item.artifact is not None for item in plan([asked], Store(asked.storage)).nodes)


def _kill(sitting: Sitting, nodes: TwoNodes, log: Path, titles: dict[str, None]) -> None:
    """Kill what is to be killed now: when the stage has run for a while."""
    said = log.read_text(errors="replace")
    for what, node in KILLS.items():
        if what in sitting.killed or f"{node}: started" not in said or f"{node}: done" in said:
            continue
        time.sleep(AFTER_SECONDS)
        if what == "raylet":
            nodes.kill_second()
            nodes.start_second()
            sitting.killed[what] = node
        elif (name := _some_worker(nodes, titles)) is not None:
            sitting.killed[what] = name
        sitting.write()


def _some_worker(nodes: TwoNodes, titles: dict[str, None]) -> str | None:
    deadline = time.monotonic() + NO_SUCH_WORKER_SECONDS
    while (name := nodes.kill_worker(titles)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return name


@contextmanager
def _job(recipe: Path, nodes: TwoNodes, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "jobs/full_pipeline.py", "--recipe", str(recipe)]
    with log.open("wb") as output:
        job = subprocess.Popen(command, cwd=ROOT, env=nodes.environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield job
        finally:
            if job.poll() is None:
                job.terminate()
                job.wait(60)


@contextmanager
def watched(command: list[str], environment: dict[str, str], log: Path, looks: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is looked at while it runs; it has ended when the block is left."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        with Watch(lambda: family_of(process.pid), looks):
            yield process
            process.wait()


@contextmanager
def s3_server(folder: Path, requests: Path) -> Iterator[str]:
    """An S3 server on this machine with its objects in a folder; the URI of a folder in its bucket."""
    import pyarrow.fs as pafs

    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / "server.log"
    with log.open("wb") as stream:
        command = [str(SERVER), str(Path(__file__).with_name("rehearsal_server.py")), str(folder), str(requests)]
        server = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        while (found := re.search(r"listening on ([0-9.:]+)", log.read_text())) is None:
            if server.poll() is not None:
                raise SystemExit(f"error: the S3 server did not start: {log.read_text()[-500:]}")
            time.sleep(0.1)
        uri = f"s3://access:secret@rehearsal/run?endpoint_override={found[1]}&scheme=http&region=us-east-1"
        pafs.FileSystem.from_uri(f"{uri}&allow_bucket_creation=true")[0].create_dir("rehearsal")
        yield uri
    finally:
        server.terminate()
        server.wait()
