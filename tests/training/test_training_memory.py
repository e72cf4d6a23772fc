"""What a training process keeps of the memory that it freed."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

from raysberta.training.engine import ALLOCATOR


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_chunks_to_recompute_have_the_memory_of_those_before():
    """About 50 MiB; without ALLOCATOR 213 and 410 in two runs."""
    program = [sys.executable, str(Path(__file__).with_name("many_chunks.py"))]
    done = subprocess.run(program, env=environment() | ALLOCATOR, stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout) < 100, "MiB for 64 chunks"
