"""What is written and what is counted of it, on planted rows."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.mining import output as module
from raysberta.mining.miner import MINED
from raysberta.mining.output import Output, Table, read, vector_rows, vector_schema
from raysberta.mining.report import SCORES, Counts, drawn, false_negatives, histograms
from raysberta.retrieval.stored import Files
from raysberta.schema import EXAMPLE


def mined(first: int, last: int) -> pa.Table:
    """Positives fall from 1 on; the negative is supplied in every third row; every fourth positive is below the window."""
    rows = []
    for number in range(first, last):
        supplied = number % 3 == 0
        base = dict.fromkeys(EXAMPLE.names, "x") | {"pair_id": f"{number:016x}", "kind": f"k{number % 2}", "query": f"q{number}"}
        base |= {
            "positive": "right",
            "negatives": ["wrong"],
            "positive_score": 1 - number / 10,
            "looked_at": 5,
            "topped_up": 0,
            "promoted": number > 7,
            "given_score": None,
        }
        base |= {"negative_scores": [math.nan if supplied else 0.45], "negative_ranks": [-1 if supplied else 3]}
        skipped = [{"reason": "own_text", "count": 2}]
        rows.append({**base, "positive_rank": -1 if number % 4 == 3 else 0, "skipped": skipped})
    return pa.Table.from_pylist(rows, MINED)


def test_files_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", 4)
    files, counts = Files("unit"), Counts()
    output = Output(files, str(tmp_path), "one.parquet")
    for first in range(0, 10, 2):
        output.add(mined(first, first + 2))
        counts.count("x/k", mined(first, first + 2), 2)
    output.close()
    tables = list(read(files, str(tmp_path / "examples" / "one.parquet")))
    assert pa.concat_tables(tables).schema.equals(EXAMPLE)
    assert repr(pa.concat_tables(tables).to_pylist()) == repr(mined(0, 10).select(EXAMPLE.names).to_pylist()), "as text, for scores are NaN"
    suspects = pa.concat_tables(read(files, str(tmp_path / "suspects" / "one.parquet")))
    assert suspects["query"].to_pylist() == ["q3", "q7"]
    whole = Counts()
    whole.add(counts)
    assert whole == counts and whole.examples == {"x/k": 10} and whole.skipped == {"own_text": 20}
    expected = {"negatives": 10, "examples_with_fewer_negatives": 10, "looked_at": 50, "promoted": 2, "suspects": 2, "topped_up": 0}
    assert dict(whole.numbers) == expected


def test_no_row_still_makes_both_tables(tmp_path: Path) -> None:
    files = Files("unit")
    Output(files, str(tmp_path), "none.parquet").close()
    for name in ("examples", "suspects"):
        assert list(read(files, str(tmp_path / name / "none.parquet"))) == []
        assert pq.read_schema(tmp_path / name / "none.parquet").equals(EXAMPLE)


@pytest.mark.parametrize("step", [1, 3, 10])
def test_histograms_are_those_of_all_rows_whatever_is_read_at_once(step: int) -> None:
    whole = mined(0, 10)

    def tables() -> Iterator[pa.Table]:
        return (whole.slice(start, step).select(SCORES) for start in range(0, 10, step))

    found, above = histograms(tables)
    assert above == 2, "rows 7 and 8, for 6 and 9 were supplied"
    positive = whole["positive_score"].to_numpy().astype(np.float64)
    counts, edges = np.histogram(positive, 30)
    assert found["positive_score"].counts == counts.tolist()
    np.testing.assert_allclose(found["positive_score"].edges, edges, atol=1e-5)
    assert sum(found["negative_score"].counts) == 6 and sum(found["margin"].counts) == 6 and sum(found["negative_rank"].counts) == 6
    empty = histograms(lambda: iter([]))
    assert empty[1] == 0 and empty[0]["margin"].counts == []


def test_the_estimate_reads_mined_negatives(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def judge(queries: list[str], texts: list[str]) -> np.ndarray:
        asked.extend(zip(queries, texts, strict=True))
        return np.array([float(text == "right" or query in ("q1", "q2")) for query, text in zip(queries, texts, strict=True)], np.float32)

    assert false_negatives(mined(0, 10).select(EXAMPLE.names), judge) == (2, 6)
    assert {query for query, _ in asked} == {"q1", "q2", "q4", "q5", "q7", "q8"}
    ids = [f"{number:016x}" for number in range(100)]
    assert np.array_equal(drawn(ids, 1), drawn(ids, 1)) and not np.array_equal(np.argsort(drawn(ids, 1)), np.argsort(drawn(ids, 2)))


def test_vectors_are_kept_in_half_precision_by_text(tmp_path: Path) -> None:
    vectors, files = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32), Files("unit")
    table = Table(files, str(tmp_path / "v.parquet"), vector_schema(3))
    table.add(vector_rows(["b", "e"], vectors))
    table.close()
    (found,) = read(files, str(tmp_path / "v.parquet"))
    assert found["key"].to_pylist() == ["b", "e"]
    np.testing.assert_allclose(np.array(found["vector"].to_pylist(), np.float32), vectors, atol=2e-3)
