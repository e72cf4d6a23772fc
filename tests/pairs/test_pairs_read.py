import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.corpus.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.pairs.outside import data_set_files
from raysberta.pairs.read import read
from raysberta.schema import PAIR

ROWS = [
    {
        "query": "Где находится Эрмитаж?",
        "positive": ["Эрмитаж находится в Санкт-Петербурге.", "Музей стоит на Дворцовой площади."],
        "negatives": ["Лувр в Париже."],
    },
    {"query": "Who wrote War and Peace?", "positive": "Leo Tolstoy wrote it in the 1860s.", "negatives": None},
]


def source(path: object, **values: Any) -> DatasetSource:
    return DatasetSource.model_validate({"kind": "dataset", "path": str(path), "task": "retrieval", **values})


def jsonl(path: Path, rows: list[Any] = ROWS) -> Path:
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    if path.suffix == ".zst":
        with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as stream:
            stream.write(data)
        return path
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def pairs(path: Path | str, **values: Any) -> list[dict[str, Any]]:
    given = source(path, **values)
    tables = [table for file in data_set_files("qa", given) for table in read("qa", given, file, 500)]
    assert all(table.schema.equals(PAIR) for table in tables)
    return pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_json_lines_compressed_or_not(tmp_path: Path, name: str):
    found = pairs(jsonl(tmp_path / name))
    assert [row["positive"] for row in found] == [*ROWS[0]["positive"], ROWS[1]["positive"]]
    assert [row["language"] for row in found] == ["ru", "ru", "en"]
    assert [row["negatives"] for row in found] == [["Лувр в Париже."], ["Лувр в Париже."], []]
    assert found[0]["group"] == found[1]["group"] != found[2]["group"]
    assert len({row["pair_id"] for row in found}) == 3


def test_parquet_with_other_column_names_in_a_folder(tmp_path: Path):
    for number in range(3):
        pq.write_table(pa.table({"q": [f"query {number}"], "a": [f"answer {number}"], "more": [1]}), tmp_path / f"{number}.parquet")
    (tmp_path / "README.md").write_text("not data")
    found = pairs(tmp_path, query_field="q", positive_field="a")
    assert [(row["query"], row["positive"]) for row in found] == [(f"query {number}", f"answer {number}") for number in range(3)]
    assert pairs(tmp_path / "*.parquet", query_field="q", positive_field="a") == found


def test_the_same_row_has_the_same_id_in_any_file(tmp_path: Path):
    first = pairs(jsonl(tmp_path / "a.jsonl"))
    second = pairs(jsonl(tmp_path / "b.jsonl.gz", ROWS[::-1]))
    assert {row["pair_id"] for row in first} == {row["pair_id"] for row in second}


def test_bad_input_names_key_file_and_row(tmp_path: Path):
    with pytest.raises(InputError, match=r"^sources\.qa\.path: .*none does not exist$"):
        pairs(tmp_path / "none")
    (tmp_path / "page.html").write_text("<p>")
    with pytest.raises(InputError, match=r"page\.html is no data set; right would be \.parquet"):
        pairs(tmp_path / "page.html")
    with pytest.raises(InputError, match=r"sources\.qa\.query_field: .*a\.jsonl line 1 has no 'question'; there are query, positive"):
        pairs(jsonl(tmp_path / "a.jsonl"), query_field="question")
    with pytest.raises(InputError, match=r"b\.jsonl line 2 is not JSON"):
        (tmp_path / "b.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": ')
        pairs(tmp_path / "b.jsonl")
    with pytest.raises(InputError, match=r"c\.jsonl row 1: query is int; right would be text"):
        pairs(jsonl(tmp_path / "c.jsonl", [{"query": 5, "positive": "b"}]))
    with pytest.raises(InputError, match=r"d\.parquet is not readable Parquet"):
        (tmp_path / "d.parquet").write_text("hello")
        pairs(tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"e\.jsonl\.gz is not readable JSONL"):
        (tmp_path / "e.jsonl.gz").write_text("hello")
        pairs(tmp_path / "e.jsonl.gz")


def test_a_given_language_is_that_of_every_row(tmp_path: Path):
    file = jsonl(tmp_path / "a.jsonl", [*ROWS, {"query": "", "positive": "Кто-то что-то написал."}])
    assert [row["language"] for row in pairs(file, language="ru")] == ["ru"] * 4
    assert [row["language"] for row in pairs(file)] == ["ru", "ru", "en", ""]
    assert [row["pair_id"] for row in pairs(file, language="ru")] == [row["pair_id"] for row in pairs(file)]


def test_files_behind_a_uri_with_options(tmp_path: Path):
    folder = tmp_path / "набор данных"
    folder.mkdir()
    jsonl(folder / "a b.jsonl.gz", ROWS[:1])
    pq.write_table(pa.table({"query": ["Who?"], "positive": ["Somebody."]}), folder / "ещё.parquet")
    (folder / "README.md").write_text("not data")
    place = f"file://{quote(str(folder))}"
    found = pairs(f"{place}?region=here&secret_key=planted")
    assert found == pairs(folder) == pairs(f"{place}/*.[jp]*?region=here")
    assert [row["query"] for row in found] == [ROWS[0]["query"], ROWS[0]["query"], "Who?"]
    for name, text in (
        ("c.jsonl", '{"query": 5, "positive": "b"}'),
        ("d.jsonl", '{"query": '),
        ("e.jsonl.gz", "hello"),
        ("f.parquet", "hello"),
    ):
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=rf"{name}\?region=here ") as raised:
            pairs(f"{place}/{name}?region=here&secret_key=planted")
        assert "planted" not in str(raised.value)
