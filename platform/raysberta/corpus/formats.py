"""One file to documents, by format. What cannot be read is a row that says why; a file that is not what its ending says ends the run."""

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
from fastwarc.warc import ArchiveIterator, WarcRecordType

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.encoding import decode_page, decode_text, repair
from raysberta.corpus.extract import Page, extract
from raysberta.corpus.locate import File, check_start
from raysberta.corpus.markdown import read_markdown
from raysberta.corpus.settings import FilesSource
from raysberta.corpus.stream import MAX_RECORD, Stream, Unreadable
from raysberta.errors import InputError
from raysberta.schema import text_id
from raysberta.storage.location import filesystem, first_line

PARQUET_ROWS = 512
PAGES = ("text/html", "application/xhtml+xml")


def read_file(file: File, source: FilesSource, key: str) -> Iterator[Found]:
    """The documents of a file.

    Group = the file's name where a file is a document, the address of a web page, else a digest of title and text.

    Args:
        file: As `locate` found it.
        source: Names of the columns for JSONL and Parquet.
        key: `sources.<name>`, for messages.

    Raises:
        InputError: the file is not what its ending says, or lacks the column of texts.
    """
    try:
        for found in READERS[file.format](file, source, key):
            yield _sound(_repaired(found), file.name)
    except Unreadable as error:
        yield broken(file.name, f"{file.name}: {error}")


def _repaired(found: Found) -> Found:
    """The document with text that was decoded wrongly, somewhere on its way here, decoded rightly."""
    title, text = repair(found.title), repair(found.text)
    if title == found.title and text == found.text:
        return found
    return found._replace(title=title, text=text, sections=[(repair(heading), repair(body)) for heading, body in found.sections])


def _sound(found: Found, name: str) -> Found:
    """The document, or the row that says why it cannot be stored: no NUL, no half of a surrogate pair."""
    parts = (found.title, found.text, found.label, found.group, *(part for section in found.sections for part in section))
    if any("\0" in part for part in parts):
        return broken(name, f"{name}: a text holds a NUL")
    try:
        "".join(parts).encode()
    except UnicodeEncodeError:
        return broken(name, f"{name}: a text holds a lone surrogate")
    return found


def _document(group: str, page: Page, language: str, label: str = "") -> Found:
    return Found(group, page.title, page.text, language, label, page.sections)


def _html(file: File, source: FilesSource, key: str) -> Iterator[Found]:
    with Stream(file, f"{key}.path") as stream:
        html = decode_page(stream.whole())
    if "<" not in html:
        raise Unreadable("no markup in it")
    yield _document(file.name, extract(html), source.language or "")


def _markdown(file: File, source: FilesSource, key: str) -> Iterator[Found]:
    with Stream(file, f"{key}.path") as stream:
        yield _document(file.name, read_markdown(decode_text(stream.whole())), source.language or "")


def _text(file: File, source: FilesSource, key: str) -> Iterator[Found]:
    with Stream(file, f"{key}.path") as stream:
        text = decode_text(stream.whole())
    yield Found(file.name, "", text.replace("\r\n", "\n").strip(), source.language or "")


def _jsonl(file: File, source: FilesSource, key: str) -> Iterator[Found]:
    empty = True
    with Stream(file, f"{key}.path") as stream:
        for number, line in stream.lines():
            where = f"{file.name}, line {number}"
            if line is not None and not line.strip():
                continue
            empty = False
            try:
                if line is None:
                    raise Unreadable(f"more than {MAX_RECORD >> 20} MiB")
                record = _object(line)
                yield _record(record, source)
            except Unreadable as error:
                yield broken(file.name, f"{where}: {error}")
    if empty:
        raise Unreadable("empty file")


