"""All tests and benchmarks that need a GPU, within ten minutes, one JSON line each: `make gpu`.

Exit code 0: all tests passed and all parts ended; 1: not so; 2: there is no GPU to ask. Goals that a figure misses are told in its line.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as xml
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 570.0
"""Of all parts together; what has not ended by then is stopped, and what it printed before stands."""
Line = dict[str, Any]


class Unfinished(Exception):
    """A part was stopped, or broke."""


def lines_of(program: Sequence[str], until: float) -> Iterator[str]:
    """What a program prints, line by line.

    Args:
        program: Runs in a process group of its own, so that what it starts is stopped with it.
        until: The monotonic second at which it is stopped.

    Raises:
        Unfinished: it was stopped, or ended with something else than 0.
    """
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    stop = threading.Timer(max(0.0, until - time.monotonic()), os.killpg, [process.pid, signal.SIGKILL])
    stop.start()
    assert process.stdout is not None
    try:
        yield from process.stdout
        code = process.wait()
    finally:
        stop.cancel()
    if code:
        late = "not within the ten minutes" if code == -signal.SIGKILL else f"ended with {code}"
        raise Unfinished(f"{' '.join(map(str, program[1:3]))}: {late}")


def tests(until: float, place: str = "tests") -> Iterator[Line]:
    """A line for each test of a file or folder that is marked gpu; one that was skipped has not passed."""
    with tempfile.TemporaryDirectory() as aside:
        report = Path(aside) / "report.xml"
        program = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:xdist", "-o", "addopts=", "-q", f"--junitxml={report}", place]
        try:
            for line in lines_of(program, until):
                print(line, end="", file=sys.stderr)
        except Unfinished:
            if not report.is_file():
                raise
        for case in xml.parse(report).iter("testcase"):
            wrong = [found.get("message", "") for kind in ("failure", "error", "skipped") for found in case.iter(kind)]
            name = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
            yield {"name": name, "seconds": float(case.get("time", 0)), "goal": "passes", "met": not wrong, "note": " ".join(wrong)[:500]}


def figures(until: float) -> Iterator[Line]:
    """The lines of the training benchmark."""
    for line in lines_of([sys.executable, str(ROOT / "benchmarks" / "training.py"), "--only", "gpu"], until):
        if line.startswith("{"):
            yield json.loads(line)


def main() -> int:
    """Print a line on the machine, then those of each part."""
    import torch  # seconds, and the parts are processes of their own

    if not torch.cuda.is_available():
        print(f"error: torch {torch.__version__} finds no GPU; right would be `make setup-cuda`, on a machine with one", file=sys.stderr)
        return 2
    device, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": torch.cuda.device_count()}
    print(json.dumps({"name": "device", "device": device, "memory_gib": round(memory / 2**30, 1), **versions}), flush=True)
    until, whole = time.monotonic() + SECONDS, True
    for part in (tests, figures):
        try:
            for line in part(until):
                print(json.dumps({"device": device, **line}, ensure_ascii=False), flush=True)
                whole &= line.get("goal") != "passes" or line["met"]
        except Unfinished as error:
            whole = False
            print(json.dumps({"name": part.__name__, "device": device, "goal": "ends", "met": False, "note": str(error)}), flush=True)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
