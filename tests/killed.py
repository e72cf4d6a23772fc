"""Runs of a Ray of their own that are killed with all that belongs to them: the program, Ray's processes and its workers."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from source_tree import ROOT

SECONDS = 500
"""A run starts slowly on a busy machine."""
PATH = f"{ROOT / 'platform'}:{ROOT / 'tests'}"


def killed_once(there: Callable[[], bool], program: Path, given: Path) -> None:
    """Start `program given PATH`, and kill it and every process under it with SIGKILL as soon as something is there.

    Args:
        there: Whether it is.
        program: A Python file, whose Ray is its own.
        given: Its first argument.
    """
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen([sys.executable, str(program), str(given), PATH], env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + SECONDS
        while not there():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        under = [] if process.poll() is not None else psutil.Process(process.pid).children(recursive=True)
        for each in (*under, process):  # a worker outlives its driver otherwise, and ends what it was doing
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(under, timeout=30)
