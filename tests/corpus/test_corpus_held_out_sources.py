"""The packaged sources that no recipe trains on, read from the real packages, and their rules on planted texts."""

import gettext
import re
import struct
from collections import Counter
from pathlib import Path

import pytest

from raysberta.corpus.documents import Found
from raysberta.corpus.packaged import cloud, diseases, legal, mercurial, names
from raysberta.corpus.packaged.catalogue import translations
from raysberta.corpus.packaged.place import folder
from raysberta.errors import InputError

CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)


def kept(found: list[Found]) -> list[Found]:
    return [document for document in found if not document.reason]


@pytest.fixture(scope="module")
def messages() -> list[Found]:
    return list(mercurial.read((), "sources.tool"))


def test_a_catalogue_is_read_as_the_standard_library_reads_it() -> None:
    file = folder("mercurial", "x") / "locale" / "ru" / "LC_MESSAGES" / "hg.mo"
    with file.open("rb") as opened:
        known = gettext.GNUTranslations(opened)
    found = translations(file)
    assert len(found) > 4000
    assert all(known.gettext(message) == translation for message, translation in found.items())


def test_either_byte_order_is_read_and_headers_contexts_and_plurals_are_left_out(tmp_path: Path) -> None:
    strings = [("", "Language: ru"), ("ctx\x04file", "файл"), ("one\x00many", "один\x00много"), ("yes", "да")]
    for order in "<>":
        (tmp_path / "x.mo").write_bytes(compiled(strings, order))
        assert translations(tmp_path / "x.mo") == {"yes": "да"}


def compiled(strings: list[tuple[str, str]], order: str) -> bytes:
    start = 28 + 16 * len(strings)
    tables, texts = [b"", b""], b""
    for column in (0, 1):
        for pair in strings:
            text = pair[column].encode()
            tables[column] += struct.pack(f"{order}2I", len(text), start + len(texts))
            texts += text + b"\x00"
    header = struct.pack(f"{order}7I", 0x950412DE, 0, len(strings), 28, 28 + 8 * len(strings), 0, 0)
    return header + tables[0] + tables[1] + texts


@pytest.mark.parametrize(("cut", "why"), [(3, "no compiled"), (20, "cut short"), (60, "cut short")])
def test_what_is_no_catalogue_is_refused(tmp_path: Path, cut: int, why: str) -> None:
    (tmp_path / "x.mo").write_bytes(compiled([("yes", "да"), ("no", "нет")], "<")[:cut])
    with pytest.raises(ValueError, match=why):
        translations(tmp_path / "x.mo")


def test_messages_of_mercurial(messages: list[Found]) -> None:
    found = kept(messages)
    assert len(found) > 1800
    for document in found:
        (heading, english), *more = document.sections
        assert heading == "translation" and not CYRILLIC.search(english) and CYRILLIC.search(document.text)
        assert [heading for heading, _ in more] in ([], ["opening", "rest"])
    assert not [document.text for document in found if "``" in document.text or "\n" in document.text or "%s" in document.text]
    assert {"placeholders_or_code", "short_message", "untranslated"} <= {document.reason for document in messages}


def test_an_opening_is_russian_and_what_follows_it_english(messages: list[Found]) -> None:
    crossed = [dict(document.sections) for document in kept(messages) if len(document.sections) > 1]
    assert len(crossed) > 350
    for sections in crossed:
        assert CYRILLIC.search(sections["opening"]) and not CYRILLIC.search(sections["rest"])
        assert mercurial.MIN_REST <= len(sections["rest"]) <= mercurial.MAX_REST


def test_the_summary_of_a_command_opens_the_rest_of_its_help(messages: list[Found]) -> None:
    (cat,) = [document for document in messages if document.sections[0][1] == "output the current or given revision of files"]
    assert cat.group == "mercurial/commands.py cat"
    assert dict(cat.sections)["opening"] == cat.text == "напечатать текущую или заданную ревизию файлов"
    assert dict(cat.sections)["rest"].startswith("Print the specified files as they were at the given revision. If no revision is given,")


def test_paragraphs_of_one_help_text_share_the_group(messages: list[Found]) -> None:
    sizes = Counter(document.group for document in kept(messages))
    assert sizes["glossary.txt 0"] > 50 and sizes["mercurial/commands.py clone"] > 5


@pytest.mark.parametrize(
    ("english", "russian", "text", "reason"),
    [
        (
            "Use ``--all`` and see :hg:`help x` now. (DEPRECATED)",
            "Возьмите здесь ``--all``, подробнее см. :hg:`help x`. (УСТАРЕЛО)",
            "Возьмите здесь --all, подробнее см. hg help x.",
            "",
        ),
        (
            "``name``\n    The name that is\n    shown here.",
            "``name``\n    Имя, которое\n    здесь показано.",
            "Имя, которое здесь показано.",
            "",
        ),
        ("no such file in the folder %s", "нет файла в каталоге %s", "нет файла в каталоге %s", "placeholders_or_code"),
        ("no such file", "нет такого файла", "нет такого файла", "short_message"),
        ("see hg help config for more", "см. hg help config", "см. hg help config", "little_russian"),
        ("a b c d e", "", "", "untranslated"),
    ],
)
def test_markup_goes_and_what_is_no_prose_says_why(english: str, russian: str, text: str, reason: str) -> None:
    found = mercurial.message(english, russian, "", "")
    assert (found.text, found.reason) == (text, reason)


