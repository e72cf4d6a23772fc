"""Files and snapshots of data sets as far as a plan looks at them: whether they are there, what they are, their units. No torch here."""

from typing import Any

from raysberta.corpus.locate import TABLES, File, locate, peek, state
from raysberta.data_sets.records import Unit, row_groups
from raysberta.data_sets.settings import DatasetSource
from raysberta.data_sets.snapshot import part_units, read_index, snapshot_state
from raysberta.errors import InputError

UNIT_BYTES = 32 << 20
PEEKED_FILES = 50


def data_set_files(name: str, source: DatasetSource) -> list[File]:
    """The files of a data set that is named by its path, sorted; a folder may hold others, which are passed over.

    Raises:
        InputError: nothing is there, or a file that is named is no table.
    """
    key = f"sources.{name}.path"
    files = locate(source.path or (), key, TABLES)
    for file in files:
        if file.format not in TABLES:
            right = "right would be .parquet, .jsonl, .json, .csv or .tsv (.gz, .zst), and kind: files for pages and texts"
            raise InputError(f"{key}: {file.shown} is no data set; {right}")
    return files


def check_data_set(name: str, source: DatasetSource) -> None:
    """Look whether files are there and start as their endings say; of a snapshot, whether it is whole and of the right sizes.

    Raises:
        InputError: something is missing or wrong; the message names the recipe's key.
    """
    if source.fetched:
        part_units(name, source, _own_files(name, source))
        return
    files = data_set_files(name, source)
    for file in files[:: max(1, len(files) // PEEKED_FILES)]:
        peek(file, f"sources.{name}.path")


def data_set_state(name: str, source: DatasetSource) -> dict[str, Any]:
    """A digest over names, sizes and dates of the files, or over the hashes of a snapshot; `missing` where there is nothing: a plan can
    be made without it."""
    try:
        if source.fetched:
            return snapshot_state(read_index(name, source, _own_files(name, source)))
        return state(data_set_files(name, source))
    except InputError:
        return {"missing": True}


def units(name: str, source: DatasetSource) -> list[Unit]:
    """What tasks read of a data set, a unit each, of some UNIT_BYTES: row groups of Parquet, lines of JSONL, parts of a snapshot. A
    compressed file, and one whose records may hold line ends, is one unit, read as a stream.

    Raises:
        InputError: as `check_data_set`.
    """
    if source.fetched:
        return part_units(name, source, _own_files(name, source))
    return [unit for file in data_set_files(name, source) for unit in _cut(name, file)]


def _own_files(name: str, source: DatasetSource) -> list[File] | None:
    """Of a snapshot that was made of files with a path, those files."""
    return data_set_files(name, source) if source.hub is None else None


def _cut(name: str, file: File) -> list[Unit]:
    if file.format == "jsonl" and not file.compression and file.bytes > UNIT_BYTES:
        starts = range(0, file.bytes, UNIT_BYTES)
        return [Unit(name, file, start, min(start + UNIT_BYTES, file.bytes)) for start in starts]
    if file.format != "parquet" or file.bytes <= UNIT_BYTES // 8:
        return [Unit(name, file)]
    found: list[Unit] = []
    start = size = 0
    groups = row_groups(file, f"sources.{name}.path")
    for number, held in enumerate(groups):
        if number > start and size + held > UNIT_BYTES:
            found.append(Unit(name, file, start, number))
            start, size = number, 0
        size += held
    return [*found, Unit(name, file, start, len(groups))]
