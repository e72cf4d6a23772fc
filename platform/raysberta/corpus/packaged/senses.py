"""Russian word-sense contexts of the package rl-wsd-labeled.

Text = the context with the word in it, title = the word, label = word#sense, group = the context. Contexts whose annotators disagree,
or chose "other" or "cannot tell", carry the reason.
"""

import html
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.packaged.place import folder
from raysberta.corpus.packaged.wiktionary import OBSCENE
from raysberta.errors import InputError

PACKAGE = "rl_wsd_labeled"
LANGUAGE = "ru"
MIN_WORDS = 6
TAG = re.compile(r"</?[a-zA-Z][^<>]{0,60}>|</?\w{0,10}$|^/?\w{0,10}>")
SPACE = re.compile(r"\s+")
BEFORE = re.compile(r" +([,.;:!?…)»”\]])")
EDGE = re.compile(r"^[\s,.;:!?…)»\]>/'’”—–-]+")


def parts() -> list[tuple[str, ...]]:
    """One work unit: it is small."""
    return [()]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The contexts of all words."""
    root = folder(PACKAGE, key)
    files = sorted([*root.glob("*/*/*.txt"), *root.glob("*/*/*.json")])
    if not files:
        raise InputError(f"{key}: package {PACKAGE} holds no contexts; right would be rl-wsd-labeled 0.1.1")
    for file in files:
        yield from _table(file) if file.suffix == ".txt" else _listing(file)


def _table(file: Path) -> Iterator[Found]:
    """Tab-separated: first the senses (a tab, the gloss, its number), then before, word, after, one or two annotations.

    The last two senses are "other" and 0, "cannot tell".
    """
    senses: set[str] = set()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        fields = [field for field in line.strip("\n").split("\t") if field]
        if line.startswith("\t"):
            senses.add(fields[-1])
        elif len(fields) in (4, 5):
            yield context(file.stem, fields[:3], fields[3:], str(len(senses) - 1))
        elif line.strip():
            yield broken(file.name, f"{file.name}, line {number}: {len(fields)} fields, right would be 4 or 5")


def _listing(file: Path) -> Iterator[Found]:
    senses, contexts = json.loads(file.read_text(encoding="utf-8"))
    other = max(senses, key=int)
    for around, sense in contexts:
        yield context(file.stem, around, [sense], other)


def context(word: str, around: Sequence[str], annotations: Sequence[str], other: str) -> Found:
    """One context as a document.

    Args:
        word: The word it was collected for.
        around: Text before it, its form, text after it.
        annotations: The sense that each annotator chose.
        other: The number that stands for "another sense".
    """
    before, form, after = (html.unescape(TAG.sub(" ", part)) for part in around)
    text = BEFORE.sub(r"\1", SPACE.sub(" ", f"{before} {form.strip()} {after}"))
    text = EDGE.sub("", text).strip()
    if len(set(annotations)) > 1:
        reason = "annotators_disagree"
    elif annotations[0] in ("0", other):
        reason = "no_sense"
    elif len(text.split()) < MIN_WORDS:
        reason = "short_context"
    elif OBSCENE.search(text):
        reason = "vulgar"
    else:
        reason = ""
    return Found(text, word, text, LANGUAGE, f"{word}#{annotations[0]}", (), reason)
