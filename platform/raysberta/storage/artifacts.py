"""Named outputs: write aside, commit by manifest, reuse by fingerprint, trace back.

Layout: `<storage>/<kind>/<fingerprint>/<attempt>/...` holds the data, `<storage>/<kind>/<fingerprint>/manifest.json` commits it.
The manifest is written last and names the attempt, so no rename is needed and object stores work alike. What has no manifest
is never read; the next attempt, made under the lease of that fingerprint, removes it.
"""

import hashlib
import json
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from raysberta.errors import InputError
from raysberta.storage.local_copy import WEIGHTS, local_file, local_folder
from raysberta.storage.location import filesystem, first_line, in_uris, join, last, normal, parent, shown, without_user
from raysberta.storage.versions import git_commit, versions

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
ATTEMPT = "attempt-"
CHECKPOINTS = "checkpoints"
VECTORS = "vectors"
ROW_GROUP = 20_000
OBJECT_STORES = ("s3", "gcs", "abfs")
"""As pyarrow calls the file systems in which an object appears whole or not at all, and cannot be moved."""

Told = TypeVar("Told", bound=BaseModel)


class File(BaseModel):
    """One file of an artifact, its path relative to the attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    bytes: int
    rows: int | None = None


class Manifest(BaseModel):
    """What a committed artifact is, where it came from and what it cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    kind: str
    fingerprint: str
    attempt: str
    identity: dict[str, Any]
    """Settings that decided the result, references replaced by ids; the version of the code; what was outside."""
    inputs: dict[str, str]
    """Ids of the artifacts it was made from, by the names that the recipe gave them."""
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    facts: dict[str, Any]
    """What the stage says of itself: a class of its room, read by `told`."""
    files: list[File]
    seed: int
    started: float
    """Seconds since the epoch."""
    seconds: float
    versions: dict[str, str]
    commit: str

    @property
    def id(self) -> str:
        """What another artifact names it by."""
        return artifact_id(self.kind, self.fingerprint)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings among the identity."""
        return self.identity.get("settings", {})

    def told(self, facts: type[Told]) -> Told:
        """What the stage says of itself, as the class of its room.

        Raises:
            InputError: it was written by another version of that class.
        """
        try:
            return facts.model_validate(self.facts)
        except ValidationError as error:
            raise InputError(f"{self.id}: its manifest was written by another version: {error.errors()[0]['msg']}") from error


def artifact_id(kind: str, fingerprint: str) -> str:
    """An artifact's name in storage: its folder."""
    return f"{kind}/{fingerprint}"


def fingerprint(kind: str, identity: Mapping[str, Any], seed: int = 0) -> str:
    """16 hex digits over everything that decides a result: the settings with the ids of the inputs in them, code, outside, seed.

    Who reads a place, and by what password, decides nothing.
    """
    value = {"kind": kind, "identity": in_uris(without_user, identity), "seed": seed}
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artifact:
    """A committed output."""

    manifest: Manifest
    uri: str = field(repr=False)
    """Folder or URI of the attempt. Not printed by itself: credentials may stand in it."""

    def told(self, facts: type[Told]) -> Told:
        """What its stage says of itself."""
        return self.manifest.told(facts)

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table of the artifact, whole, in the order of its files' names."""
        return self.dataset(name).to_table(columns=columns)

    def dataset(self, name: str) -> pads.Dataset:
        """A table of the artifact, to be scanned.

        Raises:
            KeyError: it has no such table.
        """
        return pads.dataset(self.paths(name), filesystem=filesystem(self.uri)[0], format="parquet")

    def paths(self, name: str) -> list[str]:
        """The Parquet files of a table, as paths of its file system."""
        path = filesystem(self.uri)[1]
        files = sorted(f"{path}/{file.path}" for file in self._files(name) if file.path.endswith(".parquet"))
        if not files:
            raise KeyError(f"{self.manifest.id} has no table {name!r}")
        return files

    def rows(self, name: str) -> int:
        """Rows of a table, by the manifest."""
        return sum(file.rows or 0 for file in self._files(name))

    def _files(self, name: str) -> list[File]:
        return [file for file in self.manifest.files if file.path.startswith(f"{name}/")]

    def folder(self, name: str, weights: bool = True) -> Path:
        """A folder on this machine, copied once where storage is remote; `weights`: whether a model's tensors come along."""
        return local_folder(join(self.uri, name), self._key(name), "" if weights else WEIGHTS)

    def file(self, name: str) -> Path:
        """One file of the artifact on this machine, copied alone where storage is remote: a tokenizer comes without weights."""
        return local_file(join(self.uri, name), self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.manifest.id}/{self.manifest.attempt}/{name}"


