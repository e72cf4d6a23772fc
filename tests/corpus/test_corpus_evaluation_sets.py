"""Evaluation sets named by a recipe: which strings count, how they are named, what is refused."""

import gzip
import json
import platform
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.corpus import overlaps
from raysberta.corpus.decontaminate import Passages, hashed
from raysberta.corpus.evaluation_sets import check_evaluation_sets, evaluation_files, read_set, sets_state
from raysberta.errors import InputError

RUN = "один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать"


def named(*paths: Path) -> tuple[str, ...]:
    return tuple(str(path) for path in paths)


def shared(sets: tuple[str, ...], *texts: str) -> list[str | None]:
    held = [(key, names[row]) for file in evaluation_files(sets) for told, names in read_set(file, 13) for key, row in keys(told)]
    own = keys(hashed(texts, range(len(texts)), [True] * len(texts), 13))
    found = overlaps.meet(table(held, overlaps.HELD), table(own, overlaps.SAID))
    names = {row["id"]: row["name"] for row in found.to_pylist()}
    return [names.get(row) for row in range(len(texts))]


def keys(told: Passages) -> list[tuple[int, int]]:
    return list(zip(told.hashes.tolist(), told.rows.tolist(), strict=True))


def table(rows: Iterable[tuple], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


def test_queries_and_passages_of_any_layout_count(tmp_path: Path) -> None:
    rows = [
        {"query": "Как называется столица Франции?", "positives": ["Париж", f"Длинный ответ: {RUN}."]},
        {"nested": {"text": "Where is the Eiffel tower?"}, "label": "да", "score": 3},
    ]
    with gzip.open(tmp_path / "questions.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    pq.write_table(pa.table({"item": ["Task#7"], "text": ["The capital of Italy is Rome."]}), tmp_path / "texts.parquet")
    sets = named(tmp_path / "questions.jsonl.gz", tmp_path / "texts.parquet")
    told = shared(
        sets,
        "как называется столица франции",
        f"и вот {RUN}!",
        "Where is the Eiffel Tower",
        "the capital of Italy is Rome",
        "да",
        "Париж",
        "Как называется столица Италии?",
    )
    first, second = "questions.jsonl.gz#1", "questions.jsonl.gz#2"
    assert told == [first, first, second, "Task#7", None, None, None], "labels and single words stand everywhere"


def test_passages_are_told_apart_from_what_is_asked_and_scored(tmp_path: Path) -> None:
    rows = [
        {"item": "Task#1", "part": "passage", "text": "Париж стоит на берегах Сены."},
        {"item": "Task#2", "part": "text", "text": "На какой реке стоит Париж?"},
        {
            "question": "Где стоит Эрмитаж сегодня?",
            "passages": [{"text": "Эрмитаж стоит на Дворцовой площади."}],
            "answer": "на Дворцовой площади города",
        },
        {"item": "Task#9", "part": "passage", "text": "На какой реке стоит Париж?"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    texts = ("париж стоит на берегах сены", "на какой реке стоит париж", "где стоит эрмитаж сегодня", "эрмитаж стоит на дворцовой площади")
    found = shared(named(tmp_path / "a.jsonl"), *texts, "на дворцовой площади города")
    assert found == ["passage:Task#1", "Task#2", "a.jsonl#3", "passage:a.jsonl#3", "a.jsonl#3"]


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"text": f"строка номер {number} этого набора"}) + "\n" for number in range(10)), encoding="utf-8")
    texts = [f"Строка номер {number} этого набора" for number in range(12)]
    whole = shared(named(file), *texts)
    monkeypatch.setattr("raysberta.corpus.evaluation_sets.ROWS", 3)
    assert shared(named(file), *texts) == whole == [f"many.jsonl#{number}" for number in range(1, 11)] + [None, None]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^corpus\.evaluation_sets: .*nowhere\.jsonl does not exist$"):
        check_evaluation_sets(named(tmp_path / "nowhere.jsonl"))
    assert sets_state(named(tmp_path / "nowhere.jsonl")) == {"missing": True}
    page = tmp_path / "page.html"
    page.write_text("<p>text")
    with pytest.raises(InputError, match=r"page\.html: right would be \.parquet or \.jsonl"):
        check_evaluation_sets(named(page))
    (tmp_path / "gone.parquet").write_bytes(b"PAR1")
    (file,) = evaluation_files(named(tmp_path / "gone.parquet"))
    (tmp_path / "gone.parquet").unlink()
    with pytest.raises(InputError) as raised:
        list(read_set(file, 13))
    absent = f"is not there on node {platform.node()}; right would be a place that every node reaches"
    assert str(raised.value) == f"corpus.evaluation_sets: {tmp_path}/gone.parquet {absent}"
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(InputError, match=r"^corpus\.evaluation_sets: .*broken\.jsonl is unreadable: "):
        list(read_set(evaluation_files(named(broken))[0], 13))


def test_options_of_a_uri_reach_the_files_and_no_message(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "вопросы 1.jsonl").write_text(json.dumps({"query": "Как называется столица Франции?"}), encoding="utf-8")
    (folder / "README.md").write_text("# not data")
    place = f"file://{folder}?region=here&secret_key=planted"
    assert shared((place,), "как называется столица франции", "иное") == ["вопросы 1.jsonl#1", None]
    check_evaluation_sets((place,))
    state = sets_state((place,))
    assert state["files"] == 1 and state == sets_state((str(folder),)), "neither the place nor the options are part of it"
    (folder / "broken.jsonl").write_text('{"text": ')
    with pytest.raises(InputError, match=r"broken\.jsonl\?region=here is unreadable") as raised:
        list(read_set(evaluation_files((f"file://{folder}/broken.jsonl?region=here&secret_key=planted",))[0], 13))
    assert "planted" not in str(raised.value)
