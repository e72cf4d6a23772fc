"""Evaluation sets named by a recipe: which strings count, how they are named, what is refused."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.corpus.decontaminate import hashed, held_out, matches
from raysberta.corpus.evaluation_sets import check_evaluation_sets, evaluation_files, read_set, sets_identity
from raysberta.errors import InputError
from raysberta.recipe import Recipe

RUN = "один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать"


def recipe(*paths: Path) -> Recipe:
    sets = [str(path) for path in paths]
    return Recipe.model_validate({"name": "t", "sources": {"words": {"kind": "wiki_ru_wordnet"}}, "corpus": {"evaluation_sets": sets}})


def shared(settings: Recipe, *texts: str) -> list[str | None]:
    parts = [part for file in evaluation_files(settings) for part in read_set(file, 13)]
    found = hashed(texts, range(len(texts)), [True] * len(texts), 13)
    return list(matches(found, held_out(parts), len(texts)))


def test_queries_and_passages_of_any_layout_count(tmp_path: Path) -> None:
    rows = [
        {"query": "Как называется столица Франции?", "positives": ["Париж", f"Длинный ответ: {RUN}."]},
        {"nested": {"text": "Where is the Eiffel tower?"}, "label": "да", "score": 3},
    ]
    with gzip.open(tmp_path / "questions.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    pq.write_table(pa.table({"item": ["Task#7"], "text": ["The capital of Italy is Rome."]}), tmp_path / "texts.parquet")
    settings = recipe(tmp_path / "questions.jsonl.gz", tmp_path / "texts.parquet")
    told = shared(
        settings,
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


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"text": f"строка номер {number} этого набора"}) + "\n" for number in range(10)), encoding="utf-8")
    texts = [f"Строка номер {number} этого набора" for number in range(12)]
    whole = shared(recipe(file), *texts)
    monkeypatch.setattr("raysberta.corpus.evaluation_sets.ROWS", 3)
    assert shared(recipe(file), *texts) == whole == [f"many.jsonl#{number}" for number in range(1, 11)] + [None, None]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^corpus\.evaluation_sets: .*nowhere\.jsonl does not exist$"):
        check_evaluation_sets(recipe(tmp_path / "nowhere.jsonl"))
    assert sets_identity(recipe(tmp_path / "nowhere.jsonl")) == "missing"
    page = tmp_path / "page.html"
    page.write_text("<p>text")
    with pytest.raises(InputError, match=r"page\.html: right would be \.parquet or \.jsonl"):
        check_evaluation_sets(recipe(page))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\n{"text": \n')
    told = read_set(evaluation_files(recipe(broken))[0], 13)
    assert isinstance(told, str) and told.startswith(f"corpus.evaluation_sets: {broken} is unreadable: ")
