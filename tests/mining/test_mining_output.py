"""What is written and what is counted of it, on planted rows."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raysberta.mining import output as module
from raysberta.mining.miner import MINED
from raysberta.mining.output import Output, keep_vectors
from raysberta.mining.report import count, false_negatives, histogram
from raysberta.schema import EXAMPLE
from raysberta.storage.artifacts import Draft, Store


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Store(str(tmp_path)).draft("examples", "f")


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
        }
        base |= {"negative_scores": [math.nan if supplied else 0.45], "negative_ranks": [-1 if supplied else 3]}
        skipped = [{"reason": "own_text", "count": 2}]
        rows.append({**base, "positive_rank": -1 if number % 4 == 3 else 0, "skipped": skipped})
    return pa.Table.from_pylist(rows, MINED)


def written(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.setattr(module, "ROWS_PER_FILE", 4)
    output = Output(draft)
    for first in range(0, 10, 2):
        output.add(mined(first, first + 2))
    output.close()
    return output


def test_files_and_counts(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    output = written(draft, monkeypatch)
    assert [table.num_rows for table in output.examples()] == [4, 4, 2]
    whole = pa.concat_tables(output.examples())
    assert whole.schema.equals(EXAMPLE)
    assert repr(whole.to_pylist()) == repr(mined(0, 10).select(EXAMPLE.names).to_pylist()), "as text, for some scores are NaN"
    assert output.suspects == 2
    facts = count(output, 2)
    assert facts["promoted"] == 2
    assert facts["examples"] == {"x/k0": 5, "x/k1": 5}
    assert (facts["negatives"], facts["examples_with_fewer_negatives"], facts["looked_at"]) == (10, 10, 50)
    assert facts["skipped"] == {"own_text": 20}
    assert facts["negatives_above_the_positive"] == 2, "rows 7 and 8, for 6 and 9 were supplied"
    assert sum(facts["histograms"]["negative_score"].counts) == 6


def test_a_rewrite_changes_scores_alone_and_suspects_keep_theirs(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    output = written(draft, monkeypatch)
    at = EXAMPLE.get_field_index("positive_score")

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(at, EXAMPLE.field(at), pa.array([0.0] * table.num_rows, pa.float32()))

    before = pa.concat_tables(output.examples())
    output.rewrite(change)
    after = pa.concat_tables(output.examples())
    assert pc.all(pc.equal(after["positive_score"], 0.0)).as_py()
    others = [name for name in EXAMPLE.names if not name.endswith(("_score", "_scores"))]
    assert after.select(others).equals(before.select(others))
    assert repr(after["negative_scores"].to_pylist()) == repr(before["negative_scores"].to_pylist())
    assert output.suspects == 2
    assert count(output, 1)["negatives_above_the_positive"] == 6, "every mined negative, by the new scores"


def test_the_estimate_reads_mined_negatives_of_drawn_examples(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    output = written(draft, monkeypatch)
    asked: list[tuple[str, str]] = []

    def judge(queries: list[str], texts: list[str]) -> np.ndarray:
        asked.extend(zip(queries, texts, strict=True))
        return np.array([float(text == "right" or query in ("q1", "q2")) for query, text in zip(queries, texts, strict=True)], np.float32)

    found = false_negatives(output, judge, 42, 100)
    assert {query for query, _ in asked} == {"q1", "q2", "q4", "q5", "q7", "q8"}
    assert (found.share, found.negatives, found.examples) == (round(2 / 6, 5), 6, 10)
    first, again, other = (false_negatives(output, judge, seed, 5) for seed in (1, 1, 2))
    assert first == again
    assert {first.examples, other.examples} == {5}


def test_no_row_still_makes_both_tables(draft: Draft) -> None:
    output = Output(draft)
    output.close()
    assert [table.num_rows for table in output.examples()] == [0]
    facts = count(output, 3)
    assert facts["negatives"] == facts["suspects"] == 0
    assert facts["histograms"]["margin"] == histogram(np.zeros(0))


def test_vectors_are_kept_in_half_precision_by_text(draft: Draft) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    keep_vectors(list("abcde"), vectors, [1, 4], draft)
    fs, folder = draft.path("vectors")
    import pyarrow.parquet as pq

    table = pq.read_table(f"{folder}/part-00000.parquet", filesystem=fs)
    assert table["key"].to_pylist() == ["b", "e"]
    np.testing.assert_allclose(np.array(table["vector"].to_pylist(), np.float32), vectors[[1, 4]], atol=2e-3)


def test_a_histogram_counts_everything() -> None:
    found = histogram(np.array([0.0, 0.5, 1.0, 1.0]), bins=2)
    assert (found.edges, found.counts) == ([0.0, 0.5, 1.0], [1, 3])
