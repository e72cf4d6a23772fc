"""From the recipe's sources to work units, and from a work unit to tables of candidates. Also what can be checked before anything runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_never

import pyarrow as pa

from raysberta.corpus.documents import WRONG_INPUT, Found, to_tables
from raysberta.corpus.evaluation_sets import sets_identity
from raysberta.corpus.formats import read_file
from raysberta.corpus.language import model_size
from raysberta.corpus.locate import File, digest, locate, peek
from raysberta.corpus.packaged import docstrings, intents, interface, senses, wiktionary
from raysberta.corpus.packaged.place import folder, installed_version
from raysberta.corpus.scoring import scorer_identity
from raysberta.errors import InputError
from raysberta.recipe import (
    DatasetSource,
    DictionarySource,
    DocstringSource,
    FilesSource,
    IntentSource,
    InterfaceStringSource,
    Recipe,
    Source,
    WordSenseSource,
)

SHARD_BYTES = 32 << 20
SHARD_FILES = 256
PEEKED_FILES = 50
ROWS_OF_A_SHARD = 1 << 36


@dataclass(frozen=True)
class Shard:
    """What one task reads."""

    source: str
    number: int
    """Over all sources; rows are numbered from it."""
    items: tuple[str, ...] = ()
    """Of a packaged source."""
    files: tuple[File, ...] = ()
    """Of a `files` source."""


def check_source(name: str, source: Source) -> None:
    """Look whether packages are installed, paths exist and files start as their endings say; seconds, not minutes.

    Raises:
        InputError: something is missing or wrong; the message names the recipe's key.
    """
    key = f"sources.{name}"
    if isinstance(source, FilesSource | DatasetSource):
        files = locate(source.path, f"{key}.path")
        for file in files[:: max(1, len(files) // PEEKED_FILES)]:
            peek(file, f"{key}.path")
        _check_formats(files, source, f"{key}.path")
    else:
        for package in _packages(source):
            folder(package, f"{key}.packages" if isinstance(source, DocstringSource) else key)


def source_identity(recipe: Recipe) -> dict[str, Any]:
    """What each source is, beyond its settings: versions of the packages, or a digest over names, sizes and dates of the files.

    A source that is not there is `missing`: a plan can be made without it, a run is refused before (`check_source`).
    """
    identity: dict[str, Any] = {}
    for name, source in recipe.sources.items():
        settings = {} if isinstance(source, DatasetSource) else source.model_dump(mode="json", exclude={"pairs", "path"})
        try:
            content = _content(name, source)
        except InputError:
            content = {"missing": True}
        identity[name] = {"settings": settings, "content": content}
    if recipe.corpus.evaluation_sets:
        identity["corpus.evaluation_sets"] = sets_identity(recipe)
    if recipe.corpus.scorer is not None:
        identity["corpus.scorer"] = scorer_identity(recipe.corpus.scorer)
    if recipe.corpus.language_model is not None:
        identity["corpus.language_model"] = model_size(recipe.corpus.language_model)
    return identity


def _content(name: str, source: Source) -> dict[str, Any]:
    if not isinstance(source, FilesSource | DatasetSource):
        return {package: installed_version(package) for package in _packages(source)}
    files = locate(source.path, f"sources.{name}.path")
    return {"files": len(files), "digest": digest(files)}


def shards(recipe: Recipe) -> list[Shard]:
    """The work units of all sources that hold documents, in the recipe's order."""
    found: list[Shard] = []
    for name, source in recipe.sources.items():
        if isinstance(source, DatasetSource):
            continue
        if isinstance(source, FilesSource):
            groups = _bundled(locate(source.path, f"sources.{name}.path"))
            found.extend(Shard(name, len(found) + number, files=group) for number, group in enumerate(groups))
        else:
            parts = _parts(source, f"sources.{name}")
            found.extend(Shard(name, len(found) + number, items=part) for number, part in enumerate(parts))
    return found


def read_shard(shard: Shard, source: Source) -> Iterator[pa.Table]:
    """Tables with the columns of CANDIDATE, of bounded size. Wrong input is a last row that says so, not an exception inside a worker."""
    yield from to_tables(shard.source, _guarded(shard, source), shard.number * ROWS_OF_A_SHARD)


def _guarded(shard: Shard, source: Source) -> Iterator[Found]:
    key = f"sources.{shard.source}"
    try:
        if isinstance(source, FilesSource):
            for file in shard.files:
                yield from read_file(file, source, key)
        else:
            yield from _packaged(shard, source, key)
    except InputError as error:
        yield Found("", "", "", reason=WRONG_INPUT + str(error))


def _packaged(shard: Shard, source: Source, key: str) -> Iterator[Found]:
    match source:
        case DictionarySource():
            return wiktionary.read(shard.items, key)
        case DocstringSource():
            return docstrings.read(shard.items, key)
        case InterfaceStringSource():
            return interface.read(shard.items, key)
        case IntentSource():
            return intents.read(shard.items, key)
        case WordSenseSource():
            return senses.read(shard.items, key)
        case FilesSource() | DatasetSource():
            raise AssertionError(f"{key}: not a packaged source")
        case _:
            assert_never(source)


def _parts(source: Source, key: str) -> list[tuple[str, ...]]:
    match source:
        case DictionarySource():
            return wiktionary.parts()
        case DocstringSource():
            return docstrings.parts(source.packages, key)
        case InterfaceStringSource():
            return interface.parts()
        case IntentSource():
            return intents.parts(source.languages)
        case WordSenseSource():
            return senses.parts()
        case FilesSource() | DatasetSource():
            raise AssertionError(f"{key}: not a packaged source")
        case _:
            assert_never(source)


def _packages(source: Source) -> tuple[str, ...]:
    match source:
        case DictionarySource():
            return (wiktionary.PACKAGE,)
        case DocstringSource():
            return source.packages
        case InterfaceStringSource():
            return (interface.PACKAGE,)
        case IntentSource():
            return (intents.PACKAGE,)
        case WordSenseSource():
            return (senses.PACKAGE,)
        case FilesSource() | DatasetSource():
            return ()
        case _:
            assert_never(source)


def _check_formats(files: list[File], source: FilesSource | DatasetSource, key: str) -> None:
    if isinstance(source, DatasetSource):
        for file in files:
            if file.format not in ("jsonl", "parquet"):
                raise InputError(
                    f"{key}: {file.uri}: a data set is .parquet or .jsonl (.gz, .zst); right for pages and texts is kind: files"
                )


def _bundled(files: list[File]) -> list[tuple[File, ...]]:
    """Files in order, some megabytes to a bundle."""
    bundles: list[tuple[File, ...]] = []
    bundle: list[File] = []
    size = 0
    for file in files:
        if bundle and (size + file.bytes > SHARD_BYTES or len(bundle) >= SHARD_FILES):
            bundles.append(tuple(bundle))
            bundle, size = [], 0
        bundle.append(file)
        size += file.bytes
    if bundle:
        bundles.append(tuple(bundle))
    return bundles
