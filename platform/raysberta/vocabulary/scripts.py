"""The scripts that texts are written in, by the names of their letters in Unicode, and which pieces belong to them.

A language's script is read off its texts, never off a table: so any language will do, one in two scripts or in a mixture as well.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

from raysberta.vocabulary.pieces import Pieces

MIN_SCRIPT_SHARE = 0.001  # of the letters; a stray foreign word does not bring its alphabet along
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""How a tokenizer with byte fallback writes a byte."""


def byte_level(pieces: Pieces) -> bool:
    """Whether each character of a piece stands for a byte."""
    return pieces.kind == "bpe" and all(text in _byte_of() for text in pieces.texts if len(text) == 1 and text not in pieces.special)


def readable(pieces: Pieces) -> list[str]:
    """The pieces as they are read: those of a byte-level BPE are decoded, and bytes that are part of a letter only are left out."""
    if not byte_level(pieces):
        return pieces.texts
    byte_of = _byte_of()
    return [
        text if text in pieces.special else bytes(byte_of.get(character, 0) for character in text).decode("utf-8", "ignore")
        for text in pieces.texts
    ]


def scripts_of(shown: Sequence[str], counts: np.ndarray) -> set[str]:
    """The scripts that have MIN_SCRIPT_SHARE of the letters in what was counted.

    Args:
        shown: The pieces as they are read.
        counts: Occurrences by id, int64 [pieces].
    """
    letters: Counter[str] = Counter()
    for number in np.flatnonzero(counts):
        for character in shown[number]:
            if unicodedata.category(character)[0] == "L":
                letters[_script(character)] += int(counts[number])
    return {script for script, seen in letters.items() if seen >= MIN_SCRIPT_SHARE * letters.total()}


def in_scripts(shown: str, scripts: set[str]) -> bool:
    """Whether all letters of a text are of the scripts; digits and signs are of any. "", which no letter is left of, is of none."""
    return bool(shown) and all(_fits(character, scripts) for character in shown)


def spells(text: str, scripts: set[str]) -> bool:
    """Whether a piece is one of those that any word of the scripts can be spelled with: a byte, a letter, a digit or a sign."""
    if len(text) != 1:
        return BYTE.fullmatch(text) is not None
    return unicodedata.category(text)[0] != "C" and _fits(text, scripts)


def _fits(character: str, scripts: set[str]) -> bool:
    return unicodedata.category(character)[0] not in "LM" or _script(character) in scripts or _script(character) == "COMBINING"


@cache
def _script(character: str) -> str:
    return unicodedata.name(character, "?").split()[0]


@cache
def _byte_of() -> dict[str, int]:
    """The characters that stand for bytes in byte-level BPE: printable ones for themselves, the others from U+0100 on (GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(0x100 + place): byte for place, byte in enumerate(others)}}
