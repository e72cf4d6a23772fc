"""From the recipe's sources to work units, and from a work unit to tables of candidates. Also what can be checked before anything runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

import pyarrow as pa

from raysberta.corpus.documents import WRONG_INPUT, Found, to_tables
from raysberta.corpus.evaluation_sets import check_evaluation_sets, sets_state
from raysberta.corpus.formats import read_file
from raysberta.corpus.language import model_size
from raysberta.corpus.locate import DOCUMENTS, File, locate, peek, state
from raysberta.corpus.packaged import (
    cloud,
    descriptions,
    diseases,
    distribution,
    docstrings,
    intents,
    interface,
    legal,
    libreoffice,
    mercurial,
    names,
    senses,
    towns,
    wiktionary,
)
from raysberta.corpus.packaged.place import folder, installed_version
from raysberta.corpus.scoring import scorer_identity
from raysberta.corpus.settings import (
    CloudSource,
    DescriptionSource,
    DictionarySource,
    DiseaseSource,
    DocstringSource,
    Documents,
    FilesSource,
    IntentSource,
    InterfaceStringSource,
    LegalSource,
    MercurialSource,
    NameSource,
    OfficeHelpSource,
    TextSource,
    TownSource,
    WordSenseSource,
)
from raysberta.errors import InputError

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


def check_source(name: str, source: TextSource) -> None:
    """Look whether packages are installed, paths exist and files start as their endings say; seconds, not minutes.

    Raises:
        InputError: something is missing or wrong; the message names the recipe's key.
    """
    key = f"sources.{name}"
    if isinstance(source, FilesSource):
        files = _files(name, source)
        for file in files[:: max(1, len(files) // PEEKED_FILES)]:
            peek(file, f"{key}.path")
    elif isinstance(source, OfficeHelpSource | DescriptionSource):
        _unpacked(source, key)
    else:
        for package in _packages(source):
            folder(package, f"{key}.packages" if isinstance(source, DocstringSource) else key)


def fetch_source(name: str, source: TextSource) -> None:
    """Fetch what a source is read from, where the source says how and it is not there.

    Raises:
        InputError: it cannot be fetched.
    """
    if isinstance(source, OfficeHelpSource):
        distribution.fetch(tuple(libreoffice.PACKAGES.values()), f"sources.{name}")
    elif isinstance(source, DescriptionSource):
        distribution.fetch_descriptions(descriptions.LANGUAGES, f"sources.{name}")


def check_documents(settings: Documents) -> list[str]:
    """What is wrong outside the recipe, a line each: sources, evaluation sets, the scorer or the language model are not there."""
    rules = settings.rules
    checks: list[Callable[[], object]] = [partial(check_source, name, source) for name, source in settings.sources.items()]
    checks.append(partial(check_evaluation_sets, rules.evaluation_sets))
    if rules.scorer is not None:
        checks.append(partial(scorer_identity, rules.scorer))
    if rules.language_model is not None:
        checks.append(partial(model_size, rules.language_model))
    problems = []
    for check in checks:
        try:
            check()
        except InputError as error:
            problems.append(str(error))
    return problems


def source_state(name: str, source: TextSource) -> dict[str, Any]:
    """What a source is, beyond its settings: versions of the packages, or a digest over names, sizes and dates of the files.

    A source that is not there is `missing`: a plan can be made without it, a run is refused before (`check_source`).
    """
    try:
        if isinstance(source, FilesSource):
            return state(_files(name, source))
        if isinstance(source, OfficeHelpSource | DescriptionSource):
            return _unpacked(source, f"sources.{name}")
        return {package: installed_version(package) for package in _packages(source)}
    except InputError:
        return {"missing": True}


def documents_state(settings: Documents) -> dict[str, Any]:
    """What decides the documents beyond their settings, as JSON values, for their identity.

    Raises:
        InputError: there is no such scorer or language model.
    """
    found: dict[str, Any] = {"sources": {name: source_state(name, source) for name, source in settings.sources.items()}}
    rules = settings.rules
    if rules.evaluation_sets:
        found["evaluation_sets"] = sets_state(rules.evaluation_sets)
    if rules.scorer is not None:
        found["scorer"] = scorer_identity(rules.scorer)
    if rules.language_model is not None:
        found["language_model"] = model_size(rules.language_model)
    return found


def shards(sources: Mapping[str, TextSource]) -> list[Shard]:
    """The work units of all sources, in the recipe's order."""
    found: list[Shard] = []
    for name, source in sources.items():
        first = len(found)
        if isinstance(source, FilesSource):
            groups = _bundled(_files(name, source))
            found += [Shard(name, number, files=group) for number, group in enumerate(groups, first)]
        else:
            parts = _parts(source, f"sources.{name}")
            found += [Shard(name, number, items=part) for number, part in enumerate(parts, first)]
    return found


