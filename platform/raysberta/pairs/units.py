"""Work units that pairs are made from: some row groups of the documents, a unit of a data set, some circles of one label."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysberta.data_sets.outside import UNIT_BYTES as DATA_SET_BYTES
from raysberta.data_sets.outside import units
from raysberta.data_sets.read import Taken, read
from raysberta.data_sets.records import Unit
from raysberta.data_sets.settings import DatasetSource
from raysberta.pairs.make import Mappings, make
from raysberta.pairs.match import LABELLED, Circles, Cluster, circle, same_label
from raysberta.pairs.text import cut
from raysberta.schema import REJECTED_PAIR, Task, text_id
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import filesystem
from raysberta.storage.runs import Run, read_runs

UNIT_BYTES = 16 << 20
"""Of a Parquet file of documents, as it is stored."""
BATCH_ROWS = 1024
NOTHING = REJECTED_PAIR.empty_table()
LABELS = pa.schema([(name, pa.string()) for name in LABELLED])
"""Of what lies in a LabelUnit."""


@dataclass(frozen=True)
class DocumentUnit:
    """The row groups of a file that are its part number `part` of `of`."""

    uri: str = field(repr=False)
    path: str
    part: int
    of: int
    bytes: int

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Some rows at a time."""
        with filesystem(self.uri)[0].open_input_file(self.path) as stream:
            file = pq.ParquetFile(stream)
            groups = range(self.part * file.num_row_groups // self.of, (self.part + 1) * file.num_row_groups // self.of)
            for batch in file.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=columns):
                yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class DataSetUnit:
    """What one task reads of a data set."""

    unit: Unit
    source: DatasetSource

    @property
    def bytes(self) -> int:
        """As it is stored, at most."""
        whole = self.unit.stop is None and not self.unit.start
        return self.unit.file.bytes if whole else min(self.unit.file.bytes, DATA_SET_BYTES)


@dataclass(frozen=True)
class LabelUnit:
    """Some circles, whole: a range of buckets of the runs of labelled documents."""

    first: int
    last: int
    circles: Circles = field(default_factory=dict)
    bytes: int = 0


PairUnit = DocumentUnit | DataSetUnit | LabelUnit


def document_units(corpus: Artifact) -> list[DocumentUnit]:
    """All documents."""
    fs, _ = filesystem(corpus.uri)
    found: list[DocumentUnit] = []
    for info in fs.get_file_info(corpus.paths("documents")):
        of = -(-info.size // UNIT_BYTES)
        found.extend(DocumentUnit(corpus.uri, info.path, part, of, info.size // of) for part in range(of))
    return found


def data_set_units(data_sets: Mapping[str, DatasetSource]) -> list[DataSetUnit]:
    """All data sets.

    Raises:
        InputError: a data set is not there.
    """
    return [DataSetUnit(unit, source) for name, source in data_sets.items() for unit in units(name, source)]


def pairs_of(unit: PairUnit, mappings: Mappings, longest: int, labels: Sequence[Run] = ()) -> Iterator[Taken]:
    """Tables of bounded size.

    Args:
        unit: What to read.
        mappings: By source of documents.
        longest: Characters at which positives are cut.
        labels: The runs of labelled documents, for a LabelUnit.

    Raises:
        InputError: a data set is wrong.
    """
    match unit:
        case DocumentUnit():
            yield from (Taken(make(table, mappings, longest), NOTHING) for table in unit.tables())
        case DataSetUnit():
            yield from read(unit.unit, unit.source, longest)
        case LabelUnit():
            documents = read_runs(labels, unit.first, unit.last, LABELS)
            yield Taken(same_label(documents, labelled(mappings), longest, unit.circles), NOTHING)


def labelled(mappings: Mappings) -> dict[str, Task]:
    """The sources whose documents are paired by their labels, with the task of those pairs."""
    return {name: kinds["same_label"] for name, kinds in mappings.items() if "same_label" in kinds}


def label_counts(unit: DocumentUnit, sources: Sequence[str]) -> Counter[Cluster]:
    """Documents by source, label and split."""
    counts: Counter[Cluster] = Counter()
    for table in _with_labels(unit, sources, ["source", "label", "split"]):
        counts.update(zip(*(table[name].to_pylist() for name in ("source", "label", "split")), strict=True))
    return counts


def by_circle(unit: DocumentUnit, sources: Sequence[str], circles: Circles, longest: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """The labelled documents, texts cut to what a side holds, each table with a hash of each row's circle."""
    for table in _with_labels(unit, sources, LABELLED):
        rows = [{**row, "text": cut(row["text"], longest)} for row in table.to_pylist()]
        ids = [int(text_id(*map(str, circle(row, circles))), 16) for row in rows]
        yield pa.Table.from_pylist(rows, LABELS), np.array(ids, np.uint64)


def _with_labels(unit: DocumentUnit, sources: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
    for table in unit.tables(columns):
        wanted = pc.and_(pc.is_in(table["source"], pa.array(sources, pa.string())), pc.not_equal(table["label"], ""))
        yield table.filter(wanted)
