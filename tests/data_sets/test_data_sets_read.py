import gzip
import json
import platform
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysberta.data_sets.outside import units
from raysberta.data_sets.read import read
from raysberta.data_sets.records import records
from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.schema import PAIR, REJECTED_PAIR

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


def taken(path: Path | str, **values: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Counter[str]]:
    """Pairs, rejected records, and what was left out."""
    given = source(path, **values)
    found = [each for unit in units("qa", given) for each in read(unit, given, 500)]
    assert all(each.pairs.schema.equals(PAIR) and each.rejected.schema.equals(REJECTED_PAIR) for each in found)
    dropped = sum((Counter(each.dropped) for each in found), Counter[str]())
    return [row for each in found for row in each.pairs.to_pylist()], [row for each in found for row in each.rejected.to_pylist()], dropped


def pairs(path: Path | str, **values: Any) -> list[dict[str, Any]]:
    return taken(path, **values)[0]


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


def test_parquet_of_several_row_groups_is_numbered_on(tmp_path: Path):
    table = pa.table({"q": [f"query {number}" for number in range(7)], "a": [f"answer {number}" for number in range(7)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    (unit,) = units("s", source(tmp_path, query_field="q", positive_field="a"))
    found = [(each.where, each.value) for each in records(unit, "s", ["q", "a"])]
    assert found == [(f"a.parquet row {number}", row) for number, row in enumerate(table.to_pylist(), 1)]
    assert [each.where for each in records(replace(unit, start=1, stop=2), "s", ["q"])] == [where for where, _ in found[3:6]]


def test_plain_text_is_paired_with_itself(tmp_path: Path):
    file = jsonl(tmp_path / "a.jsonl", [{"text": "Mist hangs over the field."}])
    (row,) = pairs(file, query_field="text", positive_field="text")
    assert row["query"] == row["positive"] == "Mist hangs over the field." and row["kind"] == "text"
    assert {each["kind"] for each in pairs(jsonl(tmp_path / "b.jsonl"))} == {"dataset"}


def test_the_same_row_has_the_same_id_in_any_file(tmp_path: Path):
    first = pairs(jsonl(tmp_path / "a.jsonl"))
    second = pairs(jsonl(tmp_path / "b.jsonl.gz", ROWS[::-1]))
    assert {row["pair_id"] for row in first} == {row["pair_id"] for row in second}


def test_wrong_input_names_key_and_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"^sources\.qa\.path: .*none does not exist$"):
        pairs(tmp_path / "none")
    (tmp_path / "page.html").write_text("<p>")
    with pytest.raises(InputError, match=r"page\.html is no data set; right would be \.parquet"):
        pairs(tmp_path / "page.html")
    with pytest.raises(
        InputError,
        match=r"^sources\.qa\.query_field: no record up to a\.jsonl line 2 has 'question'; there are query, positive, negatives$",
    ):
        pairs(jsonl(tmp_path / "a.jsonl"), query_field="question")
    with pytest.raises(InputError, match=r"^sources\.qa\.minimum: no record up to a\.jsonl line 2 has 'views'"):
        pairs(jsonl(tmp_path / "a.jsonl"), minimum={"views": 3})
    with pytest.raises(InputError, match=r"d\.parquet is not readable parquet|d\.parquet is not what its ending says"):
        (tmp_path / "d.parquet").write_text("hello")
        pairs(tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"e\.jsonl\.gz is not what its ending says"):
        (tmp_path / "e.jsonl.gz").write_text("hello")
        pairs(tmp_path / "e.jsonl.gz")
    with pytest.raises(InputError, match=r"^sources\.qa: 2 of 3 records are unreadable; the first: f\.jsonl line 1: no JSON"):
        (tmp_path / "f.jsonl").write_text('{"query": \n{"query": "a", "positive": "b"}\n5\n')
        pairs(tmp_path / "f.jsonl")


def test_a_bad_record_is_kept_aside_with_its_reason(tmp_path: Path):
    rows = [*ROWS, {"query": 5, "positive": "b"}, {"query": ["a", "b"], "positive": "c"}, *ROWS, *ROWS]
    file = jsonl(tmp_path / "a.jsonl", rows)
    file.write_bytes(file.read_bytes() + b'\n{"query": "\xff\xfe"}\n\n{"query": ')
    found, rejected, _ = taken(file)
    assert len(found) == 9
    assert [row["reason"] for row in rejected] == [
        "unreadable: a.jsonl line 3: query is int, no text",
        "unreadable: a.jsonl line 4: query is 2 texts, not one",
        "unreadable: a.jsonl line 9: invalid UTF-8 at byte 11",
        "unreadable: a.jsonl line 11: no JSON: Expecting value: line 1 column 11 (char 10)",
    ]
    assert rejected[0]["query"] == "{'query': 5, 'positive': 'b'}" and rejected[0]["source"] == "qa"


def test_a_file_that_this_node_lacks_is_named_with_the_node(tmp_path: Path):
    for name in ("a.jsonl", "a.parquet"):
        file = tmp_path / name
        if name.endswith("parquet"):
            pq.write_table(pa.table({"query": ["a"], "positive": ["b"]}), file)
        else:
            jsonl(file)
        (unit,) = units("qa", source(file))
        file.unlink()
        with pytest.raises(
            InputError, match=rf"^sources\.qa\.path: .*{name} is not there on node {platform.node()}; right would be that data:"
        ):
            list(read(unit, source(file), 500))


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
        with pytest.raises(InputError, match=rf"{name}") as raised:
            pairs(f"{place}/{name}?region=here&secret_key=planted")
        assert "planted" not in str(raised.value)


def csv_lines(path: Path, separator: str, rows: list[list[str]]) -> Path:
    text = "".join(separator.join(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_tables_of_text(tmp_path: Path):
    """Quotes enclose line ends in CSV, and are text in TSV."""
    rows = [["original", "ru", "p_good"], ['"Он сказал: ""да""\nи ушёл"', "Он согласился", "0.9"], ["Кот спит", "Кошка спит", "0.2"]]
    found = pairs(csv_lines(tmp_path / "a.csv.gz", ",", rows), query_field="original", positive_field="ru")
    assert [(row["query"], row["positive"]) for row in found] == [('Он сказал: "да"\nи ушёл', "Он согласился"), ("Кот спит", "Кошка спит")]
    kept, _, dropped = taken(
        tmp_path / "a.csv.gz", query_field="original", positive_field="ru", minimum={"p_good": 0.5}, score_field="p_good"
    )
    assert [(row["query"][:2], round(row["given_score"], 3)) for row in kept] == [("Он", 0.9)] and dropped == {"minimum:p_good": 1}
    rows = [["a", "b"], ['"Тиль', "Уленшпигель"], ["one"], ["x", "y"]]
    found, rejected, _ = taken(csv_lines(tmp_path / "a.tsv", "\t", rows), query_field="a", positive_field="b")
    assert [(row["query"], row["positive"]) for row in found] == [('"Тиль', "Уленшпигель"), ("x", "y")]
    assert [row["reason"] for row in rejected] == ["unreadable: a.tsv line 3: 1 fields, and the first line has 2"]


def test_one_json_list_and_lines_of_lists(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps({"x": 1}) + "\n")
    texts = [{"paraphrases": [f"{number}, раз", f"{number}, два", f"{number}, три"]} for number in range(3000)]
    (tmp_path / "a.json").write_text(json.dumps(texts, ensure_ascii=False, indent=1))
    found = pairs(tmp_path / "a.json", query_field="paraphrases.0", positive_field="paraphrases.1:")
    assert len(found) == 6000
    assert [(row["query"], row["positive"]) for row in found[-2:]] == [("2999, раз", "2999, два"), ("2999, раз", "2999, три")]
    file = tmp_path / "b.jsonl"
    file.write_text("".join(json.dumps([f"anchor {number}", f"positive {number}", f"negative {number}"]) + "\n" for number in range(3)))
    found = pairs(file, query_field="0", positive_field="1", negatives_field="2")
    assert [(row["query"], row["positive"], row["negatives"]) for row in found[:1]] == [("anchor 0", "positive 0", ["negative 0"])]


def test_columns_within_columns(tmp_path: Path):
    record = {
        "translation": {"en": "A cat sleeps.", "ru": "Кот спит."},
        "answers": [{"text": "Первый."}, {"text": None}, {"text": "Второй."}],
        "pos": [["instruction", "Текст."]],
        "a.b": "буквально",
    }
    for path in (jsonl(tmp_path / "a.jsonl", [record]), tmp_path / "a.parquet"):
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([record]), path)
        for column, texts in (
            ("translation.ru", ["Кот спит."]),
            ("answers.text", ["Первый.", "Второй."]),
            ("pos.0.1", ["Текст."]),
            ("a.b", ["буквально"]),
        ):
            assert [row["positive"] for row in pairs(path, query_field="translation.en", positive_field=column)] == texts, column


def test_where_takes_rows_of_one_value_or_of_several(tmp_path: Path):
    rows = [{"query": f"q{number}", "positive": "p", "task": ("nq", "squad", "xsum")[number % 3], "year": number} for number in range(9)]
    file = jsonl(tmp_path / "a.jsonl", rows)
    assert [row["query"] for row in pairs(file, where={"task": "nq"})] == ["q0", "q3", "q6"]
    found, _, dropped = taken(file, where={"task": ["nq", "xsum"], "year": [0, 2, 4]})
    assert [row["query"] for row in found] == ["q0", "q2"] and dropped == {"where": 7}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30), max_size=30), st.integers(1, 90))
