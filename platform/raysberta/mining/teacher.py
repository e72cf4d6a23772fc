"""A teacher's scores in place of the miner's: of each query with its positive and with each of its negatives."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.mining.passages import Pool
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


@dataclass(frozen=True)
class Cosines:
    """An encoder as teacher: the cosine of query and text, each embedded with the prefix of its task and side."""

    prefixes: Prefixes
    own: Mapping[str, int]
    """Rows, among `vectors`, of queries and of texts that are no passages, each with its prefix."""
    vectors: Matrix
    """[n, d], L2-normalised."""
    pool: Pool
    """The passages, with their vectors by this teacher."""

    def __call__(self, tasks: list[str], queries: list[str], texts: list[str]) -> np.ndarray:
        """Scores float32 [len(queries)]; memory is a vector of each distinct text, and twice as many as there are scores."""
        asked, where_asked = _distinct(self._with_prefix(tasks, queries, "query"))
        left = self.vectors[np.array([self.own[text] for text in asked], np.int64)]
        found, where_found = _distinct(texts)
        rows = self.pool.rows(found)
        right = np.empty((len(found), left.shape[1]), np.float32)
        right[rows >= 0] = self.pool.vectors[rows[rows >= 0]]
        strays = np.flatnonzero(rows < 0)
        read = self._with_prefix([tasks[0]] * len(strays), [found[at] for at in strays], "document")
        right[strays] = self.vectors[np.array([self.own[text] for text in read], np.int64)]
        return np.einsum("nd,nd->n", np.asarray(left, np.float32)[where_asked], right[where_found])

    def _with_prefix(self, tasks: Sequence[str], texts: Sequence[str], side: Side) -> list[str]:
        return [self.prefixes.of(cast(Task, task), side) + text for task, text in zip(tasks, texts, strict=True)]


def own_texts(tables: Iterable[pa.Table], pool: Pool, prefixes: Prefixes) -> set[str]:
    """What a teacher must embed beside the passages to score rows of EXAMPLE of one part: queries, and texts that are no passages."""
    found: set[str] = set()
    for table in tables:
        task = cast(Task, table["task"][0].as_py())
        found.update(prefixes.of(task, "query") + text for text in table["query"].to_pylist())
        texts = list(dict.fromkeys(table["positive"].to_pylist() + pc.list_flatten(table["negatives"]).to_pylist()))
        strays = np.flatnonzero(pool.rows(texts) < 0)
        found.update(prefixes.of(task, "document") + texts[at] for at in strays)
    return found


def _distinct(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts, and of each text which it is, int64."""
    at = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    return list(at), np.array([at[text] for text in texts], np.int64)
