"""The records of a unit of a data set, one after the other, whatever the format: a unit is at most some 32 MiB of a file, or one stream.

What cannot be read is a record that says why. No more than a record and a buffer is in memory: of Parquet a batch of rows.
"""

import codecs
import csv
import json
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysberta.corpus.locate import File, check_start
from raysberta.corpus.stream import CHUNK, MAX_RECORD, Stream, Unreadable
from raysberta.errors import InputError
from raysberta.storage.location import filesystem, first_line

BATCH_ROWS = 1024
_GAP = re.compile(r"[\s,]*")
Read = Callable[[int], bytes]


@dataclass(frozen=True)
class Unit:
    """What one task reads of a data set."""

    source: str
    """The name of the data set in the recipe."""
    file: File
    start: int = 0
    """Of Parquet the first row group, of JSONL the first byte: a line belongs to the unit in which it starts."""
    stop: int | None = None
    """The first one that is not read; None where the file is read to its end."""
    sha256: str | None = None
    """Of the whole file, where it is a part of a snapshot."""


@dataclass(frozen=True)
class Record:
    """One record: an object, or a list."""

    where: str
    """For messages: `a.jsonl line 3`."""
    value: Any
    """None where it cannot be read."""
    problem: str = ""
    """Why not."""


def records(unit: Unit, key: str, columns: Sequence[str]) -> Iterator[Record]:
    """The records of a unit.

    Args:
        unit: What to read.
        key: The recipe's key, for messages.
        columns: Of Parquet the columns to read; what a file lacks of them is left out.

    Raises:
        InputError: the file is not there, or is not what its ending says.
    """
    file = unit.file
    try:
        if file.format == "parquet":
            yield from _parquet(unit, key, columns)
        elif unit.start or unit.stop is not None:
            yield from _range(unit)
        else:
            with Stream(file, key) as stream:
                yield from READERS[file.format](file, stream.read)
    except FileNotFoundError as error:
        raise InputError(absent(file, key)) from error
    except (Unreadable, OSError, pa.ArrowException) as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise InputError(absent(file, key)) from error
        raise InputError(f"{key}: {file.shown} is not readable {file.format}: {first_line(error)[:200]}") from error


def absent(file: File, key: str) -> str:
    """What is wrong where a file that was planned with is not on this node."""
    right = "data: and paths name places that every node reaches, such as a shared folder or s3://bucket/data"
    return f"{key}: {file.shown} is not there on node {platform.node()}; right would be that {right}"


def row_groups(file: File, key: str) -> list[int]:
    """Bytes of each row group of a Parquet file, as they are when decompressed; only the footer is read.

    Raises:
        InputError: it is no Parquet.
    """
    system, path = filesystem(file.uri)
    try:
        with system.open_input_file(path) as stream:
            found = pq.ParquetFile(stream).metadata
            return [found.row_group(number).total_byte_size for number in range(found.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{key}: {file.shown} is not readable parquet: {first_line(error)[:200]}") from error


def _parquet(unit: Unit, key: str, columns: Sequence[str]) -> Iterator[Record]:
    system, path = filesystem(unit.file.uri)
    with system.open_input_file(path) as stream:
        check_start(unit.file, stream.read(8), key)
        stream.seek(0)
        whole = pq.ParquetFile(stream)
        there = [name for name in whole.schema_arrow.names if name in columns]
        number = sum(whole.metadata.row_group(group).num_rows for group in range(unit.start))
        for group in range(unit.start, whole.num_row_groups if unit.stop is None else unit.stop):
            # opened for each: what is read ahead is kept as long as its reader is
            table = pq.ParquetFile(stream, metadata=whole.metadata, pre_buffer=True)
            for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], columns=there):
                for row in _rows(batch):
                    number += 1
                    where = f"{unit.file.name} row {number}"
                    yield Record(where, row) if row is not None else Record(where, None, "invalid UTF-8")


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """Rows as Python values; None for one that holds no UTF-8, which Parquet does not check."""
    if not batch.num_columns:
        yield from ({} for _ in range(batch.num_rows))
        return
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _range(unit: Unit) -> Iterator[Record]:
    """The lines of JSONL that start within the unit."""
    system, path = filesystem(unit.file.uri)
    with system.open_input_file(path) as stream:
        begin = max(0, unit.start - 1)
        stream.seek(begin)
        found = _lines(stream.read, begin)
        if unit.start:
            next(found, None)  # the end of a line that the unit before has, or nothing where that ends in just this place
        for at, line in found:
            if unit.stop is not None and at >= unit.stop:
                return
            yield from _parsed(line, f"{unit.file.name} line at byte {at}")


