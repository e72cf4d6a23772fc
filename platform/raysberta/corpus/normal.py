"""The form in which two texts count as the same: for keys only, never written back.

Lower case, NFC, no stress marks, punctuation and blanks as single spaces. Digits stay (5 is not 7), й and ё stay (йод is not иод,
все is not всё), and so do signs that carry meaning (C is not C++, x > y is not x < y, -5 is not 5).
"""

import re
import unicodedata

from raysberta.schema import text_id

STRESS = re.compile("[\u0300\u0301]")
WORD = re.compile(r"[^\s\"'`«»„“”‘’‚.,:;!?…()\[\]{}—–―·•_|\\]+")
HYPHENS = re.compile("-+")


def normalise(text: str) -> str:
    """The comparable form; "" for a text of punctuation alone."""
    return " ".join(words(text))


def words(text: str) -> list[str]:
    """Words of the comparable form."""
    composed = unicodedata.normalize("NFC", text.lower())
    if not composed.isascii():
        composed = STRESS.sub("", composed)
    if "-" in composed:
        composed = HYPHENS.sub(_hyphens, composed)
    return WORD.findall(composed)


def _hyphens(match: re.Match[str]) -> str:
    """A hyphen stays inside of a word and before a number; else it is a blank."""
    text, (start, end) = match.string, match.span()
    within = start > 0 and (text[start - 1].isalnum() or text[start - 1] == "_")
    following = text[end] if end < len(text) else " "
    if not within:
        return (" -" if end - start > 1 else "-") if following.isdecimal() else " "
    if not (following.isalnum() or following == "_"):
        return " "
    if end - start == 1:
        return "-"
    if following.isdecimal():
        return "--" if end - start == 2 else "- -"
    return "- "


def content_key(text: str) -> str:
    """16 hex digits that are equal for equal comparable forms; a text of punctuation alone stands for itself."""
    return text_id(normalise(text) or text.strip())
