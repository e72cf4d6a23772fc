"""Data sets to snapshots: files of a hub at a pinned commit, or of a folder of what was downloaded before, read once for all entries.

Needs a network where a hub is asked, goes on where it was cut off: files that are there are not downloaded again, and a snapshot with
its index is done. Holds HELD_BYTES of the rows of all data sets that are read from the same files.
"""

import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.fs as pafs

from raysberta.corpus.locate import TABLES, File, glob_pattern, kind_of
from raysberta.data_sets.outside import data_set_files
from raysberta.data_sets.records import Record, Unit, records
from raysberta.data_sets.rows import Rows, value_at
from raysberta.data_sets.settings import OPEN, DatasetSource
from raysberta.data_sets.snapshot import INDEX, Index, Part, check_pinned, place, read_index
from raysberta.data_sets.sort import Sorter, write_parts
from raysberta.errors import InputError
from raysberta.storage.artifacts import write_whole
from raysberta.storage.location import filesystem, first_line, join

log = logging.getLogger(__name__)

CARD = "README.md"
HELD_BYTES, RUN_BYTES = 256 << 20, 64 << 20
"""Of rows that wait for their run to be full: of all data sets that are read from the same files, and of one at most."""
TRIES = 4
WAITS = 2.0
"""Seconds before the second try at a download; each further one waits three times as long."""
SEEN_VALUES = 60
"""Values of a column that are told where none is wanted."""
T = TypeVar("T")


class Unreachable(Exception):
    """The hub cannot be reached, or breaks off; the same command goes on from there."""


def fetch(sources: Mapping[str, DatasetSource], folder: Path | None = None) -> dict[str, Index]:
    """Make the snapshots that are not there yet; all of them, by the names of the data sets.

    Args:
        sources: The entries, with `path` and `snapshot` as the data root says; those that need no snapshot are passed over.
        folder: Where files lie that were downloaded before, in `owner__name@commit`, `owner__name` or `owner/name`; the hub where None.

    Raises:
        InputError: a revision is OPEN, a hub or folder has no such data set, commit or file, or the files are not what the entry says.
        Unreachable: the network.
    """
    wanted = {name: source for name, source in sources.items() if source.fetched}
    _check_all_pinned(wanted)
    groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, source in wanted.items():
        groups[source.hub or name, source.revision, source.config, source.split, source.files].append(name)
    found: dict[str, Index] = {}
    for names in groups.values():
        found |= _group({name: wanted[name] for name in names}, folder)
    return {name: found[name] for name in wanted}


def _check_all_pinned(sources: Mapping[str, DatasetSource]) -> None:
    """See that no revision is OPEN, before anything is fetched.

    Raises:
        InputError: some are; the first is named, and how many more there are.
    """
    still = [name for name, source in sources.items() if source.revision == OPEN]
    for name in still:
        try:
            check_pinned(name, sources[name])
        except InputError as error:
            more = f" (and {len(still) - 1} more)" if len(still) > 1 else ""
            raise InputError(f"{error}{more}") from error


def commits(sources: Mapping[str, DatasetSource]) -> dict[str, str]:
    """The commit that each data set whose revision is OPEN has on the hub today, by owner/name.

    Raises:
        InputError: the hub has no such data set.
        Unreachable: the network.
    """
    from huggingface_hub import HfApi

    asked: dict[str, str] = {}
    for name, source in sources.items():
        if source.revision == OPEN and source.hub is not None:
            asked.setdefault(source.hub, name)
    return {hub: str(_asked(f"sources.{name}.hub", partial(HfApi().dataset_info, hub)).sha) for hub, name in asked.items()}