@dataclass
class Draft:
    """An output being written: tables and folders, then counts, then the commit. Picklable."""

    uri: str = field(repr=False)
    """Folder or URI of the attempt. Not printed by itself: credentials may stand in it."""
    storage: str = field(repr=False)
    """Folder or URI of all artifacts."""
    rows_in: int = 0
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    spent: list[str] = field(default_factory=list, repr=False)
    """Folders or URIs that nobody needs once this is committed: the commit removes them, and nothing does before."""

    @property
    def checkpoints(self) -> str:
        """Folder or URI beside the attempts of this fingerprint, which outlives a killed one: what it goes on from."""
        return join(parent(self.uri), CHECKPOINTS)

    @property
    def vectors(self) -> str:
        """Folder or URI of the vectors that all nodes share."""
        return join(self.storage, VECTORS)

    def path(self, name: str) -> tuple[pafs.FileSystem, str]:
        """Where Ray Data writes a table: file system and path."""
        fs, path = filesystem(self.uri)
        fs.create_dir(f"{path}/{name}", recursive=True)
        return fs, f"{path}/{name}"

    def write_table(self, name: str, table: pa.Table, part: int = 0) -> None:
        """Write a table that fits in memory as one Parquet file: the whole of it, or one of its parts, numbered in their order."""
        fs, path = self.path(name)
        pq.write_table(table, f"{path}/part-{part:05d}.parquet", filesystem=fs, compression="zstd", row_group_size=ROW_GROUP)

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
        """Look at a folder or URI, which need not be there yet.

        Raises:
            InputError: it is no place that pyarrow.fs knows.
        """
        self.uri = normal(uri)
        try:
            self.fs, self.root = filesystem(self.uri)
        except InputError as error:
            raise InputError(f"storage {error}") from error

    @property
    def shown(self) -> str:
        """The location as it may be printed."""
        return shown(self.uri)

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def check_writable(self, min_free_gib: float) -> None:
        """Write and remove a probe file.

        Raises:
            InputError: the location cannot be written, or a local one has less than `min_free_gib` free.
        """
        probe = f"{self.root}/.probe-{uuid.uuid4().hex}"
        try:
            self.fs.create_dir(self.root, recursive=True)
            with self.fs.open_output_stream(probe) as stream:
                stream.write(b"probe")
            self.fs.delete_file(probe)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"storage {self.shown}: cannot be written: {first_line(error)}") from error
        if self.local:
            free = shutil.disk_usage(self.root).free / 2**30
            if free < min_free_gib:
                raise InputError(f"storage {self.shown}: {free:.1f} GiB free, limits.min_free_gib asks for {min_free_gib:g}")

    def home(self, kind: str, fingerprint: str) -> str:
        """Where the attempts, the lease and the manifest of a fingerprint lie, as a path of `fs`."""
        return f"{self.root}/{artifact_id(kind, fingerprint)}"

    def manifest(self, kind: str, fingerprint: str) -> Manifest | None:
        """The manifest of a fingerprint, or None where it was not committed or was written by another version."""
        try:
            with self.fs.open_input_stream(f"{self.home(kind, fingerprint)}/{MANIFEST}") as stream:
                return Manifest.model_validate_json(stream.read())
        except FileNotFoundError:
            return None
        except ValueError:
            log.warning("%s %s: manifest unreadable, making it again", kind, fingerprint)
            return None

    def find(self, kind: str, fingerprint: str) -> Artifact | None:
        """The committed artifact of a fingerprint, or None. One with missing or cut files counts as not committed."""
        manifest = self.manifest(kind, fingerprint)
        if manifest is None:
            return None
        attempt = f"{self.home(kind, fingerprint)}/{manifest.attempt}"
        listed = self.fs.get_file_info(pafs.FileSelector(attempt, recursive=True, allow_not_found=True))
        sizes = {info.path[len(attempt) + 1 :]: info.size for info in listed}
        for file in manifest.files:
            if sizes.get(file.path) != file.bytes:
                log.warning("%s %s: %s is missing or cut, making it again", kind, fingerprint, file.path)
                return None
        return Artifact(manifest, join(self.uri, kind, fingerprint, manifest.attempt))

    def earlier(self, kind: str, most: int = 5) -> list[Manifest]:
        """Manifests of a kind, whatever their fingerprint: the newest few, to estimate from."""
        folders = self.fs.get_file_info(pafs.FileSelector(f"{self.root}/{kind}", allow_not_found=True))
        found = self.fs.get_file_info([f"{info.path}/{MANIFEST}" for info in folders if info.type == pafs.FileType.Directory])
        newest = sorted((info for info in found if info.is_file), key=lambda info: info.mtime_ns or 0, reverse=True)[:most]
        manifests = (self.manifest(kind, info.path.rsplit("/", 2)[1]) for info in newest)
        return [manifest for manifest in manifests if manifest is not None]

    def draft(self, kind: str, fingerprint: str) -> Draft:
        """A new attempt, by the holder of the lease. What others left uncommitted is removed, `checkpoints` are kept to resume from."""
        home = self.home(kind, fingerprint)
        self.fs.create_dir(home, recursive=True)
        for info in self.fs.get_file_info(pafs.FileSelector(home)):
            if info.base_name.startswith(ATTEMPT):
                self.fs.delete_dir(info.path)
        attempt = f"{ATTEMPT}{uuid.uuid4().hex[:8]}"
        self.fs.create_dir(f"{home}/{attempt}")
        return Draft(join(self.uri, kind, fingerprint, attempt), self.uri)

    def commit(
        self,
        draft: Draft,
        kind: str,
        fingerprint: str,
        identity: Mapping[str, Any],
        inputs: Mapping[str, str],
        seed: int,
        started: float,
        facts: BaseModel | None = None,
    ) -> Artifact:
        """Make a draft readable, by the holder of the lease: list its files, then write the manifest last."""
        attempt = last(draft.uri)
        home = self.home(kind, fingerprint)
        manifest = Manifest(
            kind=kind,
            fingerprint=fingerprint,
            attempt=attempt,
            identity=in_uris(shown, identity),
            inputs=dict(inputs),
            rows_in=draft.rows_in,
            rows_out=draft.rows_out,
            dropped=dict(sorted(draft.dropped.items())),
            facts=in_uris(shown, facts.model_dump(mode="json")) if facts is not None else {},
            files=list(self._files(f"{home}/{attempt}")),
            seed=seed,
            started=started,
            seconds=round(time.time() - started, 3),
            versions=versions(),
            commit=git_commit(),
        )
        write_whole(self.fs, f"{home}/{MANIFEST}", manifest.model_dump_json(indent=2).encode())
        for fs, path in map(filesystem, draft.spent):
            if fs.get_file_info(path).type == pafs.FileType.Directory:
                fs.delete_dir(path)
        return Artifact(manifest, draft.uri)

    def _files(self, root: str) -> Iterator[File]:
        infos = self.fs.get_file_info(pafs.FileSelector(root, recursive=True))
        for info in sorted((info for info in infos if info.is_file), key=lambda info: info.path):
            rows = None
            if info.path.endswith(".parquet"):
                with self.fs.open_input_file(info.path) as stream:
                    rows = pq.ParquetFile(stream).metadata.num_rows
            yield File(path=info.path[len(root) + 1 :], bytes=info.size, rows=rows)


def write_whole(fs: pafs.FileSystem, path: str, data: pa.Buffer | bytes) -> None:
    """Write a file of which readers see all or nothing, and of two writers' files one or the other, whole.

    An object store does so by nature; elsewhere the file is moved into place. Who reads an object while one of another size takes its
    place may still read nonsense at its end, for pyarrow asks for the size first.
    """
    target = path if fs.type_name in OBJECT_STORES else f"{path}.{uuid.uuid4().hex[:8]}.new"
    with fs.open_output_stream(target) as stream:
        stream.write(data)
    if target != path:
        fs.move(target, path)
