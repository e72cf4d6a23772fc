"""What of a registered benchmark lies outside the recipe: the index of its snapshot folder. No torch, no mteb: a dry run reads it."""

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raysberta.errors import InputError
from raysberta.evaluation.settings import Benchmark

INDEX = "snapshot.json"


class DataFile(BaseModel):
    """One file of a data set, its path relative to the snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    bytes: int
    sha256: str


class SnapshotTask(BaseModel):
    """A task and the data it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    revision: str
    folder: str
    files: list[DataFile]


class Snapshot(BaseModel):
    """What a snapshot folder holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    benchmark: str
    mteb: str
    tasks: dict[str, SnapshotTask]


def read_index(benchmark: str, folder: str | Path) -> Snapshot:
    """The index of a snapshot.

    Args:
        benchmark: The registered name that it must be of.
        folder: Where it should be.

    Raises:
        InputError: there is none, it cannot be read, or it is of another benchmark.
    """
    right = f"right would be a folder that jobs/fetch_benchmark.py filled with {benchmark}"
    file = Path(folder) / INDEX
    if not file.is_file():
        raise InputError(f"{folder} has no {INDEX}; {right}")
    try:
        snapshot = Snapshot.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise InputError(f"{file}: unreadable; fetch it again") from error
    if snapshot.benchmark != benchmark:
        raise InputError(f"{file}: holds {snapshot.benchmark}; {right}")
    return snapshot


def check_size(root: Path, file: DataFile) -> None:
    """A file is there, as long as when it was fetched.

    Raises:
        InputError: it is not.
    """
    path = root / file.path
    if not path.is_file() or path.stat().st_size != file.bytes:
        raise InputError(f"{path}: missing or cut; fetch the snapshot again")


def benchmark_state(benchmark: Benchmark) -> dict[str, Any]:
    """What the scores on a benchmark depend on beside its settings: the SHA-256 of its snapshot's index, which has that of every file."""
    file = Path(benchmark.snapshot) / INDEX
    if not file.is_file():
        return {"missing": True}
    return {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def check_benchmark(name: str, benchmark: Benchmark) -> list[str]:
    """What is wrong with a benchmark's snapshot, a line each; the files' sizes are compared, their hashes are the stage's to check.

    Args:
        name: Of the entry of `benchmarks`.
        benchmark: That entry.
    """
    key = f"benchmarks.{name}.snapshot"
    try:
        snapshot = read_index(benchmark.name, benchmark.snapshot)
    except InputError as error:
        return [f"{key}: {error}"]
    problems = []
    for file in (file for task in snapshot.tasks.values() for file in task.files):
        try:
            check_size(Path(benchmark.snapshot), file)
        except InputError as error:
            problems.append(f"{key}: {error}")
    return problems
