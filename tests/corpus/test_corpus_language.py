import pytest

from raysberta.corpus.language import identify

RUSSIAN = "Словарь объясняет значение каждого слова и показывает, как его употребляют в книгах."
ENGLISH = "The dictionary explains the meaning of every word and shows how books make use of it."
GERMAN = "Das Wörterbuch erklärt die Bedeutung jedes Wortes und zeigt, wie man es in Büchern gebraucht."


@pytest.mark.parametrize(
    ("text", "language"), [(RUSSIAN, "ru"), (ENGLISH, "en"), (ENGLISH.upper(), "en"), (f"{RUSSIAN}\n\n{RUSSIAN}", "ru")]
)
def test_long_texts_by_the_model(text: str, language: str) -> None:
    found, score = identify(text, ("ru", "en"), 40)
    assert found == language
    assert score > 0.65


def test_other_languages_score_low() -> None:
    found, score = identify(GERMAN, ("ru", "en"), 40)
    assert not found or score < 0.3


@pytest.mark.parametrize(
    ("text", "language"), [("ёж", "ru"), ("cat", "en"), ("Запустить", "ru"), ("файл README", "en"), ("猫", ""), ("123 !?", ""), ("", "")]
)
def test_short_texts_by_their_script(text: str, language: str) -> None:
    assert identify(text, ("ru", "en"), 40)[0] == language


def test_languages_of_one_script_are_told_apart_by_the_model() -> None:
    assert identify("Це українська мова, її легко впізнати", ("ru", "uk"), 100)[0] == "uk"
    assert identify("привет", ("en", "de"), 40) == ("", 1.0)
