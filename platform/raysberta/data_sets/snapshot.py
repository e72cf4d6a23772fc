"""The snapshot of a data set: its rows in order of their keys, in Parquet parts of some 32 MiB, and an index written last.

Rows are in order of a hash of their query: a part is a range of it, rows of one query lie in one part, and neither the order of the
files nor that of their rows is left in it. The index has the hash of every part, so a run sees a changed byte.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from raysberta.corpus.locate import File, state
from raysberta.data_sets.records import Unit, absent
from raysberta.data_sets.rows import BATCH_ROWS
from raysberta.data_sets.settings import OPEN, DatasetSource
from raysberta.errors import InputError
from raysberta.schema import text_id
from raysberta.storage.location import filesystem, first_line, join, shown

INDEX = "index.json"
LAYOUT = "1"
"""Of parts and rows; another one is another snapshot."""


class Part(BaseModel):
    """One file of a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    rows: int
    bytes: int
    sha256: str


class Index(BaseModel):
    """What a snapshot holds and where it is from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    origin: str
    """hub:owner/name@commit, or path."""
    files: dict[str, int]
    """What was read, with bytes."""
    card_licence: str | None
    """The licence that the data set's own card states."""
    rows_read: int
    dropped: dict[str, int]
    """Rows that were left out, by reason."""
    unreadable: int
    """Records that cannot be read, which are among the rows."""
    parts: list[Part]

    @property
    def rows(self) -> int:
        """Rows that it holds."""
        return sum(part.rows for part in self.parts)


def place(source: DatasetSource, files: list[File] | None = None) -> str:
    """The folder of a data set's snapshot: by what decides its rows, so that recipes that mean the same share it.

    Args:
        source: The entry; its `snapshot` is where the data root says.
        files: Of a source with a path, what lies there: other files are another snapshot.
    """
    decides = {
        "layout": LAYOUT,
        "from": [source.hub, source.revision, source.config, source.split, source.files] if files is None else state(files),
        "columns": [[key, column] for key, column in source.columns()],
        "labels": sorted(source.labels.items()),
        "where": sorted((column, values) for column, values in source.where.items()),
        "sample": source.sample,
    }
    name = f"{source.hub.replace('/', '__')}@{source.revision}" if source.hub and source.revision else "path"
    return join(source.snapshot, f"{name[:100]}-{text_id(json.dumps(decides, sort_keys=True))}")


def read_index(name: str, source: DatasetSource, files: list[File] | None = None) -> Index:
    """The index of a data set's snapshot.

    Args:
        name: In the recipe, for messages.
        source: The entry.
        files: As for `place`.

    Raises:
        InputError: the revision is OPEN, or there is no such snapshot, or not a whole one.
    """
    check_pinned(name, source)
    where = place(source, files)
    try:
        system, path = filesystem(join(where, INDEX))
        if system.get_file_info(path).type == pafs.FileType.NotFound:
            right = "jobs/fetch_data.py with this recipe makes it, where there is a network"
            raise InputError(f"sources.{name}: there is no snapshot of it at {shown(where)}; {right}")
        with system.open_input_stream(path) as stream:
            return Index.model_validate_json(stream.read())
    except (OSError, ValidationError) as error:
        raise InputError(f"sources.{name}: {shown(join(where, INDEX))} is unreadable: {first_line(error)}; fetch it again") from error


def check_pinned(name: str, source: DatasetSource) -> None:
    """See that a data set of a hub names a commit.

    Raises:
        InputError: its revision is OPEN.
    """
    if source.revision == OPEN:
        right = f"right would be a commit of {source.hub}, which jobs/fetch_data.py --commits prints"
        raise InputError(f"sources.{name}.revision: is {OPEN}, so what it would be read from is not settled; {right}")


def part_units(name: str, source: DatasetSource, files: list[File] | None = None) -> list[Unit]:
    """The parts of a snapshot as units.

    Raises:
        InputError: as `read_index`; or a part is missing or has another size.
    """
    index = read_index(name, source, files)
    where = place(source, files)
    units = []
    system, folder = filesystem(where)
    found = {info.base_name: info.size for info in system.get_file_info(pafs.FileSelector(folder))}
    for part in index.parts:
        uri = join(where, part.name)
        if found.get(part.name) != part.bytes:
            raise InputError(f"sources.{name}: {shown(uri)} is missing or cut; right would be to fetch the snapshot again")
        units.append(Unit(name, File(uri, part.name, "parquet", None, part.bytes, None), sha256=part.sha256))
    return units


def read_part(unit: Unit) -> Iterator[pa.Table]:
    """The rows of a part, some BATCH_ROWS at a time, those of one query together; ROW's columns.

    Raises:
        InputError: it is not the part that was fetched.
    """
    system, path = filesystem(unit.file.uri)
    try:
        with system.open_input_stream(path) as stream:
            data = stream.read()
    except FileNotFoundError as error:
        raise InputError(absent(unit.file, f"sources.{unit.source}")) from error
    except OSError as error:
        raise InputError(f"sources.{unit.source}: {unit.file.shown} cannot be read: {first_line(error)}") from error
    if hashlib.sha256(data).hexdigest() != unit.sha256:
        raise InputError(f"sources.{unit.source}: {unit.file.shown} is not the file that was fetched; right would be to fetch it again")
    table = pq.read_table(io.BytesIO(data))
    keys = table.column("key").to_numpy()
    start = 0
    while start < table.num_rows:
        end = min(start + BATCH_ROWS, table.num_rows)
        while end < table.num_rows and keys[end] == keys[end - 1]:
            end += 1
        yield table.slice(start, end - start)
        start = end


def snapshot_state(index: Index) -> dict[str, Any]:
    """A snapshot as a part of an identity: the hashes of its parts."""
    digest = hashlib.sha256("\n".join(part.sha256 for part in index.parts).encode()).hexdigest()[:16]
    return {"rows": index.rows, "digest": digest}
