"""The score of one task with all that is kept of it: a file that outlives a killed run, so that a task is scored once."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from raysberta.storage.artifacts import write_whole
from raysberta.storage.location import filesystem

TOLD = b"score"
"""Where the file's metadata holds what is no table."""


@dataclass(frozen=True)
class Score:
    """What a model scored on one task, in plain types: whoever reads it needs no mteb."""

    score: float
    """The main score, a fraction."""
    result: dict[str, Any]
    """mteb's full result."""
    seconds: float
    type: str
    """mteb's type of the task."""
    items: pa.Table | None
    """One row an item (items.py); None where mteb does not tell."""
    draws: np.ndarray | None
    """float64 [draws]: the score of each draw of the bootstrap; None where there are no items."""


def keep(place: str, score: Score) -> None:
    """Write a score as one file, all or nothing."""
    told = {"score": score.score, "result": score.result, "seconds": score.seconds, "type": score.type}
    told |= {"items": score.items is not None, "draws": None if score.draws is None else score.draws.tolist()}
    table = (pa.table({}) if score.items is None else score.items).replace_schema_metadata({TOLD: json.dumps(told).encode()})
    data = pa.BufferOutputStream()
    with pa.ipc.new_stream(data, table.schema) as stream:
        stream.write_table(table)
    fs, path = filesystem(place)
    fs.create_dir(path.rpartition("/")[0], recursive=True)
    write_whole(fs, path, data.getvalue().to_pybytes())


def kept(place: str) -> Score | None:
    """The score that was kept; None where none was."""
    fs, path = filesystem(place)
    if fs.get_file_info(path).type != pafs.FileType.File:
        return None
    with fs.open_input_file(path) as file, pa.ipc.open_stream(file) as stream:
        table = stream.read_all()
    told = json.loads(table.schema.metadata[TOLD])
    items = table.replace_schema_metadata(None) if told.pop("items") else None
    draws = told.pop("draws")
    return Score(**told, items=items, draws=None if draws is None else np.array(draws, np.float64))
