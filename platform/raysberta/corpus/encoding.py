"""Bytes to text, and text that went through the wrong encoding back to what it was.

UTF-8 where it is UTF-8; else the Cyrillic encoding whose text looks most like Russian, what the page declares, or what resiliparse makes
of its bytes. `repair` undoes one wrong decoding (or two on top of each other), line by line.
"""

import math
import re
from functools import cache

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from raysberta.corpus.stream import Unreadable

MAX_REPLACED = 0.01
REPLACEMENT = "\ufffd"
CYRILLIC_ENCODINGS = ("cp1251", "koi8-r", "iso8859-5", "cp866")
LETTER_SHARES = dict(
    zip(
        "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъёіїє",
        (
            *(0.110, 0.084, 0.080, 0.074, 0.067, 0.063, 0.055, 0.047, 0.045, 0.044, 0.035, 0.032, 0.030, 0.028, 0.026, 0.020, 0.019, 0.017),
            *(
                0.017,
                0.016,
                0.016,
                0.014,
                0.012,
                0.010,
                0.009,
                0.007,
                0.006,
                0.005,
                0.004,
                0.003,
                0.003,
                0.0004,
                0.003,
                0.004,
                0.002,
                0.002,
            ),
        ),
        strict=True,
    )
)
"""Letters in Russian running text; the last three keep Ukrainian alive."""
RARE = math.log(1e-6)
FREQUENT = "оеаинт"
NEUTRAL = frozenset("«»—–…“”„’‘№§©°•·\xa0€×ё")
GOOD = -3.7
"""Mean log share of Russian letters lies about -3.0; of other letters in their place below -4."""
BETTER_BY = 0.4
CAPITAL = -0.4
"""What a capital behind another letter costs: KOI8-R and windows-1251 taken for each other swap the cases."""
SAMPLE = 4000
LEAST_LETTERS = 4

WRONG_THEN_RIGHT = (
    *(("cp1252", "utf-8"), ("cp1251", "utf-8"), ("cp866", "utf-8"), ("koi8-r", "utf-8"), ("cp1252", "cp1251"), ("cp1252", "koi8-r")),
    *(("cp1251", "koi8-r"), ("koi8-r", "cp1251"), ("cp866", "cp1251"), ("cp1251", "cp866"), ("cp1251", "iso8859-5"), ("koi8-r", "cp866")),
)
"""Decoded as the one, meant as the other."""
SIGNS = ("Ð", "Ñ", "Ã", "Â", "â€", "Рѕ", "Рµ", "Р°", "Рћ", "Рђ", "вЂ", "╨", "╤", "п╬", "п╟", "п·", "п▐", "î", "à", "Î", "À", "Ï")
"""One of these is in any longer text that was decoded wrongly, cases swapped by KOI8-R and windows-1251 aside."""
SUSPECT = re.compile(
    "[ÃÂÐÑâ][\x80-\xbf\u0152-\u0192\u02c6\u02dc\u2013-\u2122]"  # UTF-8 as windows-1252
    "|[РС][\x80-\xbf\u0402-\u040f\u0452-\u045f\u0490\u0491\u2013-\u2122]|вЂ"  # as windows-1251
    "|[╨╤][\u0400-\u04ff\u2500-\u25ff]|[пя][\u2500-\u25a0\u2320\u2321]"  # as cp866, as KOI8-R
    "|[À-ÿ]{4}"  # windows-1251 or KOI8-R as windows-1252
    "|[а-яё][А-ЯЁ]"  # windows-1251 and KOI8-R for each other
)
LONG_LINE = 12
"""Letters of a line that is judged by its letters alone: a shorter one must be SUSPECT."""
MEANT = re.compile("[\x00-\u052f\u2010-\u2044\u20ac\u2116\u2122\u2190-\u2193\u2212\u2260\u2264\u2265]*")
"""What comes out of UTF-8 that was decoded wrongly; other characters are a coincidence of few bytes."""


def decode_page(data: bytes) -> str:
    """HTML in any encoding. Single undecodable bytes are left out, as browsers tolerate them.

    Raises:
        Unreadable: more than one character in a hundred cannot be decoded, or there is a NUL.
    """
    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable("holds a NUL")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    as_utf8 = data.decode("utf-8", "replace")
    broken = as_utf8.count(REPLACEMENT)
    if broken <= MAX_REPLACED * len(as_utf8) and broken * 10 < sum(map(len, _foreign(as_utf8))):
        return as_utf8.replace(REPLACEMENT, "")
    encoding = _cyrillic(data) or detect_encoding(data, from_html_meta=True) or "utf-8"
    text: str = bytes_to_str(data, encoding, errors="replace", fallback_encodings=())
    if text.count(REPLACEMENT) > MAX_REPLACED * len(text):
        raise Unreadable("in no encoding that is known")
    return text.replace(REPLACEMENT, "")


