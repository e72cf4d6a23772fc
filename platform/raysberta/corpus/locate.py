"""The files that a recipe's `path` names: folders, globs and single files, on a local disk or any URI that pyarrow.fs reads."""

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from raysberta.errors import InputError
from raysberta.storage.location import filesystem, first_line, is_uri, join, shown

FORMATS = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
}
DOCUMENTS = ("html", "markdown", "text", "jsonl", "parquet", "warc")
"""Formats that hold documents."""
RECORDS = ("parquet", "jsonl")
"""Formats that hold records of named fields and evaluation sets."""
TABLES = (*RECORDS, "json", "csv", "tsv")
"""Formats that hold data sets."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
WILD = re.compile(r"[*?\[]")
_LISTS = re.compile(rb"\[\s*[^\s{]")
"""Lines may be lists, as those of some data sets are; a list of objects is no line."""
STARTS = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "parquet": b"PAR1"}
FOREIGN = {
    b"\x1f\x8b": "a gzip stream",
    b"\x28\xb5\x2f\xfd": "a zstd stream",
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x7fELF": "a program",
    b"WARC/": "a WARC file",
    b"BZh": "a bzip2 stream",
    b"\xfd7zXZ": "an xz stream",
}


@dataclass(frozen=True)
class File:
    """One file of a source."""

    uri: str
    """As `filesystem` takes it; `shown` is for messages, since options and credentials stand in it."""
    name: str
    """Relative to the folder, or to the fixed part of the glob: the same wherever the folder lies."""
    format: str
    """A value of FORMATS."""
    compression: str | None
    """A value of COMPRESSIONS."""
    bytes: int
    mtime_ns: int | None

    @property
    def shown(self) -> str:
        """Where it lies, without credentials."""
        return shown(self.uri)


def kind_of(path: str) -> tuple[str, str | None] | None:
    """Format and compression by a path's ending, or None where the ending is not known."""
    compression = None
    lower = path.lower()
    for ending, name in COMPRESSIONS.items():
        if lower.endswith(ending):
            lower, compression = lower.removesuffix(ending), name
    dot = lower.rfind(".")
    found = FORMATS.get(lower[dot:]) if dot >= 0 else None
    if found is None or (found == "parquet" and compression):
        return None
    return found, compression


def locate(paths: str | Sequence[str], key: str, formats: Collection[str] = DOCUMENTS) -> list[File]:
    """All files, sorted by path, each once.

    Args:
        paths: As in the recipe.
        key: The recipe's key, for messages.
        formats: What is taken from a folder; a file that is named, or that a glob matches, is taken whatever its known format.

    Raises:
        InputError: a path does not exist, matches nothing, has an unknown ending, or its file system cannot be reached.
    """
    found: dict[str, File] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        for file in _under(path, key, formats):
            found.setdefault(file.uri, file)
    return [found[uri] for uri in sorted(found, key=lambda uri: unquote(uri) if is_uri(uri) else uri)]


def digest(files: Sequence[File]) -> str:
    """16 hex digits over names, sizes and dates: what tells one state of the files from another."""
    listing = "".join(sorted(f"{file.name}\0{file.bytes}\0{file.mtime_ns}\n" for file in files))
    return hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def state(files: Sequence[File]) -> dict[str, Any]:
    """The files as a part of an identity: neither where they lie nor how they are reached."""
    return {"files": len(files), "digest": digest(files)}


def check_start(file: File, start: bytes, key: str) -> None:
    """Compare a file's first bytes, as they lie on the disk, with what its ending says.

    Raises:
        InputError: they contradict each other.
    """
    if not start:
        return  # an empty file is a bad record, not a wrong source
    expected = file.compression or file.format
    right = STARTS.get(expected)
    if right is not None and start.startswith(right):
        return
    foreign = next((name for magic, name in FOREIGN.items() if start.startswith(magic)), None)
    if right is not None:
        raise InputError(f"{key}: {file.shown} is not what its ending says: no {expected} there{f', but {foreign}' if foreign else ''}")
    check_content(file, start, key)


