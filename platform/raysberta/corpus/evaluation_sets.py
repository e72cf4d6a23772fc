"""The evaluation sets that a recipe names: files of texts that no training text may repeat.

Each string of a record counts, in lists and nested objects too: queries, answers, texts that are scored. Passages that a benchmark
searches are told apart, since good training sets are made of the same Wikipedia: a record whose `part` is `passage`, as in the
`texts.parquet` that jobs/fetch_benchmark.py writes, or what stands in the columns of PASSAGE_COLUMNS. `item` names the record where it is
there, else the file and the row do.
"""

import json
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysberta.corpus.decontaminate import PASSAGE, Passages, hashed
from raysberta.corpus.locate import RECORDS, File, locate, peek, state
from raysberta.corpus.normal import words
from raysberta.corpus.stream import Stream, Unreadable
from raysberta.errors import InputError
from raysberta.storage.location import filesystem, first_line

KEY = "corpus.evaluation_sets"
LEAST_WORDS = 4
"""Of a passage that counts as a whole: what is shorter, a label or "да", stands everywhere."""
ROWS = 20_000
PASSAGE_COLUMNS = frozenset(("passage", "passages", "corpus", "document", "documents", "context", "contexts"))
"""Columns of what is searched."""
Told = tuple[Passages, list[str]]
"""Hashes of what some records say, and the records' names."""


def evaluation_files(paths: Sequence[str]) -> list[File]:
    """The files.

    Args:
        paths: As in the recipe: folders, globs and files.

    Raises:
        InputError: a path does not exist, or a file is neither Parquet nor JSONL.
    """
    files = locate(paths, KEY, RECORDS) if paths else []
    for file in files:
        if file.format not in RECORDS:
            raise InputError(f"{KEY}: {file.shown}: right would be .parquet or .jsonl (.gz, .zst)")
    return files


def check_evaluation_sets(paths: Sequence[str]) -> None:
    """Look whether the files are there and start as their endings say.

    Raises:
        InputError: as above.
    """
    for file in evaluation_files(paths):
        peek(file, KEY)


def sets_state(paths: Sequence[str]) -> dict[str, Any]:
    """What the files are; `missing` where one is not there: a plan can be made without it."""
    try:
        return state(evaluation_files(paths))
    except InputError:
        return {"missing": True}


def read_set(file: File, size: int) -> Iterator[Told]:
    """Hashes of a file's records, ROWS at a time, each with the records' names.

    Args:
        file: Of `evaluation_files`.
        size: Words of a run.

    Raises:
        InputError: the file is not readable.
    """
    batch: list[tuple[str, list[str]]] = []
    try:
        for number, record in enumerate(_records(file), 1):
            named = record.pop("item", None)
            name = named if isinstance(named, str) else f"{file.name}#{number}"
            batch.extend(_told(record, name))
            if len(batch) >= ROWS:
                yield _hashed(batch, size)
                batch = []
    except FileNotFoundError as error:
        right = "right would be a place that every node reaches"
        raise InputError(f"{KEY}: {file.shown} is not there on node {platform.node()}; {right}") from error
    except (Unreadable, OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{KEY}: {file.shown} is unreadable: {first_line(error)[:200]}") from error
    yield _hashed(batch, size)


def _told(record: dict[str, object], name: str) -> Iterator[tuple[str, list[str]]]:
    """What a record says, and what of it is a passage, each with its name."""
    whole = record.pop("part", None) == "passage"
    searched = {column: value for column, value in record.items() if whole or column in PASSAGE_COLUMNS}
    for start, part in (("", {column: value for column, value in record.items() if column not in searched}), (PASSAGE, searched)):
        if texts := list(_strings(part)):
            yield f"{start}{name}", texts


def _hashed(batch: Sequence[tuple[str, list[str]]], size: int) -> Told:
    texts = [text for _, own in batch for text in own]
    rows = [row for row, (_, own) in enumerate(batch) for _ in own]
    return hashed(texts, rows, [len(words(text)) >= LEAST_WORDS for text in texts], size), [name for name, _ in batch]


def _records(file: File) -> Iterator[dict[str, object]]:
    if file.format == "parquet":
        system, path = filesystem(file.uri)
        with system.open_input_file(path) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(1024):
                yield from batch.to_pylist()
        return
    with Stream(file, KEY) as lines:
        for number, line in lines.lines():
            if line is None:
                raise Unreadable(f"line {number} is too long")
            if line.strip():
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise Unreadable(f"line {number} is no object")
                yield record


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)
