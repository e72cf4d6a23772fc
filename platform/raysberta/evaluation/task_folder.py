"""The folder of held-out tasks: made from pairs and documents of split dev and test, one sub-folder a half and task.

`tasks.json` lists the tasks with type, language, sizes and a revision, which is a hash of the texts: two tasks with the same revision
give the same scores. Nothing of one half is in the other, and nothing that training reads is in either.
"""

import json
from collections.abc import Collection, Mapping, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from raysberta.errors import InputError
from raysberta.evaluation.facts import HalfFacts, TaskFacts
from raysberta.evaluation.guard import Half, check_own_names
from raysberta.evaluation.held_out import DOCUMENT_COLUMNS, PAIR_COLUMNS, Tables, build, reads, same
from raysberta.evaluation.settings import OwnTask
from raysberta.schema import text_id
from raysberta.storage.artifacts import Artifact
from raysberta.storage.scan import scan

FOLDER = "tasks"
INDEX = "tasks.json"
HALVES: tuple[Half, Half] = ("test", "dev")
AT_LEAST = 20
BATCH = 4096


class Index(BaseModel):
    """What a folder of tasks holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int
    tasks: dict[str, TaskFacts]
    left_out: dict[str, int]


def write(
    folder: Path,
    tasks: Mapping[str, OwnTask],
    pairs: pads.Dataset,
    documents: pads.Dataset,
    seed: int,
    general: Collection[str] = (),
) -> Index:
    """Build both halves of every task and write them.

    Memory: the dev and test rows of the tasks' sources, and BATCH training rows at once.

    Args:
        folder: An empty folder.
        tasks: The tasks to build.
        pairs: All pairs (schema PAIR); only dev and test ones become tasks, the training ones are looked through for repeats.
        documents: All documents (schema DOCUMENT), likewise.
        seed: Of the recipe.
        general: Names of the tasks whose source is held out whole.

    Raises:
        InputError: a half comes out with fewer than 20 queries, pairs or texts, or a task bears a public task's name.
    """
    check_own_names(tasks)
    held_out = {(name, half): _rows(task, half, pairs, documents) for name, task in tasks.items() for half in HALVES}
    taken = _in_training({key for rows in held_out.values() for key in _row_keys(rows)}, tasks, pairs, documents)
    left_out: dict[str, int] = {}
    entries: dict[str, TaskFacts] = {}
    for name, task in tasks.items():
        halves: dict[str, HalfFacts] = {}
        in_test: set[str] = set()
        for half in HALVES:  # the test half first: what both would hold stays there
            rows, repeats = _unseen(held_out[name, half], taken | in_test)
            if repeats:
                left_out[f"{name}/{half}"] = repeats
            tables, scored = build(task, rows, seed)
            if scored < AT_LEAST:
                raise InputError(_too_small(name, task, half, rows.num_rows, scored, name in general))
            in_test = set(_row_keys(rows))
            halves[half] = _write_half(folder / half / name, tables, scored)
        of: dict[str, Any] = {"type": task.type, "source": task.source, "pair": task.pair, "language": task.language}
        entries[name] = TaskFacts(**of, general=name in general, halves=halves)
    index = Index(seed=seed, tasks=entries, left_out=left_out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).write_text(index.model_dump_json(indent=2), encoding="utf-8")
    return index


def read(tasks: Artifact | Path) -> tuple[Path, Index]:
    """The folder of held-out tasks, and what it holds.

    Args:
        tasks: The artifact of a node of kind `tasks`, or its folder.

    Raises:
        InputError: there are no tasks.
    """
    folder = tasks.folder(FOLDER) if isinstance(tasks, Artifact) else Path(tasks)
    file = folder / INDEX
    if not file.is_file():
        raise InputError(f"{folder}: no {INDEX} there; right would be a folder that the stage of held-out tasks wrote")
    return folder, Index.model_validate(json.loads(file.read_text(encoding="utf-8")))


def _rows(task: OwnTask, half: Half, pairs: pads.Dataset, documents: pads.Dataset) -> pa.Table:
    """What one half of a task may be made from."""
    wanted = (pc.field("split") == half) & (pc.field("source") == task.source) & (pc.field("language") == task.language)
    if reads(task):
        return pairs.to_table(columns=PAIR_COLUMNS, filter=wanted & (pc.field("kind") == task.pair))
    return documents.to_table(columns=DOCUMENT_COLUMNS, filter=wanted & (pc.field("label") != ""))


def _row_keys(rows: pa.Table | pa.RecordBatch) -> list[str]:
    """What identifies the content of each row: query and positive of a pair, the text of a document."""
    if "query" in rows.schema.names:
        columns = rows.column("query").to_pylist(), rows.column("positive").to_pylist()
        return [text_id(same(query), same(positive)) for query, positive in zip(*columns, strict=True)]
    return [text_id(same(text)) for text in rows.column("text").to_pylist()]


def _in_training(keys: Set[str], tasks: Mapping[str, OwnTask], pairs: pads.Dataset, documents: pads.Dataset) -> set[str]:
    """Those of the keys that a training row has, of the tables that some task is made from."""
    found: set[str] = set()
    kinds = {reads(task) for task in tasks.values()}
    for dataset, columns, needed in ((pairs, PAIR_COLUMNS, True in kinds), (documents, ["text"], False in kinds)):
        if needed:
            for batch in scan(dataset, columns, pc.field("split") == "train", BATCH):
                found.update(keys & set(_row_keys(batch)))
    return found


def _unseen(rows: pa.Table, taken: set[str]) -> tuple[pa.Table, int]:
    """The rows whose content is not taken, and how many are."""
    keep = [key not in taken for key in _row_keys(rows)]
    return rows.filter(pa.array(keep, pa.bool_())), keep.count(False)


def _write_half(folder: Path, tables: Tables, scored: int) -> HalfFacts:
    folder.mkdir(parents=True)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    content = [json.dumps([name, table.to_pydict()], ensure_ascii=False, sort_keys=True) for name, table in sorted(tables.items())]
    return HalfFacts(revision=text_id(*content), scored=scored, rows={name: table.num_rows for name, table in tables.items()})


def _too_small(name: str, task: OwnTask, half: Half, rows: int, scored: int, general: bool) -> str:
    what = f"pairs {task.source}/{task.pair}" if reads(task) else f"labelled documents of {task.source}"
    return (
        f"tasks.{name}: the {half} half comes out with {scored} queries or texts from {rows} {what} in {task.language}; "
        f"right would be at least {AT_LEAST}: raise {'' if general else f'corpus.{half} or '}the source's limit, or drop the task"
    )
