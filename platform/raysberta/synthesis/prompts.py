"""What the writers are asked, and which of their answers are of use.

Small instruction-tuned models follow examples better than instructions, so each prompt shows three and says little. What they
write is cleaned (preambles, labels, quotes, all after the first sentence), then judged; every refusal has a reason.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from raysberta.pairs.text import cut, normalise

Asked = Literal["query", "paraphrase"]
Message = dict[str, str]


class Example(NamedTuple):
    """One passage with what is to be written for it."""

    title: str
    passage: str
    query: str
    paraphrase: str


SYSTEM: Mapping[str, Mapping[Asked, str]] = {
    "en": {
        "query": "You ask one question that the text answers.",
        "paraphrase": "You rewrite a text in one short sentence, in other words.",
    },
    "ru": {
        "query": "Ты задаёшь один вопрос, на который отвечает текст.",
        "paraphrase": "Ты пересказываешь текст одним коротким предложением, другими словами.",
    },
}
EXAMPLES: Mapping[str, Sequence[Example]] = {
    "en": (
        Example(
            "Mode of the data",
            "The value that occurs most often. Where several values are equally common, all of them are returned in rising order.",
            "How to find the most frequent value in data?",
            "Gives the most frequent value, or all such values, sorted, if there is a tie.",
        ),
        Example(
            "Read a file line by line",
            "Opens the file lazily, so a file that is larger than the memory can be read. A missing file raises an error.",
            "How can I read a file that does not fit in memory?",
            "Files too big for memory can be processed one line at a time; it fails if there is no such file.",
        ),
        Example(
            "Fog",
            "Water vapour that cools near the ground condenses into tiny drops, which hang in the air and limit the view to a kilometre.",
            "Why does fog form near the ground?",
            "Fog is a cloud at ground level made of small water drops, in which one cannot see far.",
        ),
    ),
    "ru": (
        Example(
            "Туман",
            "Водяной пар, остывая у земли, собирается в мельчайшие капли; они висят в воздухе и ограничивают видимость километром.",
            "Почему у земли появляется туман?",
            "Туман — это облако из мелких капель у самой земли, в котором плохо видно.",
        ),
        Example(
            "Чтение файла по строкам",
            "Файл открывается постепенно, поэтому можно прочитать и тот, что больше памяти. Если файла нет, возникает ошибка.",
            "Как прочитать файл, который не помещается в память?",
            "Слишком большой файл обрабатывают строка за строкой; без файла программа сообщит об ошибке.",
        ),
        Example(
            "Мода ряда",
            "Значение, которое встречается чаще всего. Если таких значений несколько, возвращаются все по возрастанию.",
            "Как найти самое частое значение в данных?",
            "Выдаёт наиболее частое значение, а при равенстве — все такие значения по порядку.",
        ),
    ),
}

PREAMBLE = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|конечно)[,.!]*\s+"
    r"|(?:here(?:'s| is| are)|вот)\b[^:\n]{0,80}:\s*"
    r"|(?:the )?(?:rewritten |search |possible |перефразированный )?"
    r"(?:question|query|answer|paraphrase|rewrite|text|sentence|summary|in other words|вопрос|ответ|запрос|текст|пересказ)(?: is)?\s*:\s*"
    r"|(?:[-*•]|\d{1,2}[.)])\s+)",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    r"\bi['’]?(?:m| am) (?:sorry|unable|not able|a helpful|an ai|here to)|\bi (?:can(?:no|')t|cannot|do(?:n't| not) have)\b"
    r"|\bas an ai\b|language model|\bsmollm\b|к сожалению|извините|я не могу|языковая модель",
    re.IGNORECASE,
)
QUOTES = "\"'`«»“”„*_ "
SENTENCE_MARKS = ".!?…。"
QUESTION_WORDS = frozenset(
    (
        *("how", "what", "why", "when", "where", "which", "who", "whose", "whom", "can", "could", "is", "are", "was", "were"),
        *("does", "do", "did", "should", "would", "will"),
        *("как", "что", "почему", "зачем", "когда", "где", "куда", "откуда", "какой", "какая", "какое", "какие", "каким"),
        *("чем", "кто", "кого", "чей", "сколько", "ли", "можно"),
    )
)
MIN_CHARACTERS, MIN_WORDS = 12, 3
MAX_QUERY_CHARACTERS = 200
COPIED_SHARE = 0.7
COPIED_RUN = 4
EXAMPLE_OVERLAP = 0.6


def messages(asked: Asked, language: str, title: str, passage: str) -> list[Message]:
    """The chat that asks for a query or a paraphrase; in a language without examples here, an instruction that names it."""
    text = f"{title}\n{passage}" if title and not passage.startswith(title) else passage
    if language not in SYSTEM:
        return [
            {"role": "system", "content": f"{SYSTEM['en'][asked]} Write in the language {language!r}."},
            {"role": "user", "content": text},
        ]
    chat = [{"role": "system", "content": SYSTEM[language][asked]}]
    for example in EXAMPLES[language]:
        chat.append({"role": "user", "content": f"{example.title}\n{example.passage}"})
        chat.append({"role": "assistant", "content": getattr(example, asked)})
    return [*chat, {"role": "user", "content": text}]


def clean(asked: Asked, output: str) -> str:
    """The answer without what is said around it: the first question or sentence of its first line; "" where nothing is left."""
    for line in output.strip().splitlines():
        text = line.strip()
        while True:
            shorter = PREAMBLE.sub("", text).strip(QUOTES)
            if shorter == text:
                break
            text = shorter
        if text:
            return " ".join((_first_question(text) if asked == "query" else _first_sentence(text)).split())
    return ""


def _first_question(text: str) -> str:
    end = text.find("?")
    return text[: end + 1] if end >= 0 else text


def _first_sentence(text: str) -> str:
    """What a small model adds after its first sentence is mostly invented."""
    return re.split(r"(?<=[.!?…])\s+(?=[A-ZА-ЯЁ])", text, maxsplit=1)[0]


def judge(asked: Asked, text: str, title: str, passage: str) -> tuple[str, str]:
    """What is wrong with a cleaned answer, and the answer as it may be used (a last unfinished sentence is cut off).

    Returns:
        The reason, "" where it is good, and the text. Reasons: empty, refusal, repetitive, cut_off, no_question, too_short, too_long,
        wrong_language (another script than the passage's), copied_example, copied_title, copied_passage.
    """
    if not text:
        return "empty", text
    if REFUSAL.search(text):
        return "refusal", text
    if _repetitive(text):
        return "repetitive", text
    if asked == "paraphrase" and text[-1] not in SENTENCE_MARKS:
        text = cut(text, len(text) - 1)
        if text[-1:] not in SENTENCE_MARKS:
            return "cut_off", text
    if asked == "query" and not text.endswith("?") and normalise(text).split()[0] not in QUESTION_WORDS:
        return "no_question", text
    return _compared(asked, text, title, passage), text


def _compared(asked: Asked, text: str, title: str, passage: str) -> str:
    if len(text) < MIN_CHARACTERS or len(text.split()) < MIN_WORDS:
        return "too_short"
    if len(text) > (MAX_QUERY_CHARACTERS if asked == "query" else max(MAX_QUERY_CHARACTERS, 1.5 * len(passage))):
        return "too_long"
    if _script(text) != _script(passage):
        return "wrong_language"
    if any(_overlap(text, said) >= EXAMPLE_OVERLAP for examples in EXAMPLES.values() for example in examples for said in example[2:]):
        return "copied_example"
    if _words(text) == _words(title):
        return "copied_title"
    return "copied_passage" if _copied(text, passage) else ""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", normalise(text))


def _overlap(text: str, other: str) -> float:
    """Jaccard similarity of the sets of words."""
    left, right = set(_words(text)), set(_words(other))
    return len(left & right) / max(1, len(left | right))


def _copied(text: str, passage: str) -> bool:
    """Whether most of the text's runs of words stand in the passage as they are."""
    words, source = _words(text), _words(passage)
    length = min(COPIED_RUN, len(words))
    if not length:
        return False
    there = {tuple(source[start : start + length]) for start in range(len(source) - length + 1)}
    runs = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return sum(run in there for run in runs) > COPIED_SHARE * len(runs)


def _repetitive(text: str) -> bool:
    """A run of three words three times, or hardly any word that is not a repeat."""
    words = _words(text)
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    return bool(runs) and (runs.most_common(1)[0][1] >= 3 or len(set(words)) < 0.4 * len(words))


def _script(text: str) -> str:
    """The script of most letters: LATIN, CYRILLIC, ..."""
    scripts = Counter(unicodedata.name(letter, "NONE").split()[0] for letter in text if letter.isalpha())
    return scripts.most_common(1)[0][0] if scripts else ""
