"""What came back for requests, kept beside the attempts: what a killed one was answered is not asked again."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raysberta.schema import text_id
from raysberta.storage.artifacts import Draft, write_whole
from raysberta.storage.location import filesystem, join
from raysberta.synthesis.requests import GENERATION

ANSWER = pa.schema([("key", pa.string()), ("output", pa.string())])
FOLDER = "answers"
"""Among the checkpoints."""

Answers = dict[str, tuple[str, str]]
"""Request id -> what was written, and an error or ""."""


@dataclass(frozen=True)
class Kept:
    """The answers of one engine that outlive an attempt: Parquet files, each named by the requests that it answers. Picklable.

    Whoever writes answers keeps them itself, before anybody else is told of them.
    """

    place: str = field(repr=False)
    """Folder or URI."""

    @classmethod
    def of(cls, draft: Draft, engine: str) -> "Kept":
        """Those beside the attempts of a fingerprint; another version of the engine does not go on with them."""
        return cls(join(draft.checkpoints, FOLDER, text_id(engine)))

    def read(self) -> Answers:
        """All that is there."""
        fs, folder = filesystem(self.place)
        found: Answers = {}
        for info in fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True)):
            if info.path.endswith(".parquet"):
                for row in pq.read_table(info.path, filesystem=fs).to_pylist():
                    found[row["key"]] = (row["output"], "")
        return found

    def add(self, answers: Answers) -> None:
        """Write answers as one file, all or nothing. What failed is left out: the next attempt asks it again."""
        rows = [{"key": key, "output": output} for key, (output, error) in answers.items() if not error]
        if not rows:
            return
        fs, folder = filesystem(self.place)
        fs.create_dir(folder, recursive=True)
        data = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, ANSWER), data)
        write_whole(fs, f"{folder}/{text_id(*(row['key'] for row in rows))}.parquet", data.getvalue().to_pybytes())


def batches(table: pa.Table, rows: int, answers: Mapping[str, tuple[str, str]]) -> list[pa.Table]:
    """Slices of so many rows, whole ones whose requests were all answered left out.

    A slice with one request open is asked whole: what an engine writes may depend on what shares a batch, so every batch must be one that
    an uninterrupted run asks.
    """
    slices = [table.slice(start, rows).combine_chunks() for start in range(0, table.num_rows, rows)]
    return [part for part in slices if not all(key in answers for key in part["request_id"].to_pylist())]


def with_answers(table: pa.Table, answers: Mapping[str, tuple[str, str]], budget: float) -> pa.Table:
    """The requests with their answers; one that never came back is a failure like any other.

    Args:
        table: Schema GENERATION.
        answers: By request id.
        budget: Greatest share of failures.

    Raises:
        RuntimeError: more failed than the budget allows.
    """
    rows = table.to_pylist()
    for row in rows:
        row["output"], row["error"] = answers.get(row["request_id"], ("", "no answer came back"))
    failed = [row["error"] for row in rows if row["error"]]
    if len(failed) > budget * len(rows):
        raise RuntimeError(f"{len(failed)} of {len(rows)} generations failed, failure_budget is {budget:g}; the first: {failed[0]}")
    return pa.Table.from_pylist(rows, GENERATION)
