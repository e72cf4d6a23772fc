import pytest

from raysberta.corpus.extract import extract
from raysberta.corpus.markdown import read_markdown
from raysberta.corpus.stream import Unreadable

PARAGRAPH = "Весной вода поднимается до самых окон, и лодки плывут прямо по улицам старого города."


@pytest.mark.parametrize(
    ("head", "body", "title"),
    [
        ("<title>Разлив реки | Городской сайт</title>", f"<p>{PARAGRAPH}</p>", "Разлив реки"),
        ("<title>Разлив реки — Сайт</title>", f"<h1>Разлив реки</h1><p>{PARAGRAPH}</p>", "Разлив реки"),
        ("", f"<h1>Разлив <em>реки</em></h1><p>{PARAGRAPH}</p>", "Разлив реки"),
        ("", f"<h2>Разлив</h2><p>{PARAGRAPH}</p>", "Разлив"),
        ("", f"<p>{PARAGRAPH}</p>", ""),
        ("<title></title>", "", ""),
    ],
)
def test_titles(head: str, body: str, title: str) -> None:
    assert extract(f"<html><head>{head}</head><body>{body}</body></html>").title == title


def test_sections_and_entities() -> None:
    page = extract(
        f"<body><script>var x;</script><h1>A &amp; B</h1><p>{PARAGRAPH}</p><p>1 &lt; 2, это верно всегда и везде.</p>"
        f"<h2>Пусто</h2><h2>Дальше</h2><p>{PARAGRAPH}</p></body>"
    )
    assert page.sections == [("A & B", f"{PARAGRAPH}\n\n1 < 2, это верно всегда и везде."), ("Дальше", PARAGRAPH)]
    assert "var x" not in page.text
    assert "A & B" in page.text


@pytest.mark.parametrize("html", ["", "<", "<p", "</html>", "<!-- -->", "<body></body>", "&#0;&#xD800;"])
def test_broken_pages_give_something(html: str) -> None:
    page = extract(html)
    assert isinstance(page.text, str)
    assert page.sections == []


def test_depth_is_limited() -> None:
    assert extract("<div>" * 1000 + PARAGRAPH + "</div>" * 1000).text == PARAGRAPH
    with pytest.raises(Unreadable, match="deep"):
        extract("<div>" * 5000 + PARAGRAPH)


def test_markdown_headings_and_fences() -> None:
    page = read_markdown(
        "Вступление.\n\n# Заголовок #\n\nТекст **жирный** и `код`.\n\n~~~~\n# не заголовок\n```\n~~~~\n\n## Список\n- раз\n- два\n"
        "\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    assert page.title == "Заголовок"
    assert page.sections == [("Заголовок", "Текст жирный и код."), ("Список", "- раз\n- два\n\na b\n1 2")]
    assert page.text.startswith("Вступление.")
    assert "не заголовок" not in page.text


def test_markdown_without_anything() -> None:
    assert read_markdown("") == read_markdown("\n\n---\n\n")
    assert read_markdown("just text").text == "just text"


def test_what_readers_skip_is_left_out_and_the_whole_page_never() -> None:
    other = "Совсем другие слова, которых в самой статье нет и никогда не было, зато их любят внизу страницы."
    article = "".join(f"<p>{PARAGRAPH} Номер {number}.</p>" for number in range(6))
    html = (
        f"<html class='social'><body class=\"no-comments footer\"><div id='text'><h1>Разлив</h1>{article}</div>"
        f"<div class='x user-Comments y'><p>{other}</p></div><section id=\"promo_1\"><p>{other}</p></section></body></html>"
    )
    page = extract(html)
    assert page.text.count(PARAGRAPH) == 6
    assert other not in page.text
    assert page.title == "Разлив"
    everything = extract(f"<html><body><div class='author'>{article}</div></body></html>")
    assert everything.text.count(PARAGRAPH) == 6


def test_page_that_the_rules_empty_gives_its_paragraphs() -> None:
    article = "".join(f"<p>{PARAGRAPH} Номер {number}.</p>" for number in range(6))
    page = extract(f"<html><body><div class='site-header header'><div class='a'>{article}</div></div></body></html>")
    assert page.text.count(PARAGRAPH) == 6


@pytest.mark.parametrize("html", ["<div class=", "<div class='", '<div id="comment', "<div class='a' id=\"comment\"", "=" * 50, "<" * 50])
def test_scanning_stops_at_the_end(html: str) -> None:
    assert isinstance(extract(html).text, str)
