import pytest

from raysberta.synthesis.prompts import EXAMPLES, clean, judge, messages

TITLE = "Clip the values in an array."
PASSAGE = "Given an interval, values outside the interval are clipped to the interval edges. Slicing the array first is slower."


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("How to clip values?", "How to clip values?"),
        ('Sure! Here is a question: "How to clip values?"', "How to clip values?"),
        ("Here is the question that the passage answers:\n\nHow to clip values?", "How to clip values?"),
        ("Question: How to clip values? The result is an array.", "How to clip values?"),
        ("1. **How to clip values?**\n2. Another?", "How to clip values?"),
        ("Вопрос: «Как обрезать значения?»", "Как обрезать значения?"),
        ("How is it, here?", "How is it, here?"),
        ("  \n ", ""),
    ],
)
def test_what_is_said_around_a_question_goes(output: str, expected: str):
    assert clean("query", output) == expected


def test_of_a_paraphrase_the_first_sentence_stays():
    assert (
        clean("paraphrase", "Rewritten text: It limits values, e.g. to 0 and 1. It is fast. It can also fly.")
        == "It limits values, e.g. to 0 and 1."
    )


@pytest.mark.parametrize(
    ("asked", "text", "reason"),
    [
        ("query", "How can I limit the values of an array?", ""),
        ("query", "how to limit values of an array", ""),
        ("paraphrase", "Whatever lies beyond the bounds is replaced by the nearest bound.", ""),
        ("query", "", "empty"),
        ("query", "I'm sorry, I can't answer that.", "refusal"),
        ("paraphrase", "As an AI, I limit values.", "refusal"),
        ("query", "This function limits the values.", "no_question"),
        ("query", "How so?", "too_short"),
        ("query", "How " + "very " * 60 + "long?", "repetitive"),
        ("query", "How to " + " ".join(f"word{number}" for number in range(60)) + "?", "too_long"),
        ("query", "Как ограничить значения массива?", "wrong_language"),
        ("query", EXAMPLES["en"][1].query, "copied_example"),
        ("query", "How to find the most frequent value in some data?", "copied_example"),
        ("query", "clip the values in an array?", "copied_title"),
        ("paraphrase", "Clip the values in an array.", "copied_title"),
        ("paraphrase", "Given an interval, values outside the interval are clipped to the interval edges.", "copied_passage"),
        ("paraphrase", "Values beyond the bounds are replaced by the", "cut_off"),
    ],
)
def test_each_fault_has_its_reason(asked: str, text: str, reason: str):
    assert judge(asked, text, TITLE, PASSAGE)[0] == reason  # type: ignore[arg-type]


def test_an_unfinished_sentence_is_cut_off_where_a_whole_one_stands_before_it():
    reason, text = judge("paraphrase", "Whatever lies beyond the bounds becomes the bound. it is then ret", TITLE, PASSAGE)
    assert (reason, text) == ("", "Whatever lies beyond the bounds becomes the bound.")


def test_the_chat_shows_examples_and_ends_with_the_passage():
    for language in ("en", "ru"):
        chat = messages("query", language, TITLE, PASSAGE)
        assert [message["role"] for message in chat] == ["system", *["user", "assistant"] * 3, "user"]
        assert chat[-1]["content"] == f"{TITLE}\n{PASSAGE}"
        assert chat[2]["content"] == EXAMPLES[language][0].query
    assert messages("paraphrase", "en", "", PASSAGE)[2]["content"] == EXAMPLES["en"][0].paraphrase
    assert "'de'" in messages("query", "de", TITLE, PASSAGE)[0]["content"]


def test_the_examples_pass_their_own_judgement_but_for_being_examples():
    for examples in EXAMPLES.values():
        for example in examples:
            assert judge("query", example.query, example.title, example.passage)[0] == "copied_example"
            assert judge("paraphrase", example.paraphrase, example.title, example.passage)[0] == "copied_example"
