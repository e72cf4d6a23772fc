"""What every reader yields: one document, found as it is or with the reason why it is none; and its Arrow table.

A candidate is a row of `REJECTED` with two more columns. `row` names it inside the run: two identical documents have one `doc_id`,
yet one of them is kept. `bytes` is what was read for it, so that reports can say how much a filter costs.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from raysberta.schema import REJECTED, text_id

CANDIDATE = pa.schema([*REJECTED, ("row", pa.int64()), ("bytes", pa.int64())])
BATCH_ROWS = 1024
BATCH_BYTES = 16 << 20

WRONG_INPUT = "input_error: "
"""Reason of a row that stands for a source that is wrong as a whole; the run ends with what follows it."""
UNREADABLE = "unreadable: "
"""Reason of a record that could not be read; it counts against the failure budget."""


class Found(NamedTuple):
    """One document of a source. `reason` is "" unless the reader already knows that it is of no use."""

    group: str
    title: str
    text: str
    language: str = ""
    label: str = ""
    sections: Sequence[tuple[str, str]] = ()
    reason: str = ""

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of everything in it."""
        parts = (self.title, self.text, *(text for _, text in self.sections))
        return sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)


def broken(group: str, why: str) -> Found:
    """The row of a record that could not be read."""
    return Found(group, "", "", reason=UNREADABLE + why)


def to_tables(source: str, found: Iterable[Found], first_row: int) -> Iterator[pa.Table]:
    """Tables of bounded size, columns as in CANDIDATE, rows numbered from `first_row`, `split` and `score` still empty."""
    documents = iter(found)
    while True:
        batch: list[Found] = []
        size = 0
        for document in islice(documents, BATCH_ROWS):
            batch.append(document)
            size += document.bytes
            if size > BATCH_BYTES:
                break
        if not batch:
            return
        yield _table(source, batch, first_row)
        first_row += len(batch)


def _table(source: str, batch: Sequence[Found], first_row: int) -> pa.Table:
    count = len(batch)
    columns = {
        "doc_id": [_id(source, document) for document in batch],
        "group": [document.group for document in batch],
        "split": [""] * count,
        "source": [source] * count,
        "language": [document.language for document in batch],
        "title": [document.title for document in batch],
        "text": [document.text for document in batch],
        "label": [document.label for document in batch],
        "sections": [[{"heading": heading, "text": text} for heading, text in document.sections] for document in batch],
        "reason": [document.reason for document in batch],
        "score": [None] * count,
        "row": range(first_row, first_row + count),
        "bytes": [document.bytes for document in batch],
    }
    return pa.table({name: pa.array(values, CANDIDATE.field(name).type) for name, values in columns.items()}, schema=CANDIDATE)


def _id(source: str, document: Found) -> str:
    return text_id(source, document.title, document.text, document.label, *(part for section in document.sections for part in section))
