"""`make setup-cuda` and `make gpu` where there is no GPU, or not the right one: one clear line, and nothing is installed."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from source_tree import ROOT


def made(target: str, place, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess:
    asked = ["make", "--no-print-directory", target, f"VENV={place}"]
    return subprocess.run(asked, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True)


def errors(ended: subprocess.CompletedProcess) -> list[str]:
    return [line for line in ended.stderr.splitlines() if not line.startswith("make:")]


def driver(folder, version: str) -> str:
    """The path on which a machine's nvidia-smi tells this version of the driver."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_program_says_that_torch_finds_none() -> None:
    ended = subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu.py"], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith(f"error: torch {torch.__version__} finds no GPU") and ended.stderr.count("\n") == 1
