"""Pools of planted pairs, dealt out and gathered as a run does it, in memory."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from raysberta.mining.deal import batches, deal, gather_passages
from raysberta.mining.parts import Parts, make_parts, survey
from raysberta.mining.passages import Numbers, Passages, Pool, pool_numbers
from raysberta.mining.settings import Examples
from raysberta.retrieval.search import Slices, exact, part
from raysberta.retrieval.vectors import steps
from raysberta.schema import PAIR


def parts_of(tables: dict[str, pa.Table], **settings: object) -> Parts:
    parsed = Examples.model_validate({"pairs": list(tables), **settings})
    return make_parts([survey(table, name) for name, table in tables.items()], parsed, "mined")


def passages_of(tables: dict[str, pa.Table], parts: Parts) -> Passages:
    dealt: dict[tuple[int, int], list[pa.RecordBatch]] = {}
    for name, table in tables.items():
        for number, place, batch in batches(deal(table, name, parts)[1]):
            dealt.setdefault((number, place), []).append(batch)
    places = [(number, each) for number, one in enumerate(parts.every) for each in range(one.passage_ranges)]
    gathered = [gather_passages(dealt.get(place, [])) for place in places]
    sizes = [
        tuple(rows.num_rows for place, rows in zip(places, gathered, strict=True) if place[0] == number)
        for number in range(len(parts.every))
    ]
    return Passages(Numbers(tuple(sizes), 4), gathered.__getitem__)


def pool_of(rows: list[dict] | pa.Table, passages: str = "positives", **tables: pa.Table) -> Pool:
    """The pool of the first part, with no vectors yet."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=PAIR)
    parts = parts_of({"natural": table, **tables}, passages=passages)
    found, homes = passages_of({"natural": table, **tables}, parts), parts.pool(0)
    numbers = pool_numbers(found, homes)
    return Pool(found, numbers, tuple(home for home, _ in homes), np.zeros((len(numbers), 0), np.float32))


def texts_of(pool: Pool) -> list[str]:
    return pool.texts(np.arange(len(pool)))


def ranked(pool: Pool, queries: np.ndarray, k: int, slices: Slices | None = None) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    slices = slices or Slices()
    find = exact(pool.vectors, 0, len(pool), slices)
    for start, stop in steps(len(queries), slices.queries):
        yield start, stop, *find(part(queries, start, stop), k)