def _object(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unreadable(f"invalid UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {error}"[:160]) from error
    if not isinstance(record, dict):
        raise Unreadable("no JSON object")
    return record


def _record(record: dict[str, Any], source: FilesSource) -> Found:
    text = record.get(source.text_field)
    if not isinstance(text, str):
        raise Unreadable(f"no text in {source.text_field!r}")
    title, label = (value if isinstance(value, str) else "" for value in (record.get(source.title_field), record.get(source.label_field)))
    return Found(text_id(title, text), " ".join(title.split()), text.strip(), source.language or "", label)


def _parquet(file: File, source: FilesSource, key: str) -> Iterator[Found]:
    system, path = filesystem(file.uri)
    if not file.bytes:
        raise Unreadable("empty file")
    try:
        with system.open_input_file(path) as stream:
            check_start(file, stream.read(8), f"{key}.path")
            stream.seek(0)
            table = pq.ParquetFile(stream)
            columns = _columns(table.schema_arrow, file, source, key)
            row = 0
            for batch in table.iter_batches(PARQUET_ROWS, columns=columns):
                for record in _rows(batch):
                    row += 1
                    try:
                        yield _record(record, source)
                    except Unreadable as error:
                        yield broken(file.name, f"{file.name}, row {row}: {error}")
    except (OSError, pa.ArrowException) as error:
        raise Unreadable(first_line(error)[:200]) from error


def _columns(schema: pa.Schema, file: File, source: FilesSource, key: str) -> list[str]:
    """The columns to read; of them only the texts must be there."""
    strings = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    if source.text_field not in strings:
        there = ", ".join(strings) or "none"
        raise InputError(f"{key}.text_field: {file.shown} has no column {source.text_field!r} of strings; there are {there}")
    return list(dict.fromkeys([source.text_field, *(name for name in (source.title_field, source.label_field) if name in strings)]))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows as text; a value that is no UTF-8 (Parquet does not check) or above the limit is not a string any more."""
    binary = {name: batch.column(name).cast(pa.large_binary()) for name in batch.schema.names}
    for index in range(batch.num_rows):
        yield {name: _value(column[index]) for name, column in binary.items()}


def _value(scalar: pa.Scalar) -> str | None:
    buffer = scalar.as_buffer()
    if buffer is None or buffer.size > MAX_RECORD:
        return None
    try:
        return buffer.to_pybytes().decode("utf-8")
    except UnicodeDecodeError:
        return None


def _warc(file: File, source: FilesSource, key: str) -> Iterator[Found]:
    """Responses that are HTML pages, and the plain texts of WET archives (conversion records); all else is passed over."""
    if not file.bytes:
        raise Unreadable("empty file")
    with Stream(file, f"{key}.path") as stream:
        try:
            readable = cast(BinaryIO, stream)  # it only reads on
            records = ArchiveIterator(
                readable,
                record_types=WarcRecordType.response | WarcRecordType.conversion,
                parse_http=True,
                auto_decode="all",
                stream_detect=False,
            )
            for record in records:
                if record.record_type == WarcRecordType.conversion:
                    yield _converted(record, file.name, source)
                    continue
                if record.http_headers is None or not (record.http_content_type or "").lower().startswith(PAGES):
                    continue
                if record.http_headers.status_code not in (None, 200):
                    continue
                address = record.headers.get("WARC-Target-URI") or record.record_id or ""
                try:
                    data = record.reader.read(MAX_RECORD + 1)
                    if len(data) > MAX_RECORD:
                        raise Unreadable(f"more than {MAX_RECORD >> 20} MiB")
                    yield _document(address, extract(decode_page(data)), source.language or "")
                except Unreadable as error:
                    yield broken(address, f"{file.name}, {address}: {error}")
        except (OSError, ValueError, RuntimeError) as error:
            raise Unreadable(f"archive cut or corrupt: {error}"[:200]) from error


def _converted(record: Any, name: str, source: FilesSource) -> Found:
    """The text of a conversion record."""
    address = record.headers.get("WARC-Target-URI") or record.record_id or ""
    data = record.reader.read(MAX_RECORD + 1)
    try:
        if len(data) > MAX_RECORD:
            raise Unreadable(f"more than {MAX_RECORD >> 20} MiB")
        return Found(address, "", decode_text(data).strip(), source.language or "")
    except Unreadable as error:
        return broken(address, f"{name}, {address}: {error}")


READERS: dict[str, Callable[[File, FilesSource, str], Iterator[Found]]] = {
    "html": _html,
    "markdown": _markdown,
    "text": _text,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "warc": _warc,
}
"""By the formats that `locate` knows."""
