"""Personal data in running text, replaced by its kind in brackets: addresses, telephone numbers, cards and passports.

What a number is cannot be known from its digits alone, so each kind asks for more than a shape: a card has a valid check digit and a
prefix that is issued, an IP address is a public one, a passport number stands behind the word, a telephone number has a country code,
a separated form that is in use, or stands behind the word.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence

from raysberta.corpus.settings import PersonalData

KINDS: tuple[PersonalData, ...] = ("email", "phone", "ip", "card", "passport")
"""In the order in which they are counted."""

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[^\W_](?:[\w-]{0,62}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w@])")
IPV4 = re.compile(r"(?<![\w.])(?<!ersion )(?<!ersion: )(?<!версии )(?<!версия )(?<!версию )\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:|:(?=:)){2,7}:?[0-9A-Fa-f]{0,4}(?![\w:])")
CARD = re.compile(
    r"(?<![\w.,-])\d{4}(?:[ \xa0-]?\d{4}){2}[ \xa0-]?\d{1,7}(?![\w-]|[.,]\d)|(?<![\w.,-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-])"
)
ISSUED = re.compile(r"4|5[0-8]|6|3[47]|220[0-4]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|35")
PASSPORT = re.compile(
    r"\b(?:паспорт\w*|серия|passport)[^\d\n]{0,40}?"
    r"(?P<number>(?<![\d.])\d{2}[ \xa0]?\d{2}[ \xa0,;]{0,3}(?:№|N|номер|выдан)?[ \xa0]{0,2}\d{6}|(?<![\d.])[A-Z]{0,2}\d{7,9})(?!\d)",
    re.IGNORECASE,
)
GAP = r"[ \xa0.\-–]?"
PHONE = re.compile(
    rf"""(?<![\w.,/=+-])(?:
        \+\d{{1,3}}[ \xa0-]?\(?\d{{1,5}}\)?(?:{GAP}\d{{1,4}}){{2,5}}               # with a country code
        | 8[ \xa0-]?\(\d{{3,5}}\)[ \xa0-]?\d{{1,3}}(?:{GAP}\d{{2}}){{2}}            # 8 (495) 123-45-67
        | 8[ \xa0-]\d{{3,5}}[ \xa0-]\d{{1,3}}[ \xa0-]\d{{2}}[ \xa0-]?\d{{2}}        # 8 800 555-35-35
        | [78]9\d{{9}}                                                              # 89161234567
        | \(\d{{3,5}}\)[ \xa0-]?\d{{1,3}}-\d{{2}}-\d{{2}}                            # (495) 123-45-67
        | \(\d{{3}}\)[ \xa0]?\d{{3}}-\d{{4}}                                         # (555) 123-4567
        | \d{{3}}-\d{{3}}-\d{{4}}                                                    # 555-123-4567
    )(?![\w-]|[.,]\d)""",
    re.VERBOSE,
)
NAMED_PHONE = re.compile(
    r"\b(?:тел(?:ефон\w*)?|моб(?:ильный)?|факс|whatsapp|tel(?:ephone)?|phone|mobile|fax)[.:№ \xa0]{1,4}(?:no\.?|number:?)?\s?"
    r"(?P<number>\+?\(?\d(?:[ \xa0().\-–]{0,2}\d){5,13})(?!\w)",
    re.IGNORECASE,
)
PHONE_DIGITS = range(6, 16)
ANY_NUMBER = re.compile(r"\d[\d \xa0().,\-–№N]{4,}\d|[0-9A-Fa-f]:[0-9A-Fa-f:]*:")
"""Nothing but an e-mail address can be in a line without a match."""


def mask(text: str, kinds: Sequence[PersonalData]) -> tuple[str, dict[PersonalData, int]]:
    """The text with personal data replaced, and how many of each kind there were; kinds without any are left out.

    Args:
        text: Any text.
        kinds: Which to replace.
    """
    counts: dict[PersonalData, int] = {}
    if "email" in kinds and "@" in text:
        text, counts["email"] = _EMAILS(text)
    if ANY_NUMBER.search(text):
        lines = text.split("\n")
        for index, line in enumerate(lines):
            if ANY_NUMBER.search(line):
                for kind, replace in _NUMBERS:
                    if kind in kinds:
                        line, found = replace(line)
                        counts[kind] = counts.get(kind, 0) + found
                lines[index] = line
        text = "\n".join(lines)
    return text, {kind: count for kind, count in counts.items() if count}


def _checked(
    pattern: re.Pattern[str], kind: PersonalData, valid: Callable[[str], bool], group: str | int = 0
) -> Callable[[str], tuple[str, int]]:
    def replace(text: str) -> tuple[str, int]:
        found = 0

        def one(match: re.Match[str]) -> str:
            nonlocal found
            if not valid(match[group]):
                return match[0]
            found += 1
            start, end = match.span(group)
            return f"{match[0][: start - match.start()]}[{kind}]{match[0][end - match.start() :]}"

        return pattern.sub(one, text), found

    return replace


def _always(_: str) -> bool:
    return True


def _is_public(address: str) -> bool:
    """A public address, and not one that ends in 0: that is a network, or more likely a version."""
    try:
        return ipaddress.ip_address(address).is_global and not address.endswith(".0")
    except ValueError:
        return False


def _is_card(number: str) -> bool:
    """13 to 19 digits with a prefix that is issued and a valid check digit (Luhn, ISO/IEC 7812-1)."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    if not 13 <= len(digits) <= 19 or not ISSUED.match("".join(map(str, digits))):
        return False
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(number: str) -> bool:
    return sum(map(str.isdigit, number)) in PHONE_DIGITS


_EMAILS = _checked(EMAIL, "email", _always)
_NUMBERS: tuple[tuple[PersonalData, Callable[[str], tuple[str, int]]], ...] = (
    ("ip", _checked(IPV4, "ip", _is_public)),
    ("ip", _checked(IPV6, "ip", _is_public)),
    ("passport", _checked(PASSPORT, "passport", _always, "number")),
    ("card", _checked(CARD, "card", _is_card)),
    ("phone", _checked(PHONE, "phone", _is_phone)),
    ("phone", _checked(NAMED_PHONE, "phone", _is_phone, "number")),
)
"""More special ones first; none goes over a line's end."""