def test_byte_ranges_take_each_line_once(texts: list[str], size: int):
    """Whatever the lines are and wherever they are cut."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.jsonl"
        lines = [
            json.dumps({"query": f"{number} {text}", "positive": text}, ensure_ascii=number % 2 == 0) for number, text in enumerate(texts)
        ]
        file.write_text("\n".join(["", *lines, ""][number % 2 :]) if (number := len(texts)) else "")
        given_source = source(file)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("raysberta.data_sets.outside.UNIT_BYTES", size)
            cut = units("qa", given_source)
        assert len(cut) == max(1, -(-file.stat().st_size // size))
        records_found = [record for unit in cut for record in records(unit, "sources.qa.path", [])]
    assert [record.value for record in records_found] == [json.loads(line) for line in lines]


def test_row_groups_are_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = pa.table({"query": [f"q{number}" for number in range(100)], "positive": [f"p{number}" * 50 for number in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    whole = pairs(tmp_path / "a.parquet")
    monkeypatch.setattr("raysberta.data_sets.outside.UNIT_BYTES", 3000)
    cut = units("qa", source(tmp_path / "a.parquet"))
    assert len(cut) > 3 and [unit.stop for unit in cut[:-1]] == [unit.start for unit in cut[1:]]
    assert pairs(tmp_path / "a.parquet") == whole and len(whole) == 100


def test_a_decompression_is_bounded(tmp_path: Path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b" " * (80 << 20)))
    with pytest.raises(InputError, match=r"decompresses to more than 64 MiB"):
        pairs(tmp_path / "a.jsonl.gz")
