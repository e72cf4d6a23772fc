"""Registered mteb benchmarks without a hub: fetched once into a pinned, hashed folder, read from there ever after.

Layout: `<folder>/data/<owner>__<name>@<revision>/...` holds each data set's files as the hub has them, `<folder>/snapshot.json`,
written last, lists the tasks and every file with size and SHA-256.
"""

import copy
import hashlib
import itertools
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import datasets
import mteb
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from mteb.abstasks import AbsTask

from raysberta.errors import InputError
from raysberta.evaluation.outside import INDEX, DataFile, Snapshot, SnapshotTask, read_index, wrong_sizes
from raysberta.prefixes import Prefixes
from raysberta.schema import text_id
from raysberta.storage.local_copy import local_folder
from raysberta.storage.location import filesystem, join, shown

log = logging.getLogger(__name__)

TEXTS = "texts.parquet"
NO_TEXT = frozenset(("id", "_id", "lang", "label", "labels"))
"""Columns of names."""
THEMATIC = (
    "HeadlineClassification",
    "InappropriatenessClassification",
    "MassiveScenarioClassification",
    "RuSciBenchGRNTIClassification",
    "RuSciBenchOECDClassification",
    "SensitiveTopicsClassification",
    "STS22",
)
"""ruMTEB tasks that take the topic prefix though their type does not (ruMTEB paper, Table 7)."""


def fetch(benchmark: str, folder: Path, tasks: Sequence[str] = ()) -> Snapshot:
    """Download the data sets of a benchmark at the revisions that mteb names. Needs a network; goes on where it was cut off.

    Args:
        benchmark: A registered name such as `MTEB(rus, v1.1)`.
        folder: Where to put it.
        tasks: Fetch these only; all where empty.

    Raises:
        InputError: no such benchmark or task.
    """
    from huggingface_hub import snapshot_download

    for task in _tasks(benchmark, tasks).values():
        target = folder / _place(task)
        path, revision = task.metadata.dataset["path"], task.metadata.dataset["revision"]
        log.info("%s: fetching %s at %s", task.metadata.name, path, revision[:8])
        snapshot_download(path, repo_type="dataset", revision=revision, local_dir=target, allow_patterns=["README.md"])
        patterns = None if task.fast_loading else wanted_files(target, task.hf_subsets)  # those load all subsets at once
        snapshot_download(path, repo_type="dataset", revision=revision, local_dir=target, allow_patterns=patterns)
    return seal(benchmark, folder, tasks)


def seal(benchmark: str, folder: Path, tasks: Sequence[str] = ()) -> Snapshot:
    """Hash what lies in a folder in the snapshot layout and write its index.

    Raises:
        InputError: the data of a task is missing.
    """
    entries = {}
    for name, task in _tasks(benchmark, tasks).items():
        place = _place(task)
        files = [_described(folder, file) for file in _data_files(folder / place)]
        if not files:
            raise InputError(f"{folder / place}: the data of {name} is missing")
        entries[name] = SnapshotTask(
            dataset=task.metadata.dataset["path"], revision=task.metadata.dataset["revision"], folder=place.as_posix(), files=files
        )
    snapshot = Snapshot(benchmark=benchmark, mteb=mteb.__version__, tasks=entries)
    aside = folder / f"{INDEX}.new"
    aside.write_text(snapshot.model_dump_json(indent=2), encoding="utf-8")
    aside.replace(folder / INDEX)
    return snapshot


def load(benchmark: str, place: str | Path, names: Sequence[str] = (), *, hashes: bool = False) -> dict[str, AbsTask]:
    """Fresh instances of the benchmark's tasks that the snapshot holds, by name, which read from it and from nowhere else.

    Args:
        benchmark: The registered name.
        place: Folder or URI of the snapshot; from a remote one the data of these tasks is copied to this machine, once.
        names: These tasks only; all that there are where empty.
        hashes: Whether to read every file and compare its hash, beyond its size.

    Raises:
        InputError: there is no snapshot, it is of another benchmark or revision, or a file is missing or altered.
    """
    snapshot = read_index(benchmark, place)
    found = _tasks(benchmark, list(names or snapshot.tasks))
    content = text_id(*(file.sha256 for entry in snapshot.tasks.values() for file in entry.files))
    # not into the user's home; by content: another snapshot at the same place would be taken for the one before
    datasets.config.HF_DATASETS_CACHE = Path(tempfile.gettempdir()) / "raysberta" / f"datasets-{content}"
    for name, task in found.items():
        entry = snapshot.tasks[name]
        if entry.revision != task.metadata.dataset["revision"]:
            wants = f"mteb wants {task.metadata.dataset['revision']}; fetch it again"
            raise InputError(f"{shown(str(place))}/{INDEX}: {name} is of revision {entry.revision}, {wants}")
        for problem in wrong_sizes(place, entry.files) or (_altered(place, entry.files) if hashes else ()):
            raise InputError(problem)
        data = local_folder(join(str(place), entry.folder), f"benchmark/{text_id(*(file.sha256 for file in entry.files))}")
        task.metadata = task.metadata.model_copy(update={"dataset": {**task.metadata.dataset, "path": str(data)}})
    return found


