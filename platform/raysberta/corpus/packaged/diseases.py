"""English names of diseases of the package simple-icd-10-cm, which carries ICD-10-CM (US government, public domain).

Text = a name by which a condition is known (an inclusion term of the classification), section "description" = the description of
the code that it is coded with, label = the category, the code's first three characters, group = the block of related categories. So two
names of one block are names of one sort of disease or of two, and no block is in two halves. Terms that send the reader to other codes,
say nothing by themselves or merely repeat the description carry the reason.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.packaged.place import folder
from raysberta.errors import InputError

PACKAGE = "simple_icd_10_cm"
LANGUAGE = "en"
NO_DISEASES = frozenset(("19", "20", "21", "22"))
"""Chapters: injuries and poisonings, their causes, reasons to see a doctor, special purposes."""
MIN_CHARACTERS = 6
"""Shorter names are mostly abbreviations and names of genes."""
REFERENCE = re.compile(r"\s*[(\[][^()\[\]]*\b[A-Z]\d\w(?:[.\-]\w*)?[^()\[\]]*[)\]]")
"""Codes in brackets."""
UNSPECIFIED = re.compile(r",?\s*\b(?:NOS|NEC|not otherwise specified)\b|, unspecified$")
SENDS_ON = re.compile(r"\b[A-Z]\d\w\b|\bclassif(?:ied|iable) (?:to|elsewhere)|[:;]$|\babove\b")
WORD = re.compile(r"[a-z0-9]+")
LITTLE = frozenset(
    ("of", "the", "and", "or", "in", "to", "with", "due", "other", "unspecified", "by", "a", "an", "for", "without", "specified")
)


def parts() -> list[tuple[str, ...]]:
    """One work unit: it is small."""
    return [()]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The inclusion terms of the chapters of diseases."""
    files = sorted((folder(PACKAGE, key) / "data").glob("icd10c*-tabular-*.xml"))
    if not files:
        raise InputError(f"{key}: package {PACKAGE} holds no tabular list; right would be simple-icd-10-cm 1.5")
    yield from _terms(files[-1])


def _terms(file: Path) -> Iterator[Found]:
    """Streamed: the file has some ten megabytes."""
    try:
        for _, element in ElementTree.iterparse(file):
            if element.tag != "chapter":
                continue
            if element.findtext("name") not in NO_DISEASES:
                for block in element.findall("section"):
                    for category in block.findall("diag"):
                        yield from _category(category, block.get("id", ""))
            element.clear()
    except ElementTree.ParseError as error:
        yield broken(file.name, f"{file.name}: {error}")


def _category(category: ElementTree.Element, block: str) -> Iterator[Found]:
    label = category.findtext("name", "")
    for diagnosis in category.iter("diag"):
        description = clean(diagnosis.findtext("desc", ""))
        for note in diagnosis.findall("inclusionTerm/note"):
            yield term(clean(note.text or ""), description, label, block)


def clean(text: str) -> str:
    """Without codes in brackets and the coders' "not otherwise specified"."""
    return " ".join(UNSPECIFIED.sub("", REFERENCE.sub("", text)).split()).strip(" ,")


def term(name: str, description: str, label: str, block: str) -> Found:
    """One name as a document."""
    if SENDS_ON.search(name):
        reason = "sends_on"
    elif len(name) < MIN_CHARACTERS:
        reason = "short_name"
    elif _content(name) <= _content(description):
        reason = "repeats_description"
    else:
        reason = ""
    return Found(block, "", name, LANGUAGE, label, [("description", description)], reason)


def _content(text: str) -> set[str]:
    return set(WORD.findall(text.lower())) - LITTLE
