"""What Debian and Ubuntu say of their packages in English and, of some thousand, in Russian: apt's files Translation-en and Translation-ru.

Title = the short description, text = the long one; of a Russian one section "translation" = the English text. Group = the hash that apt
has of the English description, so that both languages share a split. Packages of one description are one document.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from raysberta.corpus.documents import Found
from raysberta.corpus.packaged.distribution import DESCRIPTIONS, folder
from raysberta.errors import InputError

LANGUAGES = ("ru", "en")
MIN_TEXT = 60
MIN_TITLE_WORDS = 2
MIN_CYRILLIC = 0.5
"""Of the letters of a Russian text: names of programs stay in Latin."""
HASH = re.compile(r"^Description-md5: (\w+)$", re.MULTILINE)
DESCRIPTION = re.compile(r"^Description-\w\w: (.*(?:\n .*)*)", re.MULTILINE)
CYRILLIC, LETTER = re.compile("[а-яё]", re.IGNORECASE), re.compile(r"[^\W\d_]")


class Description(NamedTuple):
    """Of a package, or of several."""

    title: str
    text: str


def parts(languages: Sequence[str], key: str) -> list[tuple[str, ...]]:
    """Work units: a language each."""
    for language in languages:
        if language not in LANGUAGES:
            raise InputError(f"{key}.languages: no descriptions are fetched for {language!r}; right would be ru or en")
    return [(language,) for language in languages]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """All descriptions of a language; with Russian ones their English ones."""
    (language,) = part
    english = dict(_all("en", key))
    own = english if language == "en" else dict(_all(language, key))
    for name, said in own.items():
        yield document(name, said, language, None if language == "en" else english.get(name))


def _all(language: str, key: str) -> Iterator[tuple[str, Description]]:
    for file in sorted(folder(DESCRIPTIONS, key).glob(f"*_Translation-{language}")):
        yield from descriptions(file.read_text(encoding="utf-8", errors="replace"))


def descriptions(text: str) -> Iterator[tuple[str, Description]]:
    """Each record's hash and description.

    Args:
        text: Records with a blank line between: `Description-md5: hash`, `Description-xx: title`, then lines of text after a blank, of
            which a single point stands for an empty one and a further blank begins one that is not to be joined to the last.
    """
    for record in text.split("\n\n"):
        name, said = HASH.search(record), DESCRIPTION.search(record)
        if name and said:
            title, _, rest = said[1].partition("\n")
            yield name[1], Description(" ".join(title.split()), _text(rest))


def _text(lines: str) -> str:
    paragraphs = [""]
    for line in lines.split("\n"):
        line = line[1:]
        if line.strip() == ".":
            paragraphs.append("")
        elif line.startswith(" "):
            paragraphs.append(line.strip())
        else:
            paragraphs[-1] = f"{paragraphs[-1]} {line}".strip()
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def document(name: str, said: Description, language: str, english: Description | None) -> Found:
    """One description as a document.

    Args:
        name: The hash.
        said: In the language.
        language: Russian or English.
        english: Of a Russian one its original, where that is there.
    """
    sections = [("translation", english.text)] if english and english.text else []
    if language == "ru" and len(CYRILLIC.findall(said.text)) < MIN_CYRILLIC * len(LETTER.findall(said.text)):
        reason = "little_russian"
    elif len(said.text) < MIN_TEXT:
        reason = "short_text"
    elif len(said.title.split()) < MIN_TITLE_WORDS:
        reason = "short_title"
    else:
        reason = ""
    return Found(name, said.title, said.text, language, "", sections, reason)
