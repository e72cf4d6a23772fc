"""Snapshots: the same whatever the order of files and rows, samples by hash, and what a run refuses of them."""

import itertools
import json
import platform
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.data_sets import sort
from raysberta.data_sets.fetch import fetch
from raysberta.data_sets.outside import check_data_set, data_set_state, units
from raysberta.data_sets.read import read
from raysberta.data_sets.settings import DatasetSource
from raysberta.data_sets.snapshot import place
from raysberta.errors import InputError

LABELS = {"entailment": "positive", "contradiction": "negative", "neutral": "unused"}
ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.sampled_from(sorted(LABELS))), max_size=60)


def nli(folder: Path, **values: Any) -> DatasetSource:
    named = {"query_field": "premise", "positive_field": "hypothesis", "label_field": "label", "labels": LABELS}
    place = {"path": str(folder / "rows"), "snapshot": str(folder / "snapshot")}
    return DatasetSource.model_validate({"kind": "dataset", "task": "paraphrase", **named, **place, **values})


def written(folder: Path, rows: list[dict[str, Any]], files: int) -> None:
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    for number in range(files):
        own = rows[number::files]
        (folder / "rows" / f"{number}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own))


def found(source: DatasetSource) -> list[dict[str, Any]]:
    return [row for unit in units("nli", source) for each in read(unit, source, 2000) for row in each.pairs.to_pylist()]


@settings(max_examples=30, deadline=None)
@given(ROWS, st.integers(1, 4), st.randoms(use_true_random=False), st.sampled_from([1, 3000, 1 << 20]))
def test_labels_are_as_in_a_plain_reading_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, files: int, chance: random.Random, size: int
) -> None:
    """Against dictionaries: each premise with all that it entails, and all that contradicts it as hard negatives."""
    folder = tmp_path_factory.mktemp("nli")
    given_rows = [{"premise": f"Посылка  {query}", "hypothesis": f"следствие {text}", "label": label} for query, text, label in rows]
    expected: dict[str, tuple[set[str], set[str]]] = {}
    for row in given_rows:
        positives, negatives = expected.setdefault(row["premise"], (set(), set()))
        if row["label"] != "neutral":
            (positives if row["label"] == "entailment" else negatives).add(row["hypothesis"])
    chance.shuffle(given_rows)
    written(folder, given_rows, files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sort, "PART_BYTES", size)
        patch.setattr("raysberta.data_sets.fetch.RUN_BYTES", size)
        fetch({"nli": nli(folder)})
    told = found(nli(folder))
    assert {(row["query"], row["positive"], tuple(sorted(row["negatives"]))) for row in told} == {
        (premise, positive, tuple(sorted(negatives))) for premise, (positives, negatives) in expected.items() for positive in positives
    }
    assert len({row["pair_id"] for row in told}) == len(told)
    assert [row["pair_id"] for row in told] == [
        row["pair_id"] for unit in units("nli", nli(folder)) for each in read(unit, nli(folder), 2000) for row in each.pairs.to_pylist()
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 300), st.integers(1, 320), st.integers(1, 5), st.randoms(use_true_random=False), st.sampled_from([1, 5000, 1 << 20]))
def test_a_sample_is_the_same_of_any_files_and_cuts_no_query(
    tmp_path_factory: pytest.TempPathFactory, count: int, sample: int, files: int, chance: random.Random, size: int
) -> None:
    rows = [{"query": f"вопрос {number // 3}", "positive": f"ответ {number}"} for number in range(count)]
    plain = {"label_field": None, "labels": {}, "query_field": "query", "positive_field": "positive"}
    told = []
    for number in range(2):
        folder = tmp_path_factory.mktemp("sample")
        chance.shuffle(rows)
        written(folder, rows, files if number else 1)
        source = nli(folder, order_field="positive", sample=sample, **plain)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("raysberta.data_sets.fetch.RUN_BYTES", size if number else 1 << 20)
            patch.setattr("raysberta.data_sets.rows.BATCH_ROWS", 7)
            index = fetch({"nli": source})["nli"]
        assert index.rows <= sample and index.rows_read == count
        told.append(found(source))
    assert told[0] == told[1]
    by_query: dict[str, int] = {}
    for number in range(count):
        by_query[f"вопрос {number // 3}"] = by_query.get(f"вопрос {number // 3}", 0) + 1
    assert {row["query"]: row["positive"].count("ответ") for row in told[0]} == {row["query"]: by_query[row["query"]] for row in told[0]}
    assert index.rows > sample - 3 or index.rows == count, "a query more would be too much"


