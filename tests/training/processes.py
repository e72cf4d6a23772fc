"""A test program run as the two workers of a process group."""

import os
import subprocess
import sys
from pathlib import Path


def run_both(script: Path, folder: Path, encoder: Path) -> None:
    """Run `script folder encoder rank` for ranks 0 and 1 at once; both must end well within four minutes."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "OMP_NUM_THREADS": "1"}
    workers = [subprocess.Popen([sys.executable, script, folder, encoder, str(rank)], env=environment) for rank in range(2)]
    try:
        assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
