"""The positives of a query, and what for their sake is no negative of it."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from raysberta.mining.ids import Lookup, id_of, normalise, words_of
from raysberta.mining.passages import Looked, Pool
from raysberta.retrieval.vectors import Matrix, View, undirected

NONE = np.zeros(0, np.int64)


class Positives:
    """All positives of each query: a text that answers it in one row is no negative in another."""

    def __init__(self, pool: Pool, pairs: pa.Table) -> None:
        texts = pairs["positive"].to_pylist()
        queries = words_of(pairs["query"].to_pylist())
        self._rows, self._words = Lookup(queries, pool.rows(texts)), Lookup(queries, words_of(texts).astype(np.int64))

    def of(self, query: str) -> np.ndarray:
        """Rows of the pool, distinct, rising."""
        return np.unique(self._rows[id_of(normalise(query))])

    def words(self, query: str) -> list[int]:
        """The ids of the words of the query and of its positives."""
        query_words = id_of(normalise(query))
        return [query_words, *np.unique(self._words[query_words]).astype(np.uint64).tolist()]

    def pairs(self, query: str) -> int:
        """How many pairs have the query."""
        return len(self._rows[id_of(normalise(query))])


def usable(pool: Pool, pairs: pa.Table, queries: Matrix, dropped: Counter[str]) -> tuple[pa.Table, Matrix]:
    """The pairs that can be mined for, with their queries' vectors: both sides point somewhere, and the positive is in the pool."""
    rows = pool.rows(pairs["positive"].to_pylist())
    absent = rows < 0
    without = np.zeros(len(pairs), bool)
    without[undirected(queries)] = True
    there = np.flatnonzero(~absent)
    without[there[undirected(View(pool.vectors, rows[there]))]] = True
    dropped["positive_not_in_pool"] += int(absent.sum())
    dropped["vector_is_none"] += int((without & ~absent).sum())
    keep = np.flatnonzero(~(without | absent))
    return (pairs, queries) if len(keep) == len(pairs) else (pairs.take(pa.array(keep)), View(queries, keep))


def barred_of(looked: Looked, row: dict, words: Iterable[int]) -> dict[str, np.ndarray]:
    """Rows among those looked at that are no negatives of a pair: its query, every positive of that, what shares its document or group."""
    document = [looked.same_document[id_of(row[name])] for name in ("doc_id", "group")]
    return {
        "own_text": np.concatenate([NONE, *(looked.same_words[each] for each in words)]),
        "same_document": np.concatenate(document),
    }