def _lines(read: Read, at: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """Lines with the place of their first byte, without their end; None for one above MAX_RECORD, of which no more is held."""
    parts: list[bytes] = []
    size = 0
    while data := read(CHUNK):
        for number, piece in enumerate(data.split(b"\n")):
            if number:
                yield at, b"".join(parts) if size <= MAX_RECORD else None
                at, parts, size = at + size + 1, [], 0
            size += len(piece)
            parts = [*parts, piece] if size <= MAX_RECORD else []
    if size:
        yield at, b"".join(parts) if size <= MAX_RECORD else None


def _jsonl(file: File, read: Read) -> Iterator[Record]:
    for number, (_, line) in enumerate(_lines(read), 1):
        yield from _parsed(line, f"{file.name} line {number}")


def _parsed(line: bytes | None, where: str) -> Iterator[Record]:
    """The record of a line; nothing where it is blank."""
    if line is None:
        yield Record(where, None, f"more than {MAX_RECORD >> 20} MiB")
        return
    if not line.strip():
        return
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        yield Record(where, None, f"invalid UTF-8 at byte {error.start}")
    except (ValueError, RecursionError) as error:
        yield Record(where, None, f"no JSON: {error}"[:160])
    else:
        yield Record(where, value) if isinstance(value, dict | list) else Record(where, None, f"{type(value).__name__}, no object")


def _json(file: File, read: Read) -> Iterator[Record]:
    """A list of objects, or what should have been called JSONL."""
    start = read(CHUNK)
    rest = iter([start])

    def again(size: int) -> bytes:
        return next(rest, None) or read(size)

    inner = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if inner.startswith(b"[") and inner[1:].lstrip()[:1] in (b"{", b"]", b""):
        yield from _array(file, again)
    else:
        yield from _jsonl(file, again)


def _array(file: File, read: Read) -> Iterator[Record]:
    """The elements of one JSON list, of which as much is held as one element and a buffer need."""
    decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
    parse = json.JSONDecoder().raw_decode
    text = ""
    while "[" not in text and (data := read(CHUNK)):
        text += decode(data)
    at, number = text.find("[") + 1, 0
    while True:
        at = _GAP.match(text, at).end()  # type: ignore[union-attr]
        try:
            value, at = parse(text, at)
        except (ValueError, RecursionError) as error:
            left = len(text) - at
            closed = text.startswith("]", at)
            if not closed and left <= MAX_RECORD and (data := read(max(CHUNK, left))):
                text, at = text[at:] + decode(data), 0
                continue
            if not closed:
                yield Record(f"{file.name} element {number + 1}", None, f"the rest is no JSON: {error}"[:160])
            return
        number += 1
        where = f"{file.name} element {number}"
        yield Record(where, value) if isinstance(value, dict | list) else Record(where, None, f"{type(value).__name__}, no object")


def _csv(file: File, read: Read) -> Iterator[Record]:
    """Fields in quotes may hold line ends."""
    yield from _table(file, csv.reader(_text(read), strict=True))


def _tsv(file: File, read: Read) -> Iterator[Record]:
    """Quotes are text: a field holds neither tab nor line end."""
    yield from _table(file, csv.reader(_text(read), delimiter="\t", quoting=csv.QUOTE_NONE))


def _table(file: File, rows: Any) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD)
    names: list[str] | None = None
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield Record(f"{file.name} line {rows.line_num}", None, f"no {file.format.upper()}: {error}")
            continue
        if row is None:
            return
        where = f"{file.name} line {rows.line_num}"
        if names is None:
            names = row
        elif row and len(row) != len(names):
            yield Record(where, None, f"{len(row)} fields, and the first line has {len(names)}")
        elif row:
            yield Record(where, dict(zip(names, row, strict=True)))


def _text(read: Read) -> Iterator[str]:
    """Lines with their ends; what is no UTF-8 becomes U+FFFD."""
    decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
    rest = ""
    while data := read(CHUNK):
        *lines, rest = (rest + decode(data)).split("\n")
        yield from (line + "\n" for line in lines)
        if len(rest) > MAX_RECORD:
            raise Unreadable(f"a line of more than {MAX_RECORD >> 20} MiB")
    if rest:
        yield rest


READERS: dict[str, Callable[[File, Read], Iterator[Record]]] = {"jsonl": _jsonl, "json": _json, "csv": _csv, "tsv": _tsv}
"""By the formats that `locate` knows, Parquet apart."""
