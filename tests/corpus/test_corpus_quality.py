from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raysberta.corpus import quality
from raysberta.corpus.quality import measure, rules_of
from raysberta.corpus.settings import Corpus, QualityRules
from raysberta.corpus.tokens import measure_words, tokens

RULES = Corpus().quality_rules
ENGLISH, RUSSIAN = RULES["en"], RULES["ru"]
assert ENGLISH is not None
assert RUSSIAN is not None


def judge(text: str, language: str) -> tuple[str, float] | None:
    limits = RULES[language]
    assert limits is not None
    (verdict,) = quality.judge([text], limits)
    return verdict


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "quality_empty"),
        ("  \n \n", "quality_empty"),
        ("One short line of text.", "quality_words"),
        ("\n".join([ENGLISH_PAGE.split("\n")[0]] * 6), "repetition_lines"),
        (ENGLISH_PAGE + " buy now" * 30, "repetition_top_ngram"),
        (ENGLISH_PAGE + " " + " ".join(ENGLISH_PAGE.split()[:40]), "repetition_ngrams"),
        ("\n".join(f"- {line}" for line in ENGLISH_PAGE.split("\n")), "quality_bullets"),
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


@pytest.mark.parametrize("text", ["!!! ... ??? !!!", "a", "—", "#" * 500, "слово", "\n\n\nx\n\n\n", "🙂 🙂", "\u2028", "\x85x", "x\ud7ffy"])
def test_no_rule_breaks_on_odd_texts(text: str) -> None:
    for language in ("en", "ru"):
        verdict = judge(text, language)
        assert verdict is not None
        assert isinstance(verdict[1], float)


def test_word_length_counts_words_and_not_marks() -> None:
    (value,) = measure(["сверхдлинноеслово, и ещё: раз — два!"], ENGLISH)["word_length"]
    assert value == (17 + 1 + 3 + 3 + 3) / 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("...", ["..."]),
        ("Hello, (world)... it's", ["Hello", ",", "(", "world", ")", "...", "it's"]),
        ("«Привет», мир.", ["«", "Привет", "»", ",", "мир", "."]),
        ("well-known a/b x=y 3.14 1,5", ["well", "-", "known", "a", "/", "b", "x", "=", "y", "3.14", "1,5"]),
        ("http://a.b/c-d, php.net", ["http://a.b/c-d", ",", "php.net"]),
        ("кое-что — 5%", ["кое", "-", "что", "—", "5%"]),
        ("日本 𠀀🙂", ["日本", "𠀀🙂"]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


TEXTS = st.lists(
    st.sampled_from(["а", "b", "в-г", "d,", "(е)", "...", "1", "и", "the", "\n", "\n\n", "- x", "• y…", "конец."]), max_size=60
).map(" ".join)


def repeated_characters(words: list[str], size: int) -> int:
    """Gopher's duplicate n-grams, as the paper's readers compute them: greedily from the left."""
    seen: set[tuple[str, ...]] = set()
    found = at = 0
    while at <= len(words) - size:
        gram = tuple(words[at : at + size])
        if gram in seen:
            found += sum(map(len, gram))
            at += size
        else:
            seen.add(gram)
            at += 1
    return found


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_measures_against_plain_definitions(texts: list[str]) -> None:
    measures = measure(texts, ENGLISH)
    for row, text in enumerate(text.strip() for text in texts):
        words, lines = tokens(text), text.split("\n")
        assert "".join(words) == "".join(text.split())
        assert measures["tokens"][row] == len(words)
        if not words:
            continue
        for size in (2, 3, 4):
            grams = [" ".join(words[at : at + size]) for at in range(len(words) - size + 1)]
            top = max(Counter(grams).items(), key=lambda item: item[1]) if grams else ("", 0)
            assert measures[f"top_{size}_gram"][row] == len(top[0]) * top[1] / len(text)
        for size in range(5, 11):
            assert measures[f"duplicate_{size}_grams"][row] == repeated_characters(words, size) / len(text)
        filled = [line for line in lines if line]
        solid = [line for line in lines if line.strip()]
        assert measures["bullet_lines"][row] == sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines)
        assert measures["ellipsis_lines"][row] == sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines)
        assert measures["punctuated_lines"][row] == sum(line.endswith((".", "?", "!")) for line in solid) / len(solid)
        assert measures["short_lines"][row] == sum(len(line) <= 30 for line in solid) / len(solid)
        assert measures["duplicate_lines"][row] == (len(filled) - len(set(filled))) / len(filled)
        assert measures["stop_words"][row] == len({"the"}.intersection(words))


def test_batches_do_not_change_measures() -> None:
    texts = [ENGLISH_PAGE, "", RUSSIAN_PAGE, "x", ENGLISH_PAGE * 3]
    whole = measure(texts, ENGLISH)
    for row, text in enumerate(texts):
        for name, values in measure([text], ENGLISH).items():
            np.testing.assert_equal(values[0], whole[name][row], name)


def test_sliced_columns_are_read_at_their_offset() -> None:
    column = pa.chunked_array([pa.array(["x" * 50, ENGLISH_PAGE, RUSSIAN_PAGE])]).slice(1)
    assert quality.judge(column.to_pylist(), ENGLISH)[0] is None
    assert measure_words.nopython_signatures


def test_presets_and_single_limits() -> None:
    assert RUSSIAN.min_punctuated_lines == 0.231
    assert RUSSIAN.duplicate_paragraphs is None
    corpus = Corpus.model_validate({"quality_rules": {"ru": {"min_words": 7}, "de": {"preset": "fineweb2_rus_cyrl"}}})
    assert corpus.quality_rules["ru"] == RUSSIAN.model_copy(update={"min_words": 7})
    assert corpus.quality_rules["en"] == ENGLISH
    assert corpus.quality_rules["de"] == RUSSIAN
    assert Corpus.model_validate({"quality_rules": {"ru": None}}).quality_rules["ru"] is None
    with pytest.raises(ValidationError, match="preset"):
        Corpus.model_validate({"quality_rules": {"ru": {"preset": "nothing"}}})
    assert "quality_words" in {rule.reason for rule in rules_of(QualityRules())}
    assert "quality_bullets" not in {rule.reason for rule in rules_of(QualityRules(max_bullet_lines=None))}