def check_content(file: File, start: bytes, key: str) -> None:
    """The same for what is inside, after decompression.

    Raises:
        InputError: as above.
    """
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip() if file.format in ("jsonl", "html") else start
    foreign = next((name for magic, name in FOREIGN.items() if start.startswith(magic)), None)
    if foreign and not (file.format == "warc" and foreign == FOREIGN[b"WARC/"]):
        raise InputError(f"{key}: {file.shown} is not what its ending says: it is {foreign}")
    if file.format == "warc" and start and not start.startswith(b"WARC/"):
        raise InputError(f"{key}: {file.shown} is not what its ending says: a WARC file starts with WARC/")
    if file.format == "jsonl" and start and not start.startswith(b"{") and not _LISTS.match(start):
        hint = ", but a JSON array: right would be one object a line" if start.startswith(b"[") else ""
        raise InputError(f"{key}: {file.shown} is not what its ending says: no JSON object in its first line{hint}")


def peek(file: File, key: str) -> None:
    """Read a file's first bytes and check them.

    Raises:
        InputError: it cannot be opened, or is not what its ending says.
    """
    system, path = filesystem(file.uri)
    try:
        with system.open_input_stream(path, compression=None) as stream:
            start = stream.read(512)
    except OSError as error:
        raise InputError(f"{key}: {file.shown} cannot be read: {first_line(error)}") from error
    check_start(file, start, key)


def _under(path: str, key: str, formats: Collection[str]) -> Iterator[File]:
    fixed, glob = _split(path)
    try:
        system, root = filesystem(fixed)
        info = system.get_file_info(root)
        folder = pafs.FileSelector(root, recursive=True)
        entries = system.get_file_info(folder) if info.type == pafs.FileType.Directory else []
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{key}: {shown(path)}: {first_line(error)}") from error
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"{key}: {shown(fixed)} does not exist")
    if info.type == pafs.FileType.File:
        yield _known(info, path, info.base_name, key)
        return
    pattern = glob_pattern(glob) if glob is not None else None
    prefix = root.rstrip("/") + "/"
    count = 0
    for entry in entries:
        name = entry.path.removeprefix(prefix)
        if entry.type != pafs.FileType.File or any(part.startswith((".", "_")) for part in name.split("/")):
            continue
        if pattern is None:
            kind = kind_of(name)
            if kind is None or kind[0] not in formats:
                continue  # pictures and styles lie beside pages
        elif not pattern.fullmatch(name):
            continue
        count += 1
        yield _known(entry, join(fixed, quote(name, safe="/=") if is_uri(fixed) else name), name, key)
    if not count:
        missing = "matches" if glob is not None else "with a known ending lies in"
        known = ", ".join(ending for ending, form in FORMATS.items() if form in formats)
        raise InputError(f"{key}: no file {missing} {shown(path)}; known are {known}, some with .gz or .zst")


def _known(info: pafs.FileInfo, uri: str, name: str, key: str) -> File:
    kind = kind_of(name)
    if kind is None:
        right = f"right would be {', '.join(FORMATS)}, with .gz or .zst behind it where compressed"
        raise InputError(f"{key}: {shown(uri)}: unknown ending; {right}")
    return File(uri, name, kind[0], kind[1], info.size, info.mtime_ns)


def _split(path: str) -> tuple[str, str | None]:
    """The folder before the first part with a wildcard, and the glob below it; the whole path, and None, where there is no wildcard.

    In a URI `?` is no wildcard: it starts the options, which the folder keeps.
    """
    head, mark, options = path.partition("?") if is_uri(path) else (path, "", "")
    match = WILD.search(head)
    if match is None:
        return path, None
    slash = head.rfind("/", 0, match.start())
    glob = head[slash + 1 :]
    if slash < 0:
        return ".", glob
    folder = head[:slash]
    if not folder or folder.endswith(":/"):
        folder += "/"
    return f"{folder}{mark}{options}", unquote(glob) if is_uri(path) else glob


def glob_pattern(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression over relative paths: `**/` is any depth, `*` and `?` stay within a part."""
    out = ""
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            out, at = out + r"(?:[^/]+/)*", at + 3
        elif glob.startswith("**", at):
            out, at = out + ".*", at + 2
        elif glob[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif glob[at] == "?":
            out, at = out + "[^/]", at + 1
        elif glob[at] == "[" and "]" in glob[at:]:
            end = glob.index("]", at)
            out, at = out + "[" + glob[at + 1 : end].replace("!", "^", 1) + "]", end + 1
        else:
            out, at = out + re.escape(glob[at]), at + 1
    return re.compile(out)