def decode_text(data: bytes) -> str:
    """Plain text or Markdown: UTF-8, UTF-16 with its mark, or a single-byte encoding that decodes without a fault.

    Raises:
        Unreadable: UTF-8 with faults, a NUL, or no known encoding.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise Unreadable(f"invalid UTF-16 at byte {error.start}") from error
    if b"\0" in data:
        raise Unreadable("holds a NUL")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        as_utf8 = data.decode("utf-8", "replace")
        if as_utf8.count(REPLACEMENT) < len(_foreign(as_utf8)):  # most sequences are UTF-8: a damaged file, not another encoding
            raise Unreadable(f"invalid UTF-8 at byte {error.start}") from error
    try:
        return data.decode(_cyrillic(data) or detect_encoding(data) or "utf-8")
    except (UnicodeDecodeError, LookupError) as error:
        raise Unreadable("in no encoding that is known") from error


def repair(text: str) -> str:
    """The text with every line that was decoded wrongly decoded rightly; the same text where no line was.

    KOI8-R and windows-1251 taken for each other are noticed where the text as a whole is unlike Russian. Headings in capitals stay broken
    then: they look as unlikely as what they were.
    """
    if text.isascii() or not (any(sign in text for sign in SIGNS) or _unlike_russian(text[:SAMPLE])):
        return text
    return "\n".join(_repair_line(line) for line in text.split("\n"))


def russian_score(text: str) -> float:
    """Mean log share of the letters beyond ASCII in Russian; -inf where there are fewer than four.

    Capitals inside of words and letters that touch Latin ones count as the rarest, since wrong decodings make both.
    """
    total, count = 0.0, 0
    before = " "
    shares = _log_shares()
    for character in text[:SAMPLE]:
        if character > "\x7f" and character not in NEUTRAL:
            lower = character.lower()
            within = before.isalpha()
            odd = within and (before.isascii() or (character != lower and before == before.lower()))
            total += RARE if odd else shares.get(lower, RARE) + (CAPITAL if within and character != lower else 0.0)
            count += 1
        before = character
    return total / count if count >= LEAST_LETTERS else -math.inf


@cache
def _log_shares() -> dict[str, float]:
    return {letter: math.log(share) for letter, share in LETTER_SHARES.items()}


def _cyrillic(data: bytes) -> str | None:
    """The encoding whose text looks most like Russian, where that is like it at all."""
    sample = b" ".join(re.findall(rb"[\x80-\xff]+(?:[ -~]?[\x80-\xff]+)*|[A-Za-z]+[\x80-\xff]+", data[: 64 * SAMPLE]))[:SAMPLE]
    scores = {encoding: russian_score(sample.decode(encoding, "replace")) for encoding in CYRILLIC_ENCODINGS}
    best = max(scores, key=lambda encoding: scores[encoding])
    return best if scores[best] > GOOD else None


def _unlike_russian(text: str) -> bool:
    """Whether a text beyond ASCII lacks the most frequent Russian letters."""
    foreign = len(text.encode("utf-8", "surrogatepass")) - len(text)
    return foreign >= LEAST_LETTERS and sum(map(text.count, FREQUENT)) < foreign / 4


def _repair_line(line: str) -> str:
    if line.isascii() or not (SUSPECT.search(line) or _unlike_russian(line)):
        return line
    for _ in range(2):
        fixed = _undo(line)
        if fixed == line:
            break
        line = fixed
    return line


def _undo(line: str) -> str:
    """One wrong decoding less."""
    if sum(character > "\x7f" for character in line) < 2:
        return line
    short = sum(character > "\x7f" for character in line) < LONG_LINE and not SUSPECT.search(line)
    now = russian_score(line)
    best, best_score = line, max(GOOD, now + BETTER_BY)
    for wrong, right in WRONG_THEN_RIGHT:
        data = _encode(line, wrong)
        if data is None:
            continue
        try:
            candidate = data.decode(right)
        except UnicodeDecodeError:
            continue
        if right == "utf-8":  # hardly another text happens to be UTF-8 when encoded
            if MEANT.fullmatch(candidate):
                return candidate
            continue
        score = -math.inf if short else russian_score(candidate)
        if score > best_score:
            best, best_score = candidate, score
    return best


def _encode(text: str, encoding: str) -> bytes | None:
    """The bytes that were decoded, where all characters come from that encoding."""
    table = _bytes_of(encoding)
    try:
        return bytes([table[character] for character in text])
    except KeyError:
        return None


@cache
def _bytes_of(encoding: str) -> dict[str, int]:
    """Byte of each character; bytes without a character stand for themselves, as lenient decoders have it."""
    table = {chr(byte): byte for byte in range(256) if byte < 0x80 or encoding == "cp1252" or byte < 0xA0}
    for byte in range(0x80, 0x100):
        character = bytes([byte]).decode(encoding, "replace")
        if character != REPLACEMENT:
            table[character] = byte
    return table


def _foreign(text: str) -> list[str]:
    """Characters beyond ASCII that were decoded."""
    return [character for character in text if character > "\x7f" and character != REPLACEMENT]
