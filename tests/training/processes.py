"""Test programs run in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path


def environment() -> dict[str, str]:
    """Of a test program: it imports what the tests import, and has one thread."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "OMP_NUM_THREADS": "1"}


def in_a_process(folder: Path, encoder: Path, checkpoint: Path | str = "none") -> int:
    """How a training in a process of its own ended, see one_process.py."""
    program = [sys.executable, str(Path(__file__).with_name("one_process.py")), str(folder), str(encoder), str(checkpoint)]
    return subprocess.run(program, env=environment(), timeout=300, check=False).returncode


def run_both(script: Path, folder: Path, encoder: Path) -> None:
    """Run `script folder encoder rank` as ranks 0 and 1 of a process group; both must end well within four minutes."""
    workers = [subprocess.Popen([sys.executable, script, folder, encoder, str(rank)], env=environment()) for rank in range(2)]
    try:
        assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
