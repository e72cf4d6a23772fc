"""Russian-English interface strings of the package jupyterlab-language-pack-ru-ru.

Text = Russian, section "translation" = English, group = the English string, so that its translations share a split. Strings without a
translation, and those that hold nothing but placeholders, carry the reason.
"""

import json
import re
from collections.abc import Iterator, Sequence

from raysberta.corpus.documents import Found
from raysberta.corpus.packaged.place import folder
from raysberta.errors import InputError

PACKAGE = "jupyterlab_language_pack_ru_RU"
LANGUAGE = "ru"
CONTEXT = "\x04"
"""gettext puts the context before this character, the string after it."""
PLACEHOLDER = re.compile(r"%\d+|%[sd]|\{[\w.]*\}|\$\{[^}]*\}|&nbsp;")
SPACE = re.compile(r"\s+")
CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)
LATIN = re.compile("[a-z]", re.IGNORECASE)


def parts() -> list[tuple[str, ...]]:
    """One work unit: it is small."""
    return [()]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The strings of all catalogues."""
    files = sorted((folder(PACKAGE, key) / "locale").glob("*/LC_MESSAGES/*.json"))
    if not files:
        raise InputError(f"{key}: package {PACKAGE} holds no catalogue; right would be jupyterlab-language-pack-ru-RU 4")
    for file in files:
        catalogue = json.loads(file.read_text(encoding="utf-8"))
        for message, translations in catalogue.items():
            if message:
                yield _document(message.rsplit(CONTEXT, 1)[-1], translations[0] if translations else "")


def _document(english: str, russian: str) -> Found:
    english, russian = (SPACE.sub(" ", text).strip() for text in (english, russian))
    if not russian or russian == english:
        reason = "untranslated"
    elif not CYRILLIC.search(PLACEHOLDER.sub("", russian)) or not LATIN.search(PLACEHOLDER.sub("", english)):
        reason = "no_words"
    else:
        reason = ""
    return Found(english.lower(), "", russian, LANGUAGE, "", [("translation", english)], reason)
