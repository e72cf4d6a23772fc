"""A teacher's scores in examples: every score where it belongs, and an encoder's cosines against one text at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pools import pool_of, texts_of

from raysberta.mining.passages import Pool
from raysberta.mining.teacher import Cosines, own_texts, with_scores
from raysberta.prefixes import E5, NOMIC, Prefixes
from raysberta.retrieval.embed import Embedder
from raysberta.schema import EXAMPLE, PAIR

TASKS = ("retrieval", "paraphrase", "topic")


def examples(count: int = 9) -> pa.Table:
    rows = []
    for number in range(count):
        negatives = [f"другой ответ {number} {other}" for other in range(number % 4)]
        scores = {"positive_score": float("nan"), "negative_scores": [float("nan")] * len(negatives)}
        base = dict.fromkeys(EXAMPLE.names, "x") | scores | {"negative_ranks": list(range(len(negatives)))}
        base |= {"pair_id": f"{number:016x}", "task": TASKS[number % 3], "negatives": negatives, "given_score": None}
        rows.append({**base, "query": f"вопрос {number % 5}", "positive": f"ответ {number} на вопрос"})
    return pa.Table.from_pylist(rows, EXAMPLE)


def test_every_score_stands_where_it_belongs() -> None:
    table = examples()

    def length(tasks: list[str], queries: list[str], texts: list[str]) -> np.ndarray:
        return np.array(
            [len(task) + len(query) / 64 + int(text[-1] == "0") / 2 for task, query, text in zip(tasks, queries, texts, strict=True)]
        )

    found = with_scores(table, length)
    assert found.schema.equals(EXAMPLE)
    for row in found.to_pylist():
        one = lambda text, row=row: length([row["task"]], [row["query"]], [text])[0]  # noqa: E731
        assert row["positive_score"] == one(row["positive"])
        assert row["negative_scores"] == [one(text) for text in row["negatives"]]
    others = [name for name in EXAMPLE.names if not name.endswith(("_score", "_scores"))]
    assert found.select(others).equals(table.select(others))
    assert with_scores(EXAMPLE.empty_table(), length).num_rows == 0


@pytest.mark.parametrize(("prefixes", "task"), [(E5, "retrieval"), (NOMIC, "retrieval"), (NOMIC, "topic")])
def test_cosines_are_those_of_each_text_with_its_own_prefix(e5_folder: Path, prefixes: Prefixes, task: str) -> None:
    """Positives are passages with vectors of their own, negatives are not and are embedded beside the queries."""
    table = examples()
    table = table.set_column(EXAMPLE.get_field_index("task"), "task", pa.array([task] * len(table)))
    embedder = Embedder(e5_folder, 32, "fp32", device="cpu")
    pool = passages(table)
    texts = texts_of(pool)
    assert set(texts) == set(table["positive"].to_pylist())
    pool = replace(pool, vectors=embedder.encode([prefixes.of(task, "document") + text for text in texts]))  # type: ignore[arg-type]
    own = sorted(own_texts([table.slice(0, 4), table.slice(4)], pool, prefixes))
    assert len(own) == 5 + sum(len(row) for row in table["negatives"].to_pylist())
    found = with_scores(table, Cosines(prefixes, {text: row for row, text in enumerate(own)}, embedder.encode(own), pool))
    for row in found.to_pylist():
        before, after = prefixes.of(row["task"], "query"), prefixes.of(row["task"], "document")
        query = embedder.encode([before + row["query"]])[0]
        wanted = [float(query @ embedder.encode([after + text])[0]) for text in (row["positive"], *row["negatives"])]
        np.testing.assert_allclose([row["positive_score"], *row["negative_scores"]], wanted, atol=1e-5)


def passages(table: pa.Table) -> Pool:
    """The positives of examples."""
    return pool_of(table.select(PAIR.names).cast(PAIR), "positives")