def read_shard(shard: Shard, source: TextSource) -> Iterator[pa.Table]:
    """Tables with the columns of CANDIDATE, of bounded size. Wrong input is a last row that says so, not an exception inside a worker."""
    yield from to_tables(shard.source, _guarded(shard, source), shard.number * ROWS_OF_A_SHARD)


def _files(name: str, source: FilesSource) -> list[File]:
    """The files of a `files` source."""
    key = f"sources.{name}.path"
    files = locate(source.path, key)
    for file in files:
        if file.format not in DOCUMENTS:
            raise InputError(f"{key}: {file.shown} holds no documents; right would be kind: dataset for tables, or .jsonl or .parquet")
    return files


def _guarded(shard: Shard, source: TextSource) -> Iterator[Found]:
    key = f"sources.{shard.source}"
    try:
        if isinstance(source, FilesSource):
            for file in shard.files:
                yield from read_file(file, source, key)
        else:
            yield from _packaged(shard, source, key)
    except InputError as error:
        yield Found("", "", "", reason=WRONG_INPUT + str(error))


def _packaged(shard: Shard, source: TextSource, key: str) -> Iterator[Found]:
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
        case LegalSource():
            return legal.read(shard.items, key)
        case MercurialSource():
            return mercurial.read(shard.items, key)
        case CloudSource():
            return cloud.read(shard.items, key)
        case DiseaseSource():
            return diseases.read(shard.items, key)
        case NameSource():
            return names.read(shard.items, key)
        case TownSource():
            return towns.read(shard.items, key)
        case OfficeHelpSource():
            return libreoffice.read(shard.items, key)
        case DescriptionSource():
            return descriptions.read(shard.items, key)
        case FilesSource():
            raise AssertionError(f"{key}: not a packaged source")
        case _:
            assert_never(source)


def _parts(source: TextSource, key: str) -> list[tuple[str, ...]]:
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
        case LegalSource():
            return legal.parts()
        case MercurialSource():
            return mercurial.parts()
        case CloudSource():
            return cloud.parts(source.services)
        case DiseaseSource():
            return diseases.parts()
        case NameSource():
            return names.parts()
        case TownSource():
            return towns.parts()
        case OfficeHelpSource():
            return libreoffice.parts(key)
        case DescriptionSource():
            return descriptions.parts(source.languages, key)
        case FilesSource():
            raise AssertionError(f"{key}: not a packaged source")
        case _:
            assert_never(source)


def _packages(source: TextSource) -> tuple[str, ...]:
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
        case LegalSource():
            return (legal.PACKAGE,)
        case MercurialSource():
            return (mercurial.PACKAGE,)
        case CloudSource():
            return (cloud.PACKAGE,)
        case DiseaseSource():
            return (diseases.PACKAGE,)
        case NameSource():
            return (names.PACKAGE,)
        case TownSource():
            return (towns.PACKAGE,)
        case OfficeHelpSource() | DescriptionSource() | FilesSource():
            return ()
        case _:
            assert_never(source)


def _unpacked(source: OfficeHelpSource | DescriptionSource, key: str) -> dict[str, str]:
    """Versions of what lies unpacked from the distribution."""
    packages = libreoffice.PACKAGES.values() if isinstance(source, OfficeHelpSource) else [distribution.DESCRIPTIONS]
    return {package: distribution.unpacked_version(package, key) for package in packages}


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
