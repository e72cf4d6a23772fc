"""The rehearsal's data sets as files that were downloaded before: for jobs/fetch_data.py in place of a hub, and what hangs from `data`.

A file is a range of a collection's items, so the bytes are the same however many processes write; what is there is not written again.
A process holds the pool of sentences, some 50 MB, and a buffer.
"""

import csv
import gzip
import io
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
import zstandard

from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from rehearsal_records import Planned, Record, planned, records
from rehearsal_sets import Collection, collections, format_of
from rehearsal_texts import Pool, read_pools, write_pools

FILE_ITEMS = 50_000
"""Items of a file, where a data set has several."""
BATCH_ROWS = 4096
PLAN = "plan.json"
EVALUATION = pa.schema([("item", pa.string()), ("part", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class Share:
    """A file, and the items that it holds."""

    path: Path
    collection: int
    start: int
    stop: int


def write_all(sources: Mapping[str, DatasetSource], downloads: Path, data: Path, pools: Path, workers: int) -> int:
    """Write every file that is not there yet, and the plan; bytes of all files.

    Args:
        sources: The recipe's data sets, with their caps.
        downloads: For those of a hub.
        data: For those with a path.
        pools: Where the sentences lie, or are written first.
        workers: Processes.

    Raises:
        InputError: there are files of another plan.
    """
    if not (pools / "en.parquet").exists():
        write_pools(pools)
    found = collections(sources)
    _keep_plan({name: vars(own) for each in found for name, own in planned(each).items()}, data)
    shares = [share for number, each in enumerate(found) for share in _shares(each, number, downloads, data)]
    todo = sorted((share for share in shares if not share.path.exists()), key=lambda share: share.start - share.stop)
    with multiprocessing.get_context("spawn").Pool(workers, _start, (dict(sources), pools)) as processes:
        for _ in processes.imap_unordered(_write, todo):
            pass
    for each in found:
        _write_card(each, downloads)
    texts = data / "rumteb" / "texts.parquet"
    if not texts.exists():  # a file's date is part of what a run reads
        _write_evaluation_set(read_pools(pools), texts)
    return sum(share.path.stat().st_size for share in shares)


def _keep_plan(plan: Mapping[str, Any], data: Path) -> None:
    """Write the plan, before any file: those that are there are of the one that is there."""
    file, text = data / PLAN, json.dumps(plan, indent=1)
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise InputError(f"{data.parent}: its files are of another recipe or generator; right would be to remove it")
    data.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def read_plan(data: Path) -> dict[str, Planned]:
    """What was planned, by data set."""
    said = json.loads((data / PLAN).read_text(encoding="utf-8"))
    return {name: Planned(**own | {key: Counter(own[key]) for key in ("left_out", "rejected")}) for name, own in said.items()}


def download_place(source: DatasetSource, downloads: Path) -> Path:
    """The folder of a hub's data set among downloads."""
    return downloads / f"{str(source.hub).replace('/', '__')}@{source.revision}"


def _shares(collection: Collection, number: int, downloads: Path, data: Path) -> Iterator[Share]:
    source = collection.source
    root = download_place(source, downloads) if source.hub else data
    if source.split is not None:
        patterns: Sequence[str] = [f"{source.config or 'data'}/{source.split}-*.parquet"]
    else:
        named = source.files or source.path or ()
        patterns = [named] if isinstance(named, str) else named
    files = [(pattern, part) for pattern in patterns for part in range(_parts(collection, pattern, len(patterns)))]
    for place, (pattern, part) in enumerate(files):
        start, stop = (collection.items * each // len(files) for each in (place, place + 1))
        yield Share(root / pattern.replace("*", f"{part:05d}"), number, start, stop)


def _parts(collection: Collection, pattern: str, patterns: int) -> int:
    return max(1, -(-collection.items // FILE_ITEMS // patterns)) if "*" in pattern else 1


_given: dict[str, Any] = {}
"""Of a process that writes: the data sets and where the sentences are."""


def _start(sources: dict[str, DatasetSource], pools: Path) -> None:
    _given.update(sources=sources, pools=pools)


@cache
def _read() -> tuple[list[Collection], dict[str, Pool]]:
    return collections(_given["sources"]), read_pools(_given["pools"])


def _write(share: Share) -> None:
    found, pools = _read()
    collection = found[share.collection]
    share.path.parent.mkdir(parents=True, exist_ok=True)
    aside = share.path.with_name(f"{share.path.name}.new")
    rows = _records(collection, share.start, share.stop, pools)
    match format_of(collection.source):
        case "parquet":
            _write_parquet(rows, aside, _schema(collection, pools), collection.source.query_field)
        case "csv":
            _write_csv(rows, aside, next(records(collection.groups[0], _first(collection), pools)) or {})
        case "json":
            _write_json(rows, aside)
        case _:
            _write_jsonl(rows, aside, share.path.suffix)
    aside.replace(share.path)


def _records(collection: Collection, start: int, stop: int, pools: Mapping[str, Pool]) -> Iterator[Record | None]:
    for group in collection.groups:
        for place in range(max(start, 0), min(stop, group.items)):
            yield from records(group, place, pools)
        start, stop = start - group.items, stop - group.items


def _first(collection: Collection) -> int:
    """The first place of a good item, whose record has every column."""
    group = collection.groups[0]
    return next(place for place in range(group.items) if group.fate(place)[0] == "good")


def _schema(collection: Collection, pools: Mapping[str, Pool]) -> pa.Schema:
    return pa.Table.from_pylist([next(records(collection.groups[0], _first(collection), pools)) or {}]).schema


def _write_parquet(rows: Iterable[Record | None], path: Path, schema: pa.Schema, query: str) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            table = pa.Table.from_pylist([row or {} for row in batch], schema)
            if None in batch:  # its query is no UTF-8, which Parquet does not see
                texts = [b"\xff\xfe" if row is None else None if row[query] is None else row[query].encode() for row in batch]
                table = table.set_column(schema.get_field_index(query), query, pa.array(texts, pa.binary()).view(pa.string()))
            writer.write_table(table)


def _write_csv(rows: Iterable[Record | None], path: Path, whole: Record) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(whole)
        for row in rows:  # a field too many cannot be read
            writer.writerow([*whole, "one more"] if row is None else ["" if row[name] is None else row[name] for name in whole])


def _write_json(rows: Iterable[Record | None], path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(rows):
            stream.write(",\n" if number else "[\n")
            stream.write(json.dumps("no record" if row is None else row, ensure_ascii=False))
        stream.write("\n]\n")


def _write_jsonl(rows: Iterable[Record | None], path: Path, suffix: str) -> None:
    with _compressed(path, suffix) as stream:
        for row in rows:
            line = '{"query": "cut off' if row is None else json.dumps(row, ensure_ascii=False)
            stream.write(line.encode() + b"\n")


@contextmanager
def _compressed(path: Path, suffix: str) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if suffix == ".gz":
            with gzip.GzipFile("", "wb", 4, raw, mtime=0) as stream:
                yield stream
        elif suffix == ".zst":
            with zstandard.ZstdCompressor(3).stream_writer(raw, closefd=False) as stream:
                yield stream
        else:
            buffered = io.BufferedWriter(raw, 1 << 20)
            yield buffered
            buffered.flush()


def _batches(rows: Iterable[Record | None]) -> Iterator[list[Record | None]]:
    batch: list[Record | None] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_card(collection: Collection, downloads: Path) -> None:
    """A data set's card: which files its split has, and its licence."""
    source = collection.source
    if source.hub is None:
        return
    said: dict[str, Any] = {"license": source.licence or "other"}
    if source.split is not None:
        name = source.config or "default"
        files = [{"split": source.split, "path": f"{source.config or 'data'}/{source.split}-*.parquet"}]
        said["configs"] = [{"config_name": name, "data_files": files}]
    card = download_place(source, downloads) / "README.md"
    card.write_text(f"---\n{yaml.safe_dump(said)}---\n", encoding="utf-8")


def _write_evaluation_set(pools: Mapping[str, Pool], path: Path) -> None:
    """The sentences kept aside: every other one is a passage that a benchmark searches."""
    rows = [
        {"item": f"{language}#{number}", "part": "passage" if number % 2 else "text", "text": sentence}
        for language, pool in pools.items()
        for number, sentence in enumerate(pool.aside)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, EVALUATION), path)
