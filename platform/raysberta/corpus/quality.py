"""The published quality rules for web text: FineWeb2's settings for Russian, Gopher and FineWeb for English.

Sources: Gopher (arXiv 2112.11446) quality and repetition rules, FineWeb (arXiv 2406.17557) line rules, FineWeb2 `rus_Cyrl` thresholds.
Each rule is a function of the text's parts that gives None, or a reason with the measured value. Lines are those that hold
something; empty lines between paragraphs count for no rule.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")
PARAGRAPHS = re.compile(r"\n{2,}")
ENDS = (".", "?", "!", "。", "؟", "！", "？", ";", ":", "…", '."', '!"', '?"', ".»", "!»", "?»", "»", '"', "”", ")")
BULLETS = ("•", "-", "*", "‣", "–", "—")
ELLIPSES = ("…", "...")

Verdict = tuple[str, float] | None


@dataclass(frozen=True)
class Thresholds:
    """All limits of one language; a limit above 1 of a share never drops anything."""

    min_words: int = 50
    max_words: int = 100_000
    min_word_length: float = 3.0
    max_word_length: float = 10.0
    max_symbols: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    stop_words: frozenset[str] = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
    min_stop_words: int = 2
    duplicate_lines: float = 0.30
    duplicate_paragraphs: float = 0.30
    duplicate_line_characters: float = 0.20
    duplicate_paragraph_characters: float = 0.20
    top_ngrams: dict[int, float] = field(default_factory=lambda: {2: 0.20, 3: 0.18, 4: 0.16})
    duplicate_ngrams: dict[int, float] = field(default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10})
    min_punctuated_lines: float = 0.12
    max_short_lines: float = 0.67
    short_line: int = 30
    max_repeated_line_characters: float = 0.01
    max_breaks_per_word: float = 0.3


ENGLISH = Thresholds()
RUSSIAN = Thresholds(
    min_word_length=3.0,
    max_word_length=11.0,
    min_alphabetic_words=0.713,
    stop_words=frozenset(
        (
            "в",
            "и",
            "на",
            "с",
            "года",
            "по",
            "году",
            "из",
            "был",
            "к",
            "не",
            "от",
            "что",
            "за",
            "для",
            "его",
            "как",
            "а",
            "он",
            "также",
            "до",
            "после",
        )
    ),
    duplicate_lines=0.322,
    duplicate_paragraphs=2.0,
    duplicate_line_characters=2.0,
    duplicate_paragraph_characters=2.0,
    top_ngrams={2: 0.184, 3: 0.164, 4: 0.146},
    duplicate_ngrams={5: 0.168, 6: 0.156, 7: 0.145, 8: 0.133, 9: 0.121, 10: 0.109},
    min_punctuated_lines=0.231,
    max_short_lines=2.0,
    max_repeated_line_characters=0.1,
    max_breaks_per_word=0.139,
)
THRESHOLDS = {"ru": RUSSIAN, "en": ENGLISH}


@dataclass(frozen=True)
class Parts:
    """A text taken apart once, for all rules."""

    text: str
    words: Sequence[str]
    """Words and single punctuation marks."""
    lines: Sequence[str]
    paragraphs: Sequence[str]

    @classmethod
    def of(cls, text: str) -> "Parts":
        """Take a text apart."""
        text = text.strip()
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        return cls(text, WORD.findall(text), lines, PARAGRAPHS.split(text) if text else [])


def judge(text: str, language: str) -> Verdict:
    """The first rule that the text breaks, in the order of RULES. None where it breaks none, or the language has no rules."""
    limits = THRESHOLDS.get(language)
    if limits is None:
        return None
    parts = Parts.of(text)
    if not parts.words:
        return "quality_empty", 0.0
    for rule in RULES:
        verdict = rule(parts, limits)
        if verdict is not None:
            return verdict
    return None


def word_count(parts: Parts, limits: Thresholds) -> Verdict:
    """Words that are no punctuation, within bounds."""
    count = len(_proper(parts))
    return None if limits.min_words <= count <= limits.max_words else ("quality_words", float(count))


def word_length(parts: Parts, limits: Thresholds) -> Verdict:
    """Mean length of the words."""
    proper = _proper(parts)
    mean = sum(map(len, proper)) / max(1, len(proper))
    return None if limits.min_word_length <= mean <= limits.max_word_length else ("quality_word_length", mean)


def symbols(parts: Parts, limits: Thresholds) -> Verdict:
    """Hash signs, and ellipses, per word."""
    for sign in (("#",), ELLIPSES):
        share = sum(parts.text.count(each) for each in sign) / len(parts.words)
        if share > limits.max_symbols:
            return "quality_symbols", share
    return None


def bullets(parts: Parts, limits: Thresholds) -> Verdict:
    """Lines that start as list items."""
    share = sum(line.startswith(BULLETS) for line in parts.lines) / len(parts.lines)
    return ("quality_bullets", share) if share > limits.max_bullet_lines else None


def ellipsis_lines(parts: Parts, limits: Thresholds) -> Verdict:
    """Lines cut off by an ellipsis."""
    share = sum(line.endswith(ELLIPSES) for line in parts.lines) / len(parts.lines)
    return ("quality_ellipses", share) if share > limits.max_ellipsis_lines else None


def alphabetic(parts: Parts, limits: Thresholds) -> Verdict:
    """Words and marks that hold a letter."""
    share = sum(any(map(str.isalpha, word)) for word in parts.words) / len(parts.words)
    return ("quality_alphabetic", share) if share < limits.min_alphabetic_words else None


def stop_words(parts: Parts, limits: Thresholds) -> Verdict:
    """Different stop words: running text has them, lists of keywords do not."""
    count = len(limits.stop_words.intersection(parts.words))
    return ("quality_stop_words", float(count)) if count < limits.min_stop_words else None


def repeated_lines(parts: Parts, limits: Thresholds) -> Verdict:
    """Lines and paragraphs that occur before, by number and by characters."""
    checks = (
        (parts.paragraphs, limits.duplicate_paragraphs, limits.duplicate_paragraph_characters),
        (parts.lines, limits.duplicate_lines, limits.duplicate_line_characters),
    )
    for pieces, by_number, by_characters in checks:
        count, characters = _duplicates(pieces)
        if count / len(pieces) > by_number:
            return "repetition_lines", count / len(pieces)
        if characters / len(parts.text) > by_characters:
            return "repetition_lines", characters / len(parts.text)
    return None


def top_ngrams(parts: Parts, limits: Thresholds) -> Verdict:
    """Share of the characters that the most frequent n-gram takes, n = 2 to 4."""
    for size, limit in limits.top_ngrams.items():
        grams = [" ".join(parts.words[at : at + size]) for at in range(len(parts.words) - size + 1)]
        if not grams:
            continue
        gram, count = max(Counter(grams).items(), key=lambda item: item[1])
        share = len(gram) * count / len(parts.text)
        if share > limit:
            return "repetition_top_ngram", share
    return None


def repeated_ngrams(parts: Parts, limits: Thresholds) -> Verdict:
    """Share of the characters that lie in n-grams which occur before, n = 5 to 10, none counted twice."""
    words = parts.words
    for size, limit in limits.duplicate_ngrams.items():
        seen: set[str] = set()
        characters = at = 0
        while at < len(words) - size + 1:
            gram = "".join(words[at : at + size])
            if gram in seen:
                characters += len(gram)
                at += size
            else:
                seen.add(gram)
                at += 1
        if characters / len(parts.text) > limit:
            return "repetition_ngrams", characters / len(parts.text)
    return None


def punctuated_lines(parts: Parts, limits: Thresholds) -> Verdict:
    """Lines that end as sentences do."""
    share = sum(line.endswith(ENDS) for line in parts.lines) / len(parts.lines)
    return ("quality_unpunctuated", share) if share < limits.min_punctuated_lines else None


def short_lines(parts: Parts, limits: Thresholds) -> Verdict:
    """Lines of at most 30 characters."""
    share = sum(len(line) <= limits.short_line for line in parts.lines) / len(parts.lines)
    return ("quality_short_lines", share) if share > limits.max_short_lines else None


def repeated_line_characters(parts: Parts, limits: Thresholds) -> Verdict:
    """Characters in lines that occur before."""
    share = _duplicates(parts.lines)[1] / sum(map(len, parts.lines))
    return ("repetition_line_characters", share) if share > limits.max_repeated_line_characters else None


def line_breaks(parts: Parts, limits: Thresholds) -> Verdict:
    """Line breaks per word: lists have many."""
    share = (len(parts.lines) - 1) / len(parts.words)
    return ("quality_line_breaks", share) if share > limits.max_breaks_per_word else None


RULES: tuple[Callable[[Parts, Thresholds], Verdict], ...] = (
    word_count,
    repeated_lines,
    top_ngrams,
    repeated_ngrams,
    word_length,
    symbols,
    bullets,
    ellipsis_lines,
    alphabetic,
    stop_words,
    punctuated_lines,
    short_lines,
    repeated_line_characters,
    line_breaks,
)
"""In FineWeb's order, but for the number of words, which says more of a short text. All may assume at least one word."""


def _proper(parts: Parts) -> list[str]:
    return [word for word in parts.words if any(map(str.isalnum, word))]


def _duplicates(pieces: Sequence[str]) -> tuple[int, int]:
    """How many pieces occur before, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for piece in pieces:
        if piece in seen:
            count += 1
            characters += len(piece)
        seen.add(piece)
    return count, characters
