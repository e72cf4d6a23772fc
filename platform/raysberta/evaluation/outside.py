"""What of a registered benchmark lies outside the recipe: the index of its snapshot folder. No torch, no mteb: a dry run reads it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, ValidationError

from raysberta.errors import InputError
from raysberta.evaluation.settings import Benchmark
from raysberta.storage.location import filesystem, join, shown

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


def read_index(benchmark: str, place: str | Path) -> Snapshot:
    """The index of a snapshot.

    Args:
        benchmark: The registered name that it must be of.
        place: Folder or URI where it should be.

    Raises:
        InputError: there is none, it cannot be read, or it is of another benchmark.
    """
    right = f"right would be a folder that jobs/fetch_benchmark.py filled with {benchmark}"
    data, name = _index(place), shown(f"{place}")
    if data is None:
        raise InputError(f"{name} has no {INDEX}; {right}")
    try:
        snapshot = Snapshot.model_validate_json(data)
    except ValidationError as error:
        raise InputError(f"{name}/{INDEX}: unreadable; fetch it again") from error
    if snapshot.benchmark != benchmark:
        raise InputError(f"{name}/{INDEX}: holds {snapshot.benchmark}; {right}")
    return snapshot


def wrong_sizes(place: str | Path, files: Iterable[DataFile]) -> list[str]:
    """What is wrong with files of a snapshot, a line each: one is not there, or not as long as when it was fetched."""
    fs, root = filesystem(f"{place}")
    wanted = list(files)
    infos = fs.get_file_info([f"{root}/{file.path}" for file in wanted])
    wrong = [file for file, info in zip(wanted, infos, strict=True) if not info.is_file or info.size != file.bytes]
    return [f"{shown(join(str(place), file.path))}: missing or cut; fetch the snapshot again" for file in wrong]


def benchmark_state(benchmark: Benchmark) -> dict[str, Any]:
    """What the scores on a benchmark depend on beside its settings: the SHA-256 of its snapshot's index, which has that of every file."""
    data = _index(benchmark.snapshot)
    return {"missing": True} if data is None else {"sha256": hashlib.sha256(data).hexdigest()}


def check_benchmark(name: str, benchmark: Benchmark) -> list[str]:
    """What is wrong with a benchmark's snapshot, a line each; the files' sizes are compared, their hashes are the stage's to check.

    Args:
        name: Of the entry of `benchmarks`.
        benchmark: That entry.
    """
    try:
        snapshot = read_index(benchmark.name, benchmark.snapshot)
        wrong = wrong_sizes(benchmark.snapshot, [file for task in snapshot.tasks.values() for file in task.files])
    except InputError as error:
        wrong = [str(error)]
    return [f"benchmarks.{name}.snapshot: {problem}" for problem in wrong]


def _index(place: str | Path) -> bytes | None:
    fs, path = filesystem(join(f"{place}", INDEX))
    if fs.get_file_info(path).type != pafs.FileType.File:
        return None
    with fs.open_input_file(path) as stream:
        return stream.read()
