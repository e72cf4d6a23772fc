import pytest

from raysberta.corpus.packaged import wiktionary
from raysberta.corpus.packaged.wiktionary import article


def test_article_without_markup() -> None:
    found = article(
        "медуза",
        "{{зоол.|ru}} [[беспозвоночный|беспозвоночное]] морское [[животное]] с прозрачным [[тело]]м ({{lang|la|Medusozoa}}) "
        "{{пример|Ушастую {{выдел|меду́зу}} легко узнать по куполу.|А. Автор|[[:s:Книга|Книга]]|1900|источник=НКРЯ}} {{пример|}}\n#",
    )
    assert found.title == "медуза"
    assert found.text == "беспозвоночное морское животное с прозрачным телом (Medusozoa)"
    assert found.label == "зоология"
    assert found.sections == [("usage", "Ушастую медузу легко узнать по куполу.")]
    assert (found.reason, found.language, found.group) == ("", "ru", "медуза")


def test_senses_of_one_headword_share_the_group() -> None:
    assert (
        article("ёж", "животное с колючками на спине, живёт в лесу").group
        == article("еж", "укрепление из скрещённых балок и рельсов").group
    )


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("{{=|нарвал}}; морское животное семейства дельфинов", "морское животное семейства дельфинов"),
        (
            "{{=|химическая завивка|[[завивка]], закрепляемая нанесением на волосы реактивов}}",
            "завивка, закрепляемая нанесением на волосы реактивов",
        ),
        ("{{сокр.||числовое программное управление}} {{пример|}}", "числовое программное управление"),
        ("{{помета|обычно {{мн}}}} государственное [[вложение]], инвестиция", "государственное вложение, инвестиция"),
        (
            "{{значение\n|определение=командная [[игра]] с мячом {{итп}}\n|пометы=[спорт.]\n|примеры={{пример|}}\n}}",
            "командная игра с мячом и т. п.",
        ),
        ("соль бромноватой кислоты НВrO<sub>3</sub><!-- 5 --> в виде порошка", "соль бромноватой кислоты НВrO3 в виде порошка"),
        ("истор. награда у римских легионеров; украшения[1] || другое", "награда у римских легионеров; украшения"),
        ("то же, что аватар; маленькое изображение, представляющее человека", "маленькое изображение, представляющее человека"),
    ],
)
def test_definitions(markup: str, text: str) -> None:
    assert article("слово", markup).text == text


@pytest.mark.parametrize(
    ("markup", "reason"),
    [
        ("мужское имя {{пример|Моего друга зовут {{выдел|Рубен}}.}}", "personal_name"),
        ("белорусская и польская фамилия", "personal_name"),
        ("{{минер.|ru}} вид минералов", "mineral"),
        ("[[река]] [[в]] [[России]]", "short_definition"),
        ("", "short_definition"),
        ("то же, что продовольственные продукты, продовольствие", "cross_reference"),
        ("прилагательное по значению сущ. атмосфера", "cross_reference"),
        ("результат такого действия; высокая степень", "cross_reference"),
        ("{{бран.|ru}} очень неприятный и опасный человек", "vulgar"),
    ],
)
def test_senses_that_teach_nothing_say_why(markup: str, reason: str) -> None:
    assert article("слово", markup).reason == reason


@pytest.mark.parametrize(
    "text", ["состояние нерешимости, сомнение, колебание", "мелкие листья на стебле растения", "требующий большого терпения"]
)
def test_innocent_words_are_not_taken_for_vulgar(text: str) -> None:
    assert article("слово", text).reason == ""


def test_unbalanced_markup_still_ends() -> None:
    assert "{{" not in article("слово", "нечто {{пример|без конца [[ссылка|и скобок " * 3).text


def test_package_gives_clean_definitions() -> None:
    parts = wiktionary.parts()
    found = list(wiktionary.read(parts[0], "sources.dictionary"))
    kept = [document for document in found if not document.reason]
    assert len(found) == pytest.approx(115_435 / len(parts), rel=0.01)
    assert 0.4 < len(kept) / len(found) < 0.7
    dirty = [document.text for document in kept if any(mark in document.text for mark in ("{{", "}}", "[[", "''", "<ref"))]
    assert len(dirty) <= len(kept) // 1000
    assert len({document.label for document in kept}) - 1 in range(10, 21)
    assert sum(bool(document.sections) for document in kept) > len(kept) // 3