def test_parts_hold_whole_queries_and_go_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort, "PART_BYTES", 4000)
    rows = [{"premise": f"p{number % 97}", "hypothesis": "x" * 40 + str(number), "label": "entailment"} for number in range(1000)]
    written(tmp_path, rows, 3)
    index = fetch({"nli": nli(tmp_path)})["nli"]
    assert len(index.parts) > 10 and index.rows == 1000
    keys = [pq.read_table(unit.file.uri)["key"].to_pylist() for unit in units("nli", nli(tmp_path))]
    assert all(own == sorted(own) for own in keys)
    assert all(before[-1] < after[0] for before, after in itertools.pairwise(keys))


def test_a_changed_byte_is_named(tmp_path: Path) -> None:
    written(tmp_path, [{"premise": "a b", "hypothesis": "c", "label": "entailment"}] * 2, 1)
    source = nli(tmp_path)
    with pytest.raises(InputError, match=r"^sources\.nli: there is no snapshot of it at .*; jobs/fetch_data\.py with this recipe makes it"):
        check_data_set("nli", source)
    assert data_set_state("nli", source) == {"missing": True}
    fetch({"nli": source})
    check_data_set("nli", source)
    before = data_set_state("nli", source)
    part = Path(place(source, data_files(source))) / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    check_data_set("nli", source)
    with pytest.raises(
        InputError, match=r"^sources\.nli: .*part-00000\.parquet is not the file that was fetched; right would be to fetch it again$"
    ):
        found(source)
    (unit,) = units("nli", source)
    part.rename(part.with_suffix(".aside"))
    with pytest.raises(
        InputError, match=rf"^sources\.nli: .*part-00000\.parquet is not there on node {platform.node()}; right would be that data:"
    ):
        list(read(unit, source, 2000))
    part.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"^sources\.nli: .*part-00000\.parquet is missing or cut; right would be to fetch"):
        check_data_set("nli", source)
    (part.parent / "index.json").write_text('{"rows": 1')
    with pytest.raises(InputError, match=r"^sources\.nli: .*index\.json is unreadable: .*fetch it again$"):
        check_data_set("nli", source)
    fetch({"nli": source})
    assert data_set_state("nli", source) == before and len(found(source)) == 1


def data_files(source: DatasetSource) -> Any:
    from raysberta.data_sets.outside import data_set_files

    return data_set_files("nli", source)


def test_other_files_or_columns_are_another_snapshot(tmp_path: Path) -> None:
    written(tmp_path, [{"premise": "a", "hypothesis": "b", "label": "entailment"}], 1)
    places = {
        place(nli(tmp_path, **values), data_files(nli(tmp_path)))
        for values in ({}, {"sample": 3}, {"minimum": {"x": 1}}, {"where": {"y": "z"}})
    }
    assert len(places) == 4
    assert place(nli(tmp_path, limit=5, language="ru", licence="mit"), data_files(nli(tmp_path))) in places
    first = place(nli(tmp_path), data_files(nli(tmp_path)))
    written(tmp_path, [{"premise": "a", "hypothesis": "b", "label": "entailment"}] * 2, 1)
    assert place(nli(tmp_path), data_files(nli(tmp_path))) != first
