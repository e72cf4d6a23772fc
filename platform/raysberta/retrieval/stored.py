"""The files of storage that a process reads and writes: each comes once to a node, and every request is counted."""

import io
import os
import resource
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from raysberta.storage.artifacts import write_whole
from raysberta.storage.location import filesystem

PART_BYTES = 10 * 2**20
"""pyarrow uploads objects in parts of this size, and smaller ones whole, by one request."""


@dataclass(frozen=True)
class Traffic:
    """What was asked of storage. A file on a local disk counts as one request of its size when it is first mapped or written."""

    requests: int = 0
    read: int = 0
    """Bytes."""
    written: int = 0
    """Bytes."""

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.requests + other.requests, self.read + other.read, self.written + other.written)


class Files:
    """What one process reads and writes.

    A file that is read is mapped where it lies on a local disk. From remote storage it is copied into a folder that all processes of the
    node share, whole, by two requests: a page that is read again costs storage nothing. Files are never changed once they are written.
    """

    def __init__(self, name: str) -> None:
        """Share a folder of the node.

        Args:
            name: What no other folder has.
        """
        self.folder = Path(tempfile.gettempdir()) / f"raysberta-{os.getuid()}" / f"files {quote(name, safe='')}"
        self._traffic = Traffic()
        self._local: dict[str, Path] = {}
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a mapped file stays open, and there may be thousands

    def traffic(self) -> Traffic:
        """What was asked since the last time."""
        found, self._traffic = self._traffic, Traffic()
        return found

    def local(self, place: str) -> Path:
        """A file on this machine.

        Args:
            place: Path or URI.
        """
        if place not in self._local:
            fs, path = filesystem(place)
            if isinstance(fs, pafs.LocalFileSystem):
                self._local[place] = Path(path)
                self.count(1, read=self._local[place].stat().st_size)
            else:
                self._local[place] = self._copied(fs, path)
        return self._local[place]

    def _copied(self, fs: pafs.FileSystem, path: str) -> Path:
        """The node's copy; it appears whole, whichever process is first."""
        target = self.folder / quote(path, safe="")[-200:]
        if not target.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with fs.open_input_file(path) as stream:
                data = stream.read_buffer()
            aside = self.folder / f"{uuid.uuid4().hex}.new"
            aside.write_bytes(data)
            aside.rename(target)
            self.count(2, read=len(data))
        return target

    def opened(self, place: str) -> pa.NativeFile:
        """A file to read ranges of, each a request; on a local disk one request of what is read."""
        fs, path = filesystem(place)
        self.count(1)
        file = fs.open_input_file(path)
        return pa.PythonFile(_Counted(file, self, not isinstance(fs, pafs.LocalFileSystem)), mode="r")

    def write(self, place: str, data: pa.Buffer | bytes) -> None:
        """Write a file, all or nothing."""
        fs, path = filesystem(place)
        local = isinstance(fs, pafs.LocalFileSystem)
        if local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(fs, path, data)  # a retried actor may write beside a dying one
        self.count(1 if local or len(data) < PART_BYTES else 2 + -(-len(data) // PART_BYTES), written=len(data))

    def drop(self) -> None:
        """Remove the node's copies; all processes of the node must be done with them."""
        self._local.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def count(self, requests: int, read: int = 0, written: int = 0) -> None:
        """Take up what was asked, also by others."""
        self._traffic += Traffic(requests, read, written)


class _Counted(io.RawIOBase):
    """Counts what is read of a file."""

    def __init__(self, file: pa.NativeFile, files: Files, remote: bool) -> None:
        self.file, self.files, self.remote = file, files, remote

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(None if size < 0 else size)
        self.files.count(int(self.remote), read=len(data))
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def size(self) -> int:
        return self.file.size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.file.close()
        super().close()


def ipc_batches(file: Path) -> Any:
    """A mapped file of record batches: `get_batch(number)` copies nothing."""
    return pa.ipc.open_file(pa.memory_map(str(file)))
