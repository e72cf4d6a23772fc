"""`make setup-cuda` and `make gpu` where there is no GPU, or not the right one: one clear line, and nothing is installed."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu

WITHOUT_GPU = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")


def made(target: str, place, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess:
    asked = ["make", "--no-print-directory", target, f"VENV={place}"]
    outer = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }  # where `make test` runs this
    return subprocess.run(asked, cwd=ROOT, env=outer | {"PATH": path}, capture_output=True, text=True)


def errors(ended: subprocess.CompletedProcess) -> list[str]:
    return [line for line in ended.stderr.splitlines() if not line.startswith("make:")]


def driver(folder, version: str) -> str:
    """The path on which a machine's nvidia-smi tells this version of the driver."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@WITHOUT_GPU
@pytest.mark.parametrize("target", ["gpu", "setup-cuda"])
def test_without_a_gpu_both_say_so(target, tmp_path) -> None:
    ended = made(target, tmp_path / "venv")
    assert ended.returncode == 2 and ended.stdout == "" and not (tmp_path / "venv").exists()
    (line,) = errors(ended)
    assert line.startswith("error: no NVIDIA GPU here") and target in line


def test_an_old_driver_is_named(tmp_path) -> None:
    ended = made("setup-cuda", tmp_path / "venv", driver(tmp_path, "550.54.15"))
    assert ended.returncode == 2 and not (tmp_path / "venv").exists()
    assert errors(ended) == ["error: the NVIDIA driver is 550.54.15; right would be 580 or later, for CUDA 13"]


def test_an_environment_for_the_cpu_is_not_made_over(tmp_path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "ready").touch()
    ended = made("setup-cuda", tmp_path / "venv", driver(tmp_path, "595.91.07"))
    assert ended.returncode == 2 and not (tmp_path / "venv" / "cuda").exists()
    (line,) = errors(ended)
    assert "has the packages for the CPU" in line


def test_what_the_environment_is_made_of_follows_from_how_it_was_set_up(tmp_path) -> None:
    def pinned() -> set[str]:
        asked = ["make", "--dry-run", f"VENV={tmp_path}", f"{tmp_path}/ready"]
        told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return {name for name in ("cpu", "cuda") if f"-r requirements/{name}.txt" in told}

    assert pinned() == {"cpu"}
    (tmp_path / "cuda").touch()
    assert pinned() == {"cuda"}


@WITHOUT_GPU
def test_the_program_says_that_torch_finds_none() -> None:
    ended = subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu.py"], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: torch ") and "finds no GPU; right would be `make setup-cuda`" in line


def test_a_part_is_stopped_in_time_with_all_that_it_started(tmp_path) -> None:
    inner = f"import os, time; open({str(tmp_path / 'inner')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    outer = f"import subprocess, sys; print('a figure', flush=True); subprocess.run([sys.executable, '-c', {inner!r}])"
    began, found = time.monotonic(), []
    with pytest.raises(gpu.Unfinished, match="not within the ten minutes"):
        found.extend(gpu.lines_of([sys.executable, "-c", outer], began + 5))
        pytest.fail("it ended by itself")
    assert time.monotonic() - began < 60
    number = int((tmp_path / "inner").read_text())
    with suppress(psutil.NoSuchProcess):
        psutil.Process(number).wait(30)  # it has been killed, and ends when the system comes to it
    assert not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE


def test_lines_before_the_end_are_kept() -> None:
    found = gpu.lines_of([sys.executable, "-c", "print('a figure', flush=True); raise SystemExit(3)"], time.monotonic() + 60)
    assert next(found) == "a figure\n"
    with pytest.raises(gpu.Unfinished, match="ended with 3"):
        next(found)


@WITHOUT_GPU
def test_a_test_that_found_no_gpu_has_not_passed() -> None:
    lines = list(gpu.tests(time.monotonic() + 300, "tests/training/test_training_attention.py"))
    assert len(lines) == 4
    for line in lines:
        assert "test_training_attention::test_the_gpu_gives_the_numbers_of_the_cpu" in line["name"]
        assert line["goal"] == "passes" and line["met"] is False and "no GPU" in line["note"]
