import pytest

from raysberta.corpus.quality import ENGLISH, RULES, RUSSIAN, Parts, judge

ENGLISH_PAGE = "\n".join(
    [
        "The old mill stands at the end of the road, and the people of the village have always been proud of it.",
        "It was built by a merchant who wanted to grind his own grain, because the nearest mill lay two days away.",
        "Nobody knows when the great wheel stopped, yet the older neighbours still remember that its sound was heard at night.",
        "Today a small museum shows what the machines looked like, with drawings that a teacher made for her pupils.",
    ]
)
RUSSIAN_PAGE = "\n".join(
    [
        "Старая мельница стоит в конце дороги, и жители деревни всегда гордились тем, что она у них есть.",
        "Её построил купец, который не хотел возить зерно за два дня пути, а молоть его решил на своей земле.",
        "Никто не помнит, когда остановилось большое колесо, но старики говорят, что его шум был слышен до самого утра.",
        "Сегодня в доме мельника открыт маленький музей, где показывают чертежи, сделанные учителем для своих учеников.",
    ]
)

WORDS = ENGLISH_PAGE.replace(",", "").replace(".", "").split()
FIVE_WORDS_A_LINE = "\n".join(" ".join(WORDS[at : at + 5])[:29] + "." for at in range(0, len(WORDS), 5))


def test_good_pages_pass() -> None:
    assert judge(ENGLISH_PAGE, "en") is None
    assert judge(RUSSIAN_PAGE, "ru") is None


def test_stop_words_belong_to_the_language() -> None:
    assert judge(RUSSIAN_PAGE, "en") is not None
    assert judge(RUSSIAN_PAGE, "xx") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "quality_empty"),
        ("  \n \n", "quality_empty"),
        ("One short line of text.", "quality_words"),
        ("\n".join([ENGLISH_PAGE.split("\n")[0]] * 6), "repetition_lines"),
        (ENGLISH_PAGE + " buy now" * 30, "repetition_top_ngram"),
        (ENGLISH_PAGE + " " + " ".join(ENGLISH_PAGE.split()[:40]), "repetition_ngrams"),
        ("\n".join(f"- {line.rstrip('.')}" for line in ENGLISH_PAGE.split("\n")), "quality_bullets"),
        (ENGLISH_PAGE.replace(".", "..."), "quality_ellipses"),
        (ENGLISH_PAGE.replace(".", ""), "quality_unpunctuated"),
        (ENGLISH_PAGE.replace(" ", " 1234567 "), "quality_alphabetic"),
        (ENGLISH_PAGE.replace(", ", " # # # # # "), "quality_symbols"),
        (FIVE_WORDS_A_LINE, "quality_short_lines"),
    ],
)
def test_each_rule_catches_its_case(text: str, reason: str) -> None:
    verdict = judge(text, "en")
    assert verdict is not None
    assert verdict[0] == reason


@pytest.mark.parametrize("text", ["!!! ... ??? !!!", "a", "—", "#" * 500, "слово", "\n\n\nx\n\n\n", "🙂 🙂"])
def test_no_rule_breaks_on_odd_texts(text: str) -> None:
    for limits in (ENGLISH, RUSSIAN):
        parts = Parts.of(text)
        for rule in RULES:
            verdict = rule(parts, limits)
            assert verdict is None or isinstance(verdict[1], float)
    assert judge(text, "ru") is not None


def test_word_length_counts_words_and_not_marks() -> None:
    words = " ".join(["сверхдлинноесловобезпробела"] * 30 + RUSSIAN_PAGE.split())
    verdict = judge(words, "ru")
    assert verdict is not None
