"""The form in which two texts count as the same: for keys only, never written back.

Lower case, NFC, no stress marks, punctuation and blanks as single spaces. Digits stay (5 is not 7), й and ё stay (йод is not иод,
все is not всё), and so do signs that carry meaning (C is not C++, x > y is not x < y, -5 is not 5).
"""

import re
import unicodedata

from raysberta.schema import text_id

STRESS = re.compile("[\u0300\u0301]")
SEPARATORS = re.compile(r"(?:[\s\"'`«»„“”‘’‚.,:;!?…()\[\]{}—–―·•_|\\]|(?<!\w)-+(?!\d)|-+(?![\w-]))+")


def normalise(text: str) -> str:
    """The comparable form; "" for a text of punctuation alone."""
    composed = unicodedata.normalize("NFC", text.lower())
    if not composed.isascii():
        composed = STRESS.sub("", composed)
    return SEPARATORS.sub(" ", composed).strip()


def words(text: str) -> list[str]:
    """Words of the comparable form."""
    return normalise(text).split()


def content_key(text: str) -> str:
    """16 hex digits that are equal for equal comparable forms; a text of punctuation alone stands for itself."""
    return text_id(normalise(text) or text.strip())
