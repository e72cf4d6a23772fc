"""Files and folders of storage on this machine: where they lie, or a copy in the temporary directory that all processes share."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import quote

import pyarrow.fs as pafs

from raysberta.storage.location import filesystem

WEIGHTS = "*.safetensors"
"""A model's tensors."""


def local_folder(place: str, key: str, without: str = "") -> Path:
    """A folder of storage on this machine, copied once.

    Args:
        place: Path or URI of the folder.
        key: What no other folder has, nor this one with other content.
        without: A pattern; files whose names match it are not copied. All lie there where storage is local.

    Raises:
        FileNotFoundError: storage is remote and has no such folder.
    """
    fs, path = filesystem(place)
    return Path(path) if isinstance(fs, pafs.LocalFileSystem) else _copied(fs, path, f"folder {key} {without}".rstrip(), "", without)


def local_file(place: str, key: str) -> Path:
    """One file of storage on this machine, copied once and without the files beside it. As `local_folder`."""
    fs, path = filesystem(place)
    return Path(path) if isinstance(fs, pafs.LocalFileSystem) else _copied(fs, path, f"file {key}", path.rpartition("/")[2])


def _copied(fs: pafs.FileSystem, path: str, key: str, inside: str, without: str = "") -> Path:
    """The copy, in a folder of its own: at `inside` of it, or the folder itself where that is empty. It appears there whole."""
    home = Path(tempfile.gettempdir()) / f"raysberta-{os.getuid()}"
    target = home / quote(key, safe=" ")  # one name: a copy of a folder never lies within that of another
    if not target.is_dir():
        aside = home / f"aside-{uuid.uuid4().hex}"
        aside.mkdir(parents=True)
        try:
            for source, name in _files(fs, path, without) if without else [(path, inside)]:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                pafs.copy_files(source, str(aside / name), source_filesystem=fs, destination_filesystem=pafs.LocalFileSystem())
            aside.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was first
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target / inside


def _files(fs: pafs.FileSystem, path: str, without: str) -> Iterator[tuple[str, str]]:
    """The files of a folder but those whose names match, each with its path within it."""
    for info in fs.get_file_info(pafs.FileSelector(path, recursive=True)):
        if info.is_file and not fnmatch(info.base_name, without):
            yield info.path, info.path[len(path) + 1 :]
