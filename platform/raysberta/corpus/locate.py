"""The files that a recipe's `path` names: folders, globs and single files, on a local disk or any URI that pyarrow.fs reads."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from raysberta.artifacts import filesystem
from raysberta.errors import InputError

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
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
WILD = re.compile(r"[*?\[]")
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
    """As `filesystem` takes it."""
    name: str
    """Relative to the folder, or to the fixed part of the glob: the same wherever the folder lies."""
    format: str
    """A value of FORMATS."""
    compression: str | None
    """A value of COMPRESSIONS."""
    bytes: int
    mtime_ns: int | None


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


def locate(paths: str | Sequence[str], key: str) -> list[File]:
    """All files, sorted by path, each once.

    Args:
        paths: As in the recipe.
        key: The recipe's key, for messages.

    Raises:
        InputError: a path does not exist, matches nothing, has an unknown ending, or its file system cannot be reached.
    """
    found: dict[str, File] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        for file in _under(path, key):
            found.setdefault(file.uri, file)
    return [found[uri] for uri in sorted(found)]


def digest(files: Sequence[File]) -> str:
    """16 hex digits over names, sizes and dates: what tells one state of the files from another."""
    listing = "".join(f"{file.name}\0{file.bytes}\0{file.mtime_ns}\n" for file in files)
    return hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
        raise InputError(f"{key}: {file.uri} is not what its ending says: no {expected} there{f', but {foreign}' if foreign else ''}")
    check_content(file, start, key)


def check_content(file: File, start: bytes, key: str) -> None:
    """The same for what is inside, after decompression.

    Raises:
        InputError: as above.
    """
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip() if file.format in ("jsonl", "html") else start
    foreign = next((name for magic, name in FOREIGN.items() if start.startswith(magic)), None)
    if foreign and not (file.format == "warc" and foreign == FOREIGN[b"WARC/"]):
        raise InputError(f"{key}: {file.uri} is not what its ending says: it is {foreign}")
    if file.format == "warc" and start and not start.startswith(b"WARC/"):
        raise InputError(f"{key}: {file.uri} is not what its ending says: a WARC file starts with WARC/")
    if file.format == "jsonl" and start and not start.startswith(b"{"):
        hint = ", but a JSON array: right would be one object a line" if start.startswith(b"[") else ""
        raise InputError(f"{key}: {file.uri} is not what its ending says: no JSON object in its first line{hint}")


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
        raise InputError(f"{key}: {file.uri} cannot be read: {error}") from error
    check_start(file, start, key)


def _under(path: str, key: str) -> Iterator[File]:
    try:
        fixed = _fixed(path)
        system, root = filesystem(fixed)
        info = system.get_file_info(root)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{key}: {path}: {error}") from error
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"{key}: {fixed} does not exist")
    if info.type == pafs.FileType.File:
        yield _known(info, path, info.base_name, key)
        return
    pattern = _pattern(path[len(fixed) :].lstrip("/")) if WILD.search(path) else None
    count = 0
    prefix = root.rstrip("/") + "/"
    for entry in system.get_file_info(pafs.FileSelector(root, recursive=True)):
        name = entry.path.removeprefix(prefix)
        if entry.type != pafs.FileType.File or any(part.startswith((".", "_")) for part in name.split("/")):
            continue
        if pattern is not None and not pattern.fullmatch(name):
            continue
        uri = f"{fixed.rstrip('/')}/{name}"
        if pattern is None and kind_of(name) is None:
            continue  # pictures and styles lie beside pages
        count += 1
        yield _known(entry, uri, name, key)
    if not count:
        missing = "matches" if pattern else "with a known ending lies in"
        raise InputError(f"{key}: no file {missing} {path}; known are {', '.join(FORMATS)}, some with .gz or .zst")


def _known(info: pafs.FileInfo, uri: str, name: str, key: str) -> File:
    kind = kind_of(name)
    if kind is None:
        raise InputError(f"{key}: {uri}: unknown ending; right would be {', '.join(FORMATS)}, with .gz or .zst behind it where compressed")
    return File(uri, name, kind[0], kind[1], info.size, info.mtime_ns)


def _fixed(path: str) -> str:
    """The folder before the first part with a wildcard; the whole path where there is none."""
    match = WILD.search(path)
    if match is None:
        return path
    return path[: path.rfind("/", 0, match.start())] if "/" in path[: match.start()] else "."


def _pattern(glob: str) -> re.Pattern[str]:
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