def _group(sources: Mapping[str, DatasetSource], folder: Path | None) -> dict[str, Index]:
    """The snapshots of entries that are read from the same files, in one pass over these."""
    own = {name: data_set_files(name, source) if source.hub is None else None for name, source in sources.items()}
    found: dict[str, Index] = {}
    for name, source in sources.items():
        try:
            found[name] = read_index(name, source, own[name])
            log.info("%s: is there, %d rows", name, found[name].rows)
        except InputError:
            continue
    todo = [name for name in sources if name not in found]
    if not todo:
        return found
    hub = _Hub(todo[0], sources[todo[0]], folder) if sources[todo[0]].hub is not None else None
    names = hub.names() if hub is not None else [file.name for file in own[todo[0]] or ()]
    read: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="raysberta-fetch-") as aside:
        takers = [_Taker(name, sources[name], Path(aside) / name, min(RUN_BYTES, HELD_BYTES // len(todo))) for name in todo]
        for number, file in enumerate(hub.files(names) if hub is not None else own[todo[0]] or (), 1):
            log.info("%s: reading %s (%d of %d)", ", ".join(todo), file.name, number, len(names))
            _pass(file, takers)
            read[file.name] = file.bytes
        licence = hub.licence() if hub is not None else None
        return found | _written_by(takers, own, read, licence)


def _written_by(
    takers: Sequence["_Taker"], own: Mapping[str, list[File] | None], read: Mapping[str, int], licence: str | None
) -> dict[str, Index]:
    """The snapshots of all that found what they want; only then what is wrong with others, for the files were read for all."""
    found: dict[str, Index] = {}
    wrong: dict[str, InputError] = {}
    for taker in takers:
        try:
            found[taker.name] = taker.write(place(taker.source, own[taker.name]), read, licence)
        except InputError as error:
            wrong[taker.name] = error
    for first in wrong.values():
        others = f" (and something is wrong with {', '.join(list(wrong)[1:])})" if len(wrong) > 1 else ""
        raise InputError(f"{first}{others}") from first
    return found


def _pass(file: File, takers: Sequence["_Taker"]) -> None:
    """Read a file once, each record for all entries."""
    columns = {column for taker in takers for _, column in taker.source.columns()}
    columns |= {column.partition(".")[0] for column in columns}
    for record in records(Unit(takers[0].name, file), f"sources.{takers[0].name}", sorted(columns)):
        for taker in takers:
            taker.add(record)


class _Taker:
    """What one entry takes of the records that pass by."""

    def __init__(self, name: str, source: DatasetSource, aside: Path, run_bytes: int) -> None:
        self.name, self.source = name, source
        self._rows, self._sorter = Rows(name, source), Sorter(aside, run_bytes, source.sample)
        self._values: set[str] = set()

    def add(self, record: Record) -> None:
        table = self._rows.add(record)
        if table is not None:
            self._sorter.add(table)
        if self.source.where and len(self._values) < SEEN_VALUES and not record.problem:
            self._values.update(f"{column}={str(value_at(record.value, column))[:40]}" for column in self.source.where)

    def write(self, where: str, read: Mapping[str, int], licence: str | None) -> Index:
        """Write the snapshot, its index last."""
        rows, source = self._rows, self.source
        self._sorter.add(rows.end())
        if rows.seen and rows.dropped["where"] == rows.seen:
            there = ", ".join(sorted(self._values)[:SEEN_VALUES])
            raise InputError(f"sources.{self.name}.where: no record of {len(read)} files is so; there are {there}")
        index = Index(
            origin=f"hub:{source.hub}@{source.revision}" if source.hub else "path",
            files=dict(read),
            card_licence=licence,
            rows_read=rows.seen,
            dropped=dict(sorted(rows.dropped.items())),
            unreadable=rows.unreadable,
            parts=_written(self._sorter, where),
        )
        write_whole(*filesystem(join(where, INDEX)), index.model_dump_json(indent=1).encode())
        log.info("%s: %d of %d records taken, %d parts", self.name, index.rows, rows.seen, len(index.parts))
        return index


def _written(sorter: Sorter, where: str) -> list[Part]:
    """A snapshot's parts, where parts of one that was cut off may lie."""
    system, path = filesystem(where)
    system.create_dir(path, recursive=True)
    parts = write_parts(sorter.sorted(), where)
    named = {part.name for part in parts}
    for info in system.get_file_info(pafs.FileSelector(path)):
        if info.base_name not in named:
            system.delete_file(info.path)
    return parts


class _Hub:
    """One data set of a hub, there or as it was downloaded before."""

    def __init__(self, name: str, source: DatasetSource, folder: Path | None) -> None:
        self.name, self.source = name, source
        self._hub, self._revision = str(source.hub), str(source.revision)
        self._folder = self._downloaded(folder) if folder is not None else None

    def names(self) -> list[str]:
        """The files that the entry takes, sorted.

        Raises:
            InputError: none is there, or one is no table.
        """
        source = self.source
        key = f"sources.{self.name}.{'files' if source.files is not None else 'split'}"
        found = self._declared(key) if source.files is None else self._matching(key, source.files)
        for path in found:
            kind = kind_of(path)
            if kind is None or kind[0] not in TABLES:
                right = "right would be .parquet, .jsonl, .json, .csv or .tsv, each but .parquet also with .gz or .zst"
                raise InputError(f"{key}: {self._hub}: {path} is no table that can be read; {right}")
        return found

    def files(self, names: Sequence[str]) -> Iterator[File]:
        """Each file, downloaded where need be."""
        for path in names:
            format_, compression = kind_of(path) or ("", None)
            local = self._local(path)
            yield File(str(local), path, format_, compression, local.stat().st_size, None)

    def licence(self) -> str | None:
        """What the card states; None where it states none."""
        from huggingface_hub import DatasetCard
        from huggingface_hub.errors import EntryNotFoundError

        try:
            stated = DatasetCard(self._local(CARD).read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict().get("license")
        except (FileNotFoundError, EntryNotFoundError, ValueError):
            return None
        return ", ".join(stated) if isinstance(stated, list) else str(stated) if stated else None

    def _matching(self, key: str, patterns: str | Sequence[str]) -> list[str]:
        there = self._all()
        found: set[str] = set()
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            matching = {path for path in there if path == pattern or glob_pattern(pattern).fullmatch(path)}
            if not matching:
                tables = [path for path in there if kind_of(path)]
                some = ", ".join(tables[:20]) or "none that can be read"
                raise InputError(f"{key}: {self._hub} has no file {pattern} at {self._revision[:8]}; there are {some}")
            found |= matching
        return sorted(found)

    def _declared(self, key: str) -> list[str]:
        """The files of a split, as the data set's card declares them, or its layout says."""
        import datasets

        source = self.source
        where = str(self._folder) if self._folder is not None else self._hub
        revision = None if self._folder is not None else self._revision
        try:
            builder = _asked(key, lambda: datasets.load_dataset_builder(where, name=source.config, revision=revision))
        except (ValueError, RuntimeError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
            raise InputError(f"{key}: {self._hub}: {first_line(error)[:300]}; right would be files: <paths within it>") from error
        files = (builder.config.data_files or {}).get(source.split)
        if not files:
            there = ", ".join(map(str, builder.config.data_files or {})) or "none"
            raise InputError(f"{key}: {self._hub} has no split {source.split!r}; there are {there}")
        start = f"{self._folder}/" if self._folder is not None else f"hf://datasets/{self._hub}@{self._revision}/"
        return sorted(str(path).removeprefix(start) for path in files)

    def _all(self) -> list[str]:
        if self._folder is not None:
            return sorted(path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*") if path.is_file())
        from huggingface_hub import HfApi

        key = f"sources.{self.name}.hub"
        return sorted(_asked(key, lambda: HfApi().list_repo_files(self._hub, repo_type="dataset", revision=self._revision)))

    def _local(self, path: str) -> Path:
        if self._folder is not None:
            return self._folder / path
        from huggingface_hub import hf_hub_download

        asked = partial(hf_hub_download, self._hub, path, repo_type="dataset", revision=self._revision)
        return Path(_asked(f"sources.{self.name}", asked))

    def _downloaded(self, folder: Path) -> Path:
        flat = self._hub.replace("/", "__")
        for name in (f"{flat}@{self._revision}", flat, self._hub):
            if (folder / name).is_dir():
                return folder / name
        right = f"right would be {flat}@<commit>, {flat} or {self._hub} below it"
        raise InputError(f"sources.{self.name}: {folder} holds no download of {self._hub}; {right}")


def _asked(key: str, ask: Callable[[], T]) -> T:
    """What a hub answers; where it breaks off it is asked again after a while.

    Raises:
        InputError: it refuses.
        Unreachable: it cannot be reached.
    """
    import httpx2  # what huggingface_hub asks with
    from huggingface_hub import errors

    for attempt in range(1, TRIES + 1):
        try:
            return ask()
        except errors.EntryNotFoundError:
            raise
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.GatedRepoError) as error:
            raise InputError(f"{key}: the hub refuses: {first_line(error)[:300]}") from error
        except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
            raise Unreachable(f"{key}: the hub cannot be reached: {first_line(error)[:300]}") from error
        except (errors.HfHubHTTPError, httpx2.HTTPError, ConnectionError, TimeoutError) as error:
            answer = getattr(error, "response", None)
            if answer is not None and answer.status_code < 500 and answer.status_code not in (408, 429):
                raise InputError(f"{key}: the hub refuses: {first_line(error)[:300]}") from error
            if attempt == TRIES:
                raise Unreachable(f"{key}: the hub broke off {TRIES} times: {first_line(error)[:300]}") from error
            wait = WAITS * 3 ** (attempt - 1)
            log.info("%s: %s; asking again in %.0f s", key, first_line(error)[:120], wait)
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")