def write_texts(benchmark: str, folder: Path) -> int:
    """Write `texts.parquet` beside the index: what `corpus.evaluation_sets` keeps training text apart from.

    Every string of the scored splits is there, with the columns `item`, `text` and `part`: `passage` where it stands in what a retrieval
    task searches, `text` where it is a query or else is scored. Returns how many.
    """
    schema = pa.schema([("item", pa.string()), ("part", pa.string()), ("text", pa.string())])
    aside, count = folder / f"{TEXTS}.new", 0
    with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for name, task in load(benchmark, folder).items():
            task.load_data()
            for batch in _batches(_rows(task.dataset, task.eval_splits, name)):
                writer.write_table(pa.Table.from_pylist(batch, schema))
                count += len(batch)
    aside.replace(folder / TEXTS)
    return count


def _rows(node: object, splits: Sequence[str], name: str, part: str = "text") -> Iterator[dict[str, str]]:
    """The strings of a task's data, whichever way its type nests subsets, splits and parts."""
    if isinstance(node, datasets.Dataset):
        for number, record in enumerate(node):
            item = f"{name}#{record.get('id', number)}"
            for column, value in record.items():
                for text in value if isinstance(value, list) else [value]:
                    if column not in NO_TEXT and isinstance(text, str):
                        yield {"item": item, "part": part, "text": text}
    elif isinstance(node, Mapping):
        scored = [key for key in node if key in splits] or list(node)
        for key in scored:
            if key not in ("relevant_docs", "top_ranked"):
                yield from _rows(node[key], splits, name, "passage" if key == "corpus" else part)


def _batches(rows: Iterator[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    while batch := list(itertools.islice(rows, 10_000)):
        yield batch


def overrides(prefixes: Prefixes) -> dict[str, str]:
    """Prefixes of single tasks by mteb name."""
    return dict.fromkeys(THEMATIC, prefixes.topic)


def wanted_files(folder: Path, subsets: Sequence[str]) -> list[str] | None:
    """The files of a data set that its wanted subsets need, by the `configs` of its README; None (all) where it declares none.

    Multilingual sets are large: a task over `ru` needs the configs `ru`, `ru-corpus` and so on, not the other languages.
    """
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    parts = text.split("---", 2)
    configs = (yaml.safe_load(parts[1]) or {}).get("configs", []) if len(parts) == 3 and not parts[0].strip() else []
    if not configs or "default" in subsets:
        return None
    chosen = [
        config
        for config in configs
        if any(str(config["config_name"]) == name or str(config["config_name"]).startswith(f"{name}-") for name in subsets)
    ]
    if not chosen:
        return None
    return ["README.md", *(path for config in chosen for path in _paths(config.get("data_files", f"{config['config_name']}/*")))]


def _paths(data_files: object) -> Iterator[str]:
    """The patterns of a config's `data_files`, in any of the forms that the format allows."""
    if isinstance(data_files, str):
        yield data_files
    elif isinstance(data_files, dict):
        yield from _paths(data_files["path"])
    elif isinstance(data_files, list):
        for part in data_files:
            yield from _paths(part)


def _tasks(benchmark: str, names: Sequence[str]) -> dict[str, AbsTask]:
    try:
        found = {task.metadata.name: copy.deepcopy(task) for task in mteb.get_benchmark(benchmark).tasks}  # mteb shares its own
    except KeyError as error:
        raise InputError(f"benchmarks: mteb knows no {benchmark!r}; right would be MTEB(rus, v1.1)") from error
    for name in names:
        if name not in found:
            raise InputError(f"benchmarks: {benchmark} has no task {name}")
    return {name: task for name, task in found.items() if not names or name in names}


def _place(task: AbsTask) -> Path:
    dataset = task.metadata.dataset
    return Path("data") / f"{dataset['path'].replace('/', '__')}@{dataset['revision']}"


def _data_files(folder: Path) -> list[Path]:
    """All files of a data set; what the hub's client keeps beside them is left out."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and ".cache" not in file.relative_to(folder).parts)


def _described(root: Path, file: Path) -> DataFile:
    return DataFile(path=file.relative_to(root).as_posix(), bytes=file.stat().st_size, sha256=_sha256(file))


def _altered(place: str | Path, files: Sequence[DataFile]) -> Iterator[str]:
    """Files that are not those that were fetched, a line each."""
    fs, root = filesystem(str(place))
    for file in files:
        digest = hashlib.sha256()
        with fs.open_input_stream(f"{root}/{file.path}") as stream:
            while data := stream.read(1 << 20):
                digest.update(data)
        if digest.hexdigest() != file.sha256:
            yield f"{shown(join(str(place), file.path))}: not the file that was fetched; fetch the snapshot again"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
