"""LibreOffice's help in Russian and English, from the distribution's packages libreoffice-help-ru and libreoffice-help-en-us (MPL-2.0).

A page has the same elements, with the same ids, in either language. Documents are

- each Russian element with its translation: text = the Russian one, section "translation" = the English one;
- each section of a page in either language: title = the page's, text = its paragraphs, section = heading and text. Where one paragraph
  is most of a Russian section its element stands for it: two documents that say nearly the same would not both be kept.

Group = the page, in both languages. The Russian package leaves in English what nobody has translated.
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.packaged.distribution import folder
from raysberta.errors import InputError

PACKAGES = {"ru": "libreoffice-help-ru", "en": "libreoffice-help-en-us"}
PAGES = {"ru": "usr/share/libreoffice/help/ru/text", "en": "usr/share/libreoffice/help/en-US/text"}
PART_PAGES = 256
MIN_WORDS = 3
"""Of an English element; shorter ones are labels."""
MIN_CYRILLIC = 0.5
"""Of the letters of a Russian text: names of functions and menus of programs stay in Latin."""
MIN_SECTION, MAX_SECTION = 60, 1500
"""Characters; a longer section is cut after a paragraph."""
MOST = 2 / 3
"""A paragraph of so much of a section's text stands for it."""
ELEMENT = re.compile(r'<(p|h[1-6]) id="((?:par|hd)_[^"]*)"([^>]*)>(.*?)</\1>', re.DOTALL)
CLASS = re.compile(r'class="([^"]*)"')
NO_PROSE = ("code", "image")
"""In the class of an element that holds none."""
NO_PARAGRAPH = ("table", "related")
"""How the class of an element begins that no section is told by: cells and links."""
BREAK = re.compile(r"<(?:br|/?li|/?p)\b[^<>]*>")
OTHER_TAG = re.compile(r"</?(?!span\b)[a-zA-Z][^<>]*>")
INLINE = re.compile(r'<span class="(?!switchinline)[^"]*"[^<>]*>([^<>]*)</span>')
VARIANT = re.compile(r'<span hidden="true" id="(?!default)[^"]*"[^<>]*>[^<>]*</span>')
"""What is shown on another system or in another program than by default."""
TAG = re.compile(r"<[^<>]*>")
CYRILLIC, LETTER = re.compile("[а-яё]", re.IGNORECASE), re.compile(r"[^\W\d_]")


class Element(NamedTuple):
    """A heading or a paragraph of a page."""

    heading: bool
    told: bool
    """Whether a section's text has it."""
    text: str


def parts(key: str) -> list[tuple[str, ...]]:
    """Work units: pages that both languages have, by path."""
    russian, english = ({str(page.relative_to(root)) for page in root.rglob("*.html")} for root in _roots(key).values())
    if not russian & english:
        raise InputError(f"{key}: {' and '.join(PACKAGES.values())} share no page; right would be packages of LibreOffice 7 or later")
    pages = sorted(russian & english)
    return [tuple(pages[start : start + PART_PAGES]) for start in range(0, len(pages), PART_PAGES)]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The elements and sections of some pages."""
    roots = _roots(key)
    for page in part:
        try:
            russian, english = (elements((root / page).read_text(encoding="utf-8")) for root in roots.values())
        except (OSError, UnicodeDecodeError) as error:
            yield broken(page, f"{page}: {type(error).__name__}")
            continue
        yield from documents(page, russian, english)


def _roots(key: str) -> dict[str, Path]:
    return {language: folder(package, key) / PAGES[language] for language, package in PACKAGES.items()}


def elements(page: str) -> dict[str, Element]:
    """The elements of a page's HTML by id, in their order; of one that occurs twice the first."""
    found: dict[str, Element] = {}
    for tag, name, attributes, inner in ELEMENT.findall(page):
        named = CLASS.search(attributes)
        style = named[1] if named else ""
        text = plain(inner)
        if text and not any(each in style for each in NO_PROSE):
            found.setdefault(name, Element(tag != "p", tag == "p" and not style.startswith(NO_PARAGRAPH), text))
    return found


def plain(inner: str) -> str:
    """An element's text as it is shown by default."""
    text = OTHER_TAG.sub("", BREAK.sub(" ", inner))
    replaced = 1
    while replaced:  # from the inside out
        text, replaced = INLINE.subn(r"\1", text)
    return " ".join(html.unescape(TAG.sub("", VARIANT.sub("", text))).split())


def documents(page: str, russian: Mapping[str, Element], english: Mapping[str, Element]) -> Iterator[Found]:
    """The documents of a page.

    Args:
        page: Its path, the group.
        russian: Its elements in Russian.
        english: In English.
    """
    said = {name: element.text for name, element in english.items()}
    translated = {name: element for name, element in russian.items() if element.text != said.get(name)}
    standing: dict[str, tuple[str, str]] = {}
    for language, own in (("ru", translated), ("en", english)):
        first = next((name for name, element in english.items() if element.heading), "")
        title = own[first].text if first in own else ""
        for heading, names in _sections(own):
            text = _cut([own[name].text for name in names])
            longest = max(names, key=lambda name: len(own[name].text))
            if language == "ru" and longest in said and len(own[longest].text) >= MOST * len(text):
                standing[longest] = title, heading
                continue
            reason = "short_section" if len(text) < MIN_SECTION else "little_russian" if language == "ru" and not _russian(text) else ""
            yield Found(page, title, text, language, "", [(heading, text)], reason)
    for name, element in russian.items():
        if name in said:
            yield _translation(page, element.text, said[name], standing.get(name))


def _sections(own: Mapping[str, Element]) -> Iterator[tuple[str, list[str]]]:
    """Headings with the names of the paragraphs below, up to the next heading."""
    heading, names = "", list[str]()
    for name, element in own.items():
        if element.heading:
            if heading and names:
                yield heading, names
            heading, names = element.text, []
        elif element.told:
            names.append(name)
    if heading and names:
        yield heading, names


def _translation(page: str, russian: str, english: str, heads: tuple[str, str] | None) -> Found:
    title, heading = heads or ("", "")
    sections = [("translation", english)]
    if heads and len(russian) >= MIN_SECTION:
        sections.append((heading, russian))
    if russian == english or not CYRILLIC.search(russian):
        reason = "untranslated"
    elif not _russian(russian):
        reason = "little_russian"
    elif len(english.split()) < MIN_WORDS:
        reason = "short_text"
    else:
        reason = ""
    return Found(page, title if len(sections) > 1 else "", russian, "ru", "", sections, reason)


def _cut(paragraphs: Sequence[str]) -> str:
    """Paragraphs up to the greatest length; the first at least."""
    text = paragraphs[0]
    for paragraph in paragraphs[1:]:
        if len(text) + len(paragraph) >= MAX_SECTION:
            break
        text += "\n" + paragraph
    return text


def _russian(text: str) -> bool:
    return len(CYRILLIC.findall(text)) >= MIN_CYRILLIC * len(LETTER.findall(text))
