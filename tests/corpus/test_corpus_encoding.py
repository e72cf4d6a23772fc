import pytest

from raysberta.corpus.encoding import CYRILLIC_ENCODINGS, decode_page, decode_text, repair, russian_score
from raysberta.corpus.stream import Unreadable

RUSSIAN = (
    "Весной вода поднимается до самых окон, и лодки плывут прямо по улицам старого города.",
    "Ёжик нашёл подъезд и съел ещё одно яблоко.",
    "ЗАГОЛОВОК БОЛЬШИМИ БУКВАМИ",
    "Функция array_map() возвращает массив, см. раздел 5.1.",
    "Москва",
)
OTHERS = (
    "L'été à la plage: déjà vu, où êtes-vous, garçon? Ça va être génial, naïve façade.",
    "Größe, Übung, Straße, schön, Mädchen, Äpfel und Öl kosten 5 €.",
    "El niño comió piñas; ¿qué pasó después? ¡Adiós!",
    "Łódź, żółć, gęś, ćma, źdźbło",
    "Το γρήγορο καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "Це українська мова, її легко впізнати за літерами.",
    "plain ASCII only",
    "“quoted” — dash… «ёлка» № 5 °C",
    "СЁМГА, РЁБРА И ЁЖ",
    "µm ± 5 Ω",
    "日本語のテキストです。",
    "VIII. БРЕД.",
    "fiber.sleep(ВРЕМЯ)",
    "[1] => ГОЛУБОЙ",
    "* тег",
    "MsgPack-тип |nbsp|",
    "РАО «ЕЭС», С.-Петербург, С©, В В С — …",
)


@pytest.mark.parametrize("encoding", CYRILLIC_ENCODINGS)
@pytest.mark.parametrize("text", [text for text in RUSSIAN if "Ё" not in text])
def test_undeclared_cyrillic_encodings(encoding: str, text: str) -> None:
    data = text.encode(encoding)
    assert decode_text(data) == text
    assert text in decode_page(f"<html><body><p>{text}</p></body></html>".encode(encoding))


@pytest.mark.parametrize("encoding", ["windows-1251", "koi8-r"])
def test_wrong_declaration_is_not_believed(encoding: str) -> None:
    for declared in ("utf-8", "windows-1252", "koi8-r", "windows-1251"):
        html = f'<html><head><meta charset="{declared}"></head><body><p>{RUSSIAN[0]}</p></body></html>'
        assert RUSSIAN[0] in decode_page(html.encode(encoding))


@pytest.mark.parametrize(("text", "encoding"), [(OTHERS[0], "windows-1252"), (OTHERS[1], "windows-1252"), (OTHERS[2], "windows-1252")])
def test_western_pages_stay_western(text: str, encoding: str) -> None:
    html = f'<html><head><meta charset="{encoding}"></head><body><p>{text}</p></body></html>'
    assert text in decode_page(html.encode(encoding))


def test_greek_page_as_declared() -> None:
    html = f'<html><head><meta charset="windows-1253"></head><body><p>{OTHERS[4]}</p></body></html>'
    assert OTHERS[4] in decode_page(html.encode("windows-1253"))


@pytest.mark.parametrize("text", RUSSIAN)
@pytest.mark.parametrize(
    ("meant", "read"),
    [
        ("utf-8", "cp1252"),
        ("utf-8", "latin-1"),
        ("utf-8", "cp1251"),
        ("utf-8", "cp866"),
        ("utf-8", "koi8-r"),
        ("cp1251", "cp1252"),
        ("koi8-r", "cp1251"),
        ("cp1251", "koi8-r"),
    ],
)
def test_mojibake_is_undone(text: str, meant: str, read: str) -> None:
    if text.isupper() and "utf-8" not in (meant, read) and "cp1252" not in (meant, read):
        pytest.skip("a heading in capitals looks as unlikely as what it was taken for")
    data = text.encode(meant)
    broken = "".join(bytes([byte]).decode(read, "replace").replace("\ufffd", chr(byte)) for byte in data)
    assert broken != text
    assert repair(broken) == text
    if {meant, read} == {"koi8-r", "cp1251"}:
        return  # these are looked for in a text as a whole
    assert repair(f"A line of English.\n{broken}\nещё строка, и она цела") == f"A line of English.\n{text}\nещё строка, и она цела"


def test_mojibake_of_mojibake() -> None:
    twice = RUSSIAN[0].encode().decode("latin-1").encode().decode("latin-1")
    assert repair(twice) == RUSSIAN[0]


def test_western_mojibake() -> None:
    assert repair("CafÃ© Ã\xa0 la crÃ¨me") == "Café à la crème"
    assert repair("â€œquotedâ€\x9d") == "“quoted”"


@pytest.mark.parametrize("text", [*RUSSIAN, *OTHERS])
def test_sound_text_is_left_alone(text: str) -> None:
    assert repair(text) == text
    assert repair(f"{text}\n{OTHERS[0]}") == f"{text}\n{OTHERS[0]}"


def test_score_tells_russian_from_noise() -> None:
    assert russian_score(RUSSIAN[0]) > -3.3
    assert russian_score(RUSSIAN[0].encode("koi8-r").decode("cp1251")) < -4
    assert russian_score("да") == float("-inf")


@pytest.mark.parametrize("data", [b"text\0text", b"\x00"])
def test_nul_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match="NUL"):
        decode_page(data)
    with pytest.raises(Unreadable, match="NUL"):
        decode_text(data)
