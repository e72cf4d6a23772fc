import pyarrow as pa
import pytest

from raysberta.pairs.make import make
from raysberta.schema import DOCUMENT, PAIR


def document(**values: object) -> dict:
    base = {
        "doc_id": "d1",
        "group": "g",
        "split": "train",
        "source": "s",
        "language": "ru",
        "title": "",
        "text": "",
        "label": "",
        "sections": [],
    }
    return {**base, **values}


def made(kind: str, *documents: dict, longest: int = 200) -> list[tuple[str, str]]:
    table = make(pa.Table.from_pylist(list(documents), DOCUMENT), {"s": {kind: "retrieval"}}, longest)
    assert table.schema.equals(PAIR)
    return list(zip(table["query"].to_pylist(), table["positive"].to_pylist(), strict=True))


SECTIONS = [
    {"heading": "usage", "text": "Над полем стоял туман."},
    {"heading": "usage", "text": "Туман рассеялся к утру."},
    {"heading": "name", "text": "weather.Fog.clear_up"},
    {"heading": "translation", "text": "fog"},
    {"heading": "description", "text": "Капли в воздухе."},
    {"heading": "opening", "text": "Туман стоит."},
    {"heading": "rest", "text": "It will clear up."},
    {"heading": "Causes", "text": "Cold air."},
]
FOG = document(title="туман", text="Скопление мелких капель воды. Видно плохо.", sections=SECTIONS)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("term_definition", [("туман", "Скопление мелких капель воды. Видно плохо.")]),
        ("name_summary", [("weather fog clear up", "туман")]),
        ("translation", [("Скопление мелких капель воды. Видно плохо.", "fog")]),
        ("name_description", [("Скопление мелких капель воды. Видно плохо.", "Капли в воздухе.")]),
        ("opening_rest", [("Туман стоит.", "It will clear up.")]),
        ("heading_section", [("туман: Causes", "Cold air.")]),
        ("text", [("Скопление мелких капель воды. Видно плохо.",) * 2]),
    ],
)
def test_each_kind_takes_its_two_sides(kind: str, expected: list[tuple[str, str]]):
    assert made(kind, FOG) == expected


def test_a_definition_is_cut_at_its_sentence_end():
    assert made("term_definition", FOG, longest=35) == [("туман", "Скопление мелких капель воды.")]


def test_one_usage_a_document_and_not_always_the_first():
    documents = [document(doc_id=f"d{number}", text="значение", sections=SECTIONS[:2]) for number in range(40)]
    positives = [positive for _, positive in made("definition_usage", *documents)]
    assert len(positives) == 40
    assert 8 < positives.count(SECTIONS[0]["text"]) < 32


def test_pairs_do_not_depend_on_the_batch_they_are_made_in():
    documents = [document(doc_id=f"d{number}", title=f"слово {number}", text="текст", sections=SECTIONS) for number in range(6)]
    table = pa.Table.from_pylist(documents, DOCUMENT)
    kinds = {"s": {"term_definition": "retrieval", "definition_usage": "topic"}}
    whole = make(table, kinds, 100)
    parts = pa.concat_tables([make(table.slice(number, 1), kinds, 100) for number in (3, 0, 5, 1, 4, 2)])
    assert whole.sort_by("pair_id").equals(parts.sort_by("pair_id").combine_chunks())
    assert len(set(whole["pair_id"].to_pylist())) == 12


def test_sources_without_a_mapping_give_nothing():
    table = pa.Table.from_pylist([document(source="other", title="a", text="b")], DOCUMENT)
    assert make(table, {"s": {"title_body": "topic"}}, 100).num_rows == 0
