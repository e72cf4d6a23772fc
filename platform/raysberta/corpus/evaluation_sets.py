"""The evaluation sets that a recipe names: files of texts that no training text may repeat.

Each string of a record counts, in lists and nested objects too, so query and passage sides alike; `item` names the record where it is
there, as in the `texts.parquet` that jobs/fetch_benchmark.py writes, else the file and the row do.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysberta.corpus.decontaminate import Passages, hashed
from raysberta.corpus.locate import RECORDS, File, locate, peek, state
from raysberta.corpus.normal import words
from raysberta.corpus.stream import Stream, Unreadable
from raysberta.errors import InputError
from raysberta.storage.location import filesystem, first_line

KEY = "corpus.evaluation_sets"
LEAST_WORDS = 4
"""Of a passage that counts as a whole: what is shorter, a label or "да", stands everywhere."""
ROWS = 20_000
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


def all_read(results: Iterable[list[Told] | str]) -> list[Told]:
    """What `read_set` found in all files, those of each in turn.

    Raises:
        InputError: one of them is not readable.
    """
    found: list[Told] = []
    for result in results:
        if isinstance(result, str):
            raise InputError(result)
        found.extend(result)
    return found


def read_set(file: File, size: int) -> list[Told] | str:
    """Hashes of a file's records, batch by batch, each with the records' names; or what is wrong with the file, in one line.

    Args:
        file: Of `evaluation_files`.
        size: Words of a run.
    """
    found = []
    names: list[str] = []
    texts: list[str] = []
    rows: list[int] = []
    try:
        for number, record in enumerate(_records(file), 1):
            named = record.pop("item", None)
            own = list(_strings(record))
            texts.extend(own)
            rows.extend([len(names)] * len(own))
            names.append(named if isinstance(named, str) else f"{file.name}#{number}")
            if len(names) == ROWS:
                found.append((_hashed(texts, rows, size), names))
                names, texts, rows = [], [], []
    except (Unreadable, OSError, ValueError, pa.ArrowException) as error:
        return f"{KEY}: {file.shown} is unreadable: {first_line(error)[:200]}"
    return [*found, (_hashed(texts, rows, size), names)]


def _hashed(texts: list[str], rows: list[int], size: int) -> Passages:
    return hashed(texts, rows, [len(words(text)) >= LEAST_WORDS for text in texts], size)


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
