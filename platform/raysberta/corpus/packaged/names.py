"""Russian and English names from the ISO code lists that the package pycountry carries (Debian's iso-codes, LGPL-2.1).

Countries, their parts, currencies, languages and writing systems. Text = Russian, section "translation" = English, label = the list,
group = the English name, so that its translations share a split.
"""

import re
from collections.abc import Iterator, Sequence

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.packaged.catalogue import translations
from raysberta.corpus.packaged.place import folder
from raysberta.errors import InputError

PACKAGE = "pycountry"
LANGUAGE = "ru"
LISTS = {
    "iso3166-1": "country",
    "iso3166-2": "subdivision",
    "iso3166-3": "country",
    "iso4217": "currency",
    "iso639-3": "language",
    "iso639-5": "language",
    "iso15924": "script",
}
"""File of a list to what its names are names of."""
CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)
LATIN = re.compile("[a-z]", re.IGNORECASE)


def parts() -> list[tuple[str, ...]]:
    """One work unit: it is small."""
    return [()]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The names of all lists."""
    root = folder(PACKAGE, key) / "locales" / "ru" / "LC_MESSAGES"
    if not root.is_dir():
        raise InputError(f"{key}: package {PACKAGE} holds no Russian names; right would be pycountry 26")
    for name, label in LISTS.items():
        try:
            names = translations(root / f"{name}.mo")
        except (OSError, ValueError) as error:
            yield broken(name, str(error))
            continue
        for english, russian in names.items():
            yield _document(english.strip(), russian.strip(), label)


def _document(english: str, russian: str, label: str) -> Found:
    if not russian or russian == english:
        reason = "untranslated"
    elif not CYRILLIC.search(russian) or not LATIN.search(english):
        reason = "no_words"
    else:
        reason = ""
    return Found(english.lower(), "", russian, LANGUAGE, label, [("translation", english)], reason)