def test_sentences_are_split_only_where_both_languages_have_as_many() -> None:
    english = "The first sentence is here. The second one follows it and is long enough to stand alone."
    both = mercurial.message(english, "Здесь стоит первое предложение. За ним идёт второе, и оно длинное.", "", "")
    assert both.sections[1:] == [("opening", "Здесь стоит первое предложение."), ("rest", english.split(". ", 1)[1])]
    assert len(mercurial.message(english, "Здесь стоит первое предложение, за ним идёт второе.", "", "").sections) == 1


def test_sections_of_legal_guides() -> None:
    found = list(legal.read((), "sources.law"))
    documents = kept(found)
    assert len(documents) > 600 and len([document for document in documents if document.title]) > 300
    assert len({document.label for document in documents}) > 12
    assert all(document.group.startswith(f"{document.label}/") for document in documents)
    titles = Counter(document.title for document in documents if document.title)
    assert titles.most_common(1)[0][1] <= 2
    assert not [document.text for document in documents if "**" in document.text or "`" in document.text or len(document.text) > 1500]


@pytest.mark.parametrize(
    ("guide", "heading", "guides", "title"),
    [
        ("/review", "Шаг 2. Сроки обжалования и их восстановление", 1, "Сроки обжалования и их восстановление"),
        ("Исковая давность", "3.1. Начало течения срока", 1, "Исковая давность: Начало течения срока"),
        ("/review", "После утверждения", 1, ""),
        ("/review", "Сроки обжалования и их восстановление", 2, ""),
        ("/review", "Recommended next steps для юриста", 1, ""),
    ],
)
def test_headings_that_say_enough_are_titles(guide: str, heading: str, guides: int, title: str) -> None:
    text = "- [ ] **Срок** подачи жалобы составляет десять дней `[проверить по первоисточнику]`. " * 4
    found = legal.section("tax-law", "tax-law/x", guide, heading, text, guides)
    assert (found.title, found.reason, found.label) == (title, "", "tax-law")
    assert found.text.startswith("Срок подачи жалобы составляет десять дней .") and "проверить" not in found.text


def test_operations_of_cloud_services() -> None:
    services = ("s3", "kms", "mturk")
    found = list(cloud.read(services, "sources.cloud"))
    documents = kept(found)
    assert {document.label for document in documents} == set(services)
    assert min(Counter(document.label for document in documents).values()) > 20
    assert not [document.text for document in documents if "<p>" in document.text or "&lt;" in document.text]
    assert not [document.text for document in documents if re.search(r"(?:^|\. )For more information", document.text)]
    groups: dict[str, set[str]] = {}
    for document in documents:
        groups.setdefault(document.group, set()).add(document.label)
    assert all(len(labels) == 1 for labels in groups.values()) and len(groups) > 60


def test_markup_of_an_operation_becomes_sentences() -> None:
    markup = "<p>Deletes a <a>queue</a>, e.g. this &amp; that. It is gone .</p><ul><li><p>One item</p></li><li>Another</li></ul>"
    assert cloud.sentences(markup) == ["Deletes a queue, e.g. this & that.", "It is gone.", "One item", "Another"]


def test_operations_on_one_thing_share_the_group() -> None:
    told = ["Does something to a queue.", "For more information, see the guide.", "It takes a while before it is seen everywhere. " * 3]
    found = [cloud.operation("sqs", name, told) for name in ("CreateQueue", "ListQueues", "BatchDeleteQueue", "SendMessage")]
    assert [document.group for document in found] == ["sqs queue", "sqs queue", "sqs queue", "sqs message"]
    assert not [document for document in found if "more information" in document.text or document.reason]


def test_unknown_service_is_named() -> None:
    with pytest.raises(InputError, match=r"sources\.cloud\.services: package botocore knows no service 'no_such'"):
        list(cloud.read(("no_such",), "sources.cloud"))


def test_names_of_diseases() -> None:
    found = list(diseases.read((), "sources.diseases"))
    documents = kept(found)
    assert len(documents) > 7000 and len({document.group for document in documents}) > 150
    blocks: dict[str, set[str]] = {}
    for document in documents:
        blocks.setdefault(document.label, set()).add(document.group)
    assert all(len(groups) == 1 for groups in blocks.values()), "a category stands in one block"
    assert not [document.label for document in documents if document.label[0] in "STVWXYZ"]
    assert {"sends_on", "repeats_description"} <= {document.reason for document in found}


@pytest.mark.parametrize(
    ("name", "description", "text", "reason"),
    [
        ("Purulent meningitis NOS", "Bacterial meningitis, unspecified", "Purulent meningitis", ""),
        ("Embolism of the lung (I26.-)", "Pulmonary embolism", "Embolism of the lung", ""),
        ("Conditions classifiable to H90-H91", "Family history of deafness", "Conditions classifiable to H90-H91", "sends_on"),
        ("Meningitis due to other bacteria", "Other bacteria meningitis", "Meningitis due to other bacteria", "repeats_description"),
    ],
)
def test_terms_that_teach_nothing_say_why(name: str, description: str, text: str, reason: str) -> None:
    found = diseases.term(diseases.clean(name), diseases.clean(description), "G00", "G00-G09")
    assert (found.text, found.reason) == (text, reason)


def test_names_of_the_lists() -> None:
    documents = kept(list(names.read((), "sources.names")))
    assert len(documents) > 3000
    assert {document.label for document in documents} == {"country", "subdivision", "currency", "language", "script"}
    assert ("Норвегия", "Norway") in {(document.text, document.sections[0][1]) for document in documents}
