"""Russian law in practice: sections of the guides of the package ru-legal-skills-mcp (Apache-2.0), which is read, never imported.

Text = a section of a guide, title = its heading without the number, after the guide's own title where that is Russian; label = area of
law, group = the guide. A heading that several guides share, or that is short, says too little about its section: the title is "" then.
Sections under headings that many guides have (disclaimers, how to start) and those that are more English or code than Russian carry the
reason.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.extract import Page
from raysberta.corpus.markdown import read_markdown
from raysberta.corpus.normal import normalise
from raysberta.corpus.packaged.place import folder
from raysberta.errors import InputError

PACKAGE = "ru_legal_skills_mcp"
LANGUAGE = "ru"
ABOUT_THE_TOOL = ("cold-start", "customize")
"""Guides that set the tool up, the same in all areas."""
COMMON = 5
"""A heading of so many guides heads what they all say."""
MIN_CYRILLIC = 140
MIN_SHARE = 0.75
MIN_TITLE_WORDS = 2
MIN_HEADING = 20
"""Characters of a heading that stands alone."""
MAX_TEXT = 1500
NUMBER = re.compile(r"^(?:(?:Шаг|Этап|Раздел|Режим|Слой|Часть|Блок)\s+\w{1,3}|\d[\d.]*|[A-ZА-Я]\d{0,2})\s*[.):—–-]+\s*")
NOTE = re.compile(r"`?\[[^\]]*(?:проверить|сверено|сверить|заполнить|уточнить|источник|ссылка)[^\]]*\]`?", re.IGNORECASE)
MARKS = re.compile(r"^\s*(?:[-*]\s+)?(?:\[[ xX]\]\s*)?|\*\*|[`\u2600-\u27bf\ufe0f\U0001f300-\U0001faff]+", re.MULTILINE)
CYRILLIC, LETTER = re.compile("[а-яё]", re.IGNORECASE), re.compile(r"[^\W\d_]")
WORD = re.compile("[а-яё]{4,}", re.IGNORECASE)


def parts() -> list[tuple[str, ...]]:
    """One work unit: which headings are common is known when all guides are read."""
    return [()]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The sections of all guides; all together they have some megabytes."""
    root = folder(PACKAGE, key) / "packs"
    files = sorted(root.glob("*/skills/*/SKILL.md"))
    if not files:
        raise InputError(f"{key}: package {PACKAGE} holds no guides; right would be ru-legal-skills-mcp 0.3")
    guides: dict[tuple[str, str], Page] = {}
    for file in files:
        area, name = file.relative_to(root).parts[0], file.parent.name
        if name.startswith(ABOUT_THE_TOOL):
            continue
        try:
            guides[area, name] = read_markdown(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            yield broken(name, f"{area}/{name}: no UTF-8")
    guides_with = Counter(heading for page in guides.values() for heading in {normalise(heading) for heading, _ in page.sections})
    for (area, name), page in guides.items():
        for heading, text in page.sections:
            yield section(area, f"{area}/{name}", page.title, heading, text, guides_with[normalise(heading)])


def section(area: str, group: str, guide: str, heading: str, text: str, guides: int) -> Found:
    """One section as a document.

    Args:
        area: Of law, the label.
        group: The guide's path.
        guide: Its title.
        heading: As it stands there.
        text: Plain, as `read_markdown` leaves it.
        guides: How many guides have this heading.
    """
    text = "\n".join(" ".join(line.split()) for line in MARKS.sub("", NOTE.sub("", text)).splitlines()).strip()
    if len(text) > MAX_TEXT:
        end = text.rfind("\n", 0, MAX_TEXT)
        text = text[: end if end > MAX_TEXT // 2 else MAX_TEXT].strip()
    title = _title(guide, heading) if guides == 1 else ""
    if guides >= COMMON:
        reason = "common_heading"
    elif len(CYRILLIC.findall(text)) < MIN_CYRILLIC:
        reason = "short_section"
    elif not _russian(text):
        reason = "little_russian"
    else:
        reason = ""
    return Found(group, title, text, LANGUAGE, area, (), reason)


def _title(guide: str, heading: str) -> str:
    guide, heading = (" ".join(NUMBER.sub("", MARKS.sub("", NOTE.sub("", text))).split()) for text in (guide, heading))
    if len(WORD.findall(heading)) < MIN_TITLE_WORDS or not _russian(heading):
        return ""
    if WORD.search(guide) and _russian(guide) and guide != heading:
        return f"{guide}: {heading}"
    return heading if len(heading) >= MIN_HEADING else ""


def _russian(text: str) -> bool:
    return len(CYRILLIC.findall(text)) >= MIN_SHARE * len(LETTER.findall(text))
