"""A teacher's scores in place of the miner's: of each query with its positive and with each of its negatives."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.prefixes import Prefixes, Side
from raysberta.retrieval.vectors import Matrix
from raysberta.schema import Task

Teacher = Callable[[list[str], list[str], list[str]], np.ndarray]
"""Tasks, queries and texts, as many of each, to scores float32; higher is more relevant."""


def with_scores(examples: pa.Table, teacher: Teacher) -> pa.Table:
    """Rows of EXAMPLE with the teacher's positive_score and negative_scores, those of supplied negatives too."""
    lists = examples["negatives"].combine_chunks()
    owners = pc.list_parent_indices(lists).to_pylist()
    tasks, queries = examples["task"].to_pylist(), examples["query"].to_pylist()
    scores = teacher(
        tasks + [tasks[row] for row in owners],
        queries + [queries[row] for row in owners],
        examples["positive"].to_pylist() + pc.list_flatten(lists).to_pylist(),
    ).astype(np.float32)
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    of_negatives = pa.ListArray.from_arrays(offsets, pa.array(scores[len(tasks) :], pa.float32()))
    for name, values in (("positive_score", pa.array(scores[: len(tasks)], pa.float32())), ("negative_scores", of_negatives)):
        at = examples.schema.get_field_index(name)
        examples = examples.set_column(at, examples.schema.field(at), values.cast(examples.schema.field(at).type))
    return examples


def texts_of(tables: Iterable[pa.Table], prefixes: Prefixes) -> set[str]:
    """All distinct texts that an encoder must embed to score these rows of EXAMPLE, each with the prefix of its task and side."""
    found: set[str] = set()
    for table in tables:
        for task in pc.unique(table["task"]).to_pylist():
            rows = table.filter(pc.equal(table["task"], task))
            found.update(prefixes.of(task, "query") + text for text in rows["query"].to_pylist())
            documents = rows["positive"].to_pylist() + pc.list_flatten(rows["negatives"]).to_pylist()
            found.update(prefixes.of(task, "document") + text for text in documents)
    return found


@dataclass(frozen=True)
class Cosines:
    """An encoder as teacher: the cosine of query and text, each embedded with the prefix of its task and side."""

    prefixes: Prefixes
    vectors: Matrix
    """[n, d], L2-normalised."""
    at: Mapping[str, int]
    """Row of each text of `texts_of`."""

    def __call__(self, tasks: list[str], queries: list[str], texts: list[str]) -> np.ndarray:
        """Scores float32 [len(queries)]; memory is twice as many vectors."""
        asked = self._rows(tasks, queries, "query")
        found = self._rows(tasks, texts, "document")
        distinct, where = np.unique(np.concatenate([asked, found]), return_inverse=True)
        vectors = np.asarray(self.vectors[distinct], np.float32) if len(distinct) else np.zeros((0, self.vectors.shape[1]), np.float32)
        left, right = where[: len(asked)], where[len(asked) :]
        return np.einsum("nd,nd->n", vectors[left], vectors[right])

    def _rows(self, tasks: Sequence[str], texts: Sequence[str], side: Side) -> np.ndarray:
        before = {task: self.prefixes.of(cast(Task, task), side) for task in set(tasks)}
        return np.array([self.at[before[task] + text] for task, text in zip(tasks, texts, strict=True)], np.int64)


def pieces(table: pa.Table, memory_mib: int, dimension: int, negatives: int) -> Iterator[pa.Table]:
    """Slices of a table of EXAMPLE whose vectors, the texts' and twice those of the scored pairs, stay within the memory."""
    rows = max(1, memory_mib * 2**20 // (4 * dimension * 3 * (negatives + 2)))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)
