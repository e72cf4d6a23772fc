"""What is tried, which trial wins, and the results of finished trials: a file each, so that a killed search goes on where it was."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping

import pyarrow.fs as pafs

from raysberta.storage.artifacts import write_whole
from raysberta.storage.location import filesystem, join
from raysberta.tuning.facts import Trial
from raysberta.tuning.settings import Range, Search

FOLDER = "trials"


def combinations(search: Search) -> list[dict[str, float]]:
    """Every combination of the listed values, each once, in rising order, the first name the slowest."""
    listed = [sorted({float(value) for value in values}) for values in search.over.values() if not isinstance(values, Range)]
    return [dict(zip(search.over, values, strict=True)) for values in itertools.product(*listed)]


def best_of(trials: Iterable[Trial]) -> Trial:
    """The trial with the highest score; of equal ones that with the smallest values."""
    return min(trials, key=lambda trial: (-trial.score, *trial.values.values()))


def key_of(values: Mapping[str, float]) -> str:
    """16 hex digits that stand for the values, whatever their order."""
    whole = {name: float(value) for name, value in values.items()}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def keep(home: str, trial: Trial) -> None:
    """Write a finished trial down; readers see all of it or nothing.

    Args:
        home: Folder or URI of what the search goes on from.
        trial: Finished.
    """
    fs, path = filesystem(join(home, FOLDER))
    fs.create_dir(path, recursive=True)
    write_whole(fs, f"{path}/{key_of(trial.values)}.json", trial.model_dump_json().encode())


def finished(home: str) -> list[Trial]:
    """The trials that were written down, in order of their values."""
    fs, path = filesystem(join(home, FOLDER))
    files = [info.path for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)) if info.path.endswith(".json")]
    return sorted((_read(fs, file) for file in files), key=lambda trial: tuple(trial.values.values()))


def find(home: str, values: Mapping[str, float]) -> Trial | None:
    """The finished trial of these values, or None."""
    fs, path = filesystem(join(home, FOLDER))
    try:
        return _read(fs, f"{path}/{key_of(values)}.json")
    except FileNotFoundError:
        return None


def _read(fs: pafs.FileSystem, file: str) -> Trial:
    with fs.open_input_stream(file) as stream:
        return Trial.model_validate_json(stream.read())
