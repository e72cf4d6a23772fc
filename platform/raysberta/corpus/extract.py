"""HTML to title, sections and main text: resiliparse's main-content rules, without what readers skip.

Comments, galleries, adverts for other articles and the like are known by the words in their `class` and `id`. Where the rules leave
next to nothing of a page that has paragraphs, the paragraphs of the place with most text are taken.
"""

import html as entities
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from raysberta.corpus.stream import Unreadable

MAX_DEPTH = 1500
"""Deeper nesting makes extraction quadratic, and no page that is meant to be read has it."""
NESTED = ("div", "table", "section", "article", "ul", "ol", "blockquote", "center", "form", "fieldset", "main", "aside", "dl", "nav")
"""Elements that count as depth: those that pages nest and browsers do not close by themselves."""
HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)
TAG = re.compile(r"</?(?:p|ul|ol|li|pre|br|a|h[1-6])\b[^<>]*>")
BLANKS = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
SKIPPED = ("comment", "gallery", "promo", "footer", "author", "social", "newsletter", "byline", "popular", "cookie")
"""Words in the names of what is not the article."""
MOST_NAMES = 4096
"""Classes and ids of a page that are looked at."""
PLAIN_NAME = re.compile(r"[.#][A-Za-z][\w-]*", re.ASCII)
WHOLE = ("body", "html", "main", "article")
"""Elements that are never left out, nor anything that is named as one of them."""
MOST_PARAGRAPHS = 0.8
"""Share of the page's paragraphs that cannot be cut out at once: then the name means something else."""
FEW_PARAGRAPHS = 2
SHORT_TEXT = 400
LONG_PARAGRAPH = 60
LOST = 0.2
"""A short text with less than this share of the longest group of paragraphs is not the main text."""
TITLE_PARTS = re.compile(r"\s+(?:[|–—·•»/-]|::)\s+")


@dataclass(frozen=True)
class Page:
    """What a reader came for."""

    title: str
    text: str
    """Main text, headings in it, a blank line between paragraphs."""
    sections: list[tuple[str, str]]
    """Each heading with the text up to the next one; headings without text are left out."""


def extract(html: str) -> Page:
    """The main content of a page.

    Args:
        html: The decoded page, no half of a surrogate pair in it; broken markup is repaired as browsers do.

    Raises:
        Unreadable: it is nested more than MAX_DEPTH deep.
    """
    data = html.encode()
    deepest, paragraphs, spans = _scan(np.frombuffer(data, np.uint8), _NESTED, _WHOLE, _SKIPPED)
    if deepest > MAX_DEPTH:
        raise Unreadable(f"nested more than {MAX_DEPTH} deep")
    tree = HTMLTree.parse(html)
    title = _title(tree)
    names = _skipped(data, spans)
    marked = _main(tree, names)
    if names and marked.count("<p>") < (1 - MOST_PARAGRAPHS) * paragraphs:
        marked = _main(tree, _not_too_much(tree, names))
    pieces = HEADING.split(marked)  # text, level, heading, text, level, heading, ...
    headings = [_plain(heading).replace("\n", " ") for heading in pieces[2::3]]
    bodies = [_plain(body) for body in pieces[3::3]]
    sections = [(heading, body) for heading, body in zip(headings, bodies, strict=True) if heading and body]
    parts = [_plain(pieces[0]), *(part for pair in zip(headings, bodies, strict=True) for part in pair)]
    text = "\n\n".join(filter(None, parts))
    if len(text) < SHORT_TEXT:
        text = _paragraphs(tree, text)
    return Page(title or (headings[0] if headings else ""), text, sections)


def _main(tree: HTMLTree, names: list[str]) -> str:
    """The main content without what the selectors name, with headings, paragraphs and lists marked."""
    marked: str = extract_plain_text(
        tree, preserve_formatting="minimal_html", main_content=True, alt_texts=False, list_bullets=False, skip_elements=names
    )
    return marked


def _skipped(data: bytes, spans: np.ndarray) -> list[str]:
    """CSS selectors of what is named as something that readers skip; `spans` as `_scan` found them."""
    marks: tuple[set[str], set[str]] = set(), set()
    for start, end, is_id, whole in spans.tolist():
        marks[whole].add(("#" if is_id else ".") + data[start:end].decode("ascii", "replace"))
    return [mark for mark in sorted(marks[False] - marks[True]) if PLAIN_NAME.fullmatch(mark)]


def _not_too_much(tree: HTMLTree, names: list[str]) -> list[str]:
    """Those selectors that do not hold nearly all paragraphs of the page."""
    body = tree.body
    if body is None:
        return []
    most = max(FEW_PARAGRAPHS, MOST_PARAGRAPHS * len(body.query_selector_all("p")))
    return [name for name in names if len(body.query_selector_all(f"{name} p")) <= most]


def _paragraphs(tree: HTMLTree, text: str) -> str:
    """The paragraphs of the place with most text, where the text found is next to nothing against them; else the text."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for node in tree.body.query_selector_all("p") if tree.body is not None else ():
        paragraph = " ".join((node.text or "").split())
        parent: Any = node.parent
        if len(paragraph) > LONG_PARAGRAPH and parent is not None:
            place = (parent.tag, parent.getattr("class") or "", parent.getattr("id") or "")
            places.setdefault(place, []).append(paragraph)
    longest = "\n\n".join(max(places.values(), key=lambda own: sum(map(len, own)))) if places else ""
    return longest if len(text) < LOST * len(longest) else text


def _title(tree: HTMLTree) -> str:
    """The page's title without the site's name; its first heading of the first rank where there is no title."""
    title = BLANKS.sub(" ", (tree.title or "").replace("\n", " ")).strip()
    body = tree.body
    first = body.query_selector("h1") if body is not None else None
    heading = " ".join(((first.text if first is not None else "") or "").split())
    if not title:
        return heading
    if heading and heading.lower() in title.lower():
        return heading
    parts = TITLE_PARTS.split(title)
    return parts[0] if len(parts[0].split()) > 1 else max(parts, key=len)


def _plain(marked: str) -> str:
    """Without markup: single blanks in a line, at most one empty line between lines."""
    lines: list[str] = []
    for line in entities.unescape(TAG.sub("", marked)).split("\n"):
        words = line.split()
        if words:
            lines.append(" ".join(words))
        elif lines and lines[-1]:
            lines.append("")
    return "\n".join(lines).strip()


def _name_hash(name: str) -> int:
    value = 0
    for letter in name.encode():
        value = (value * 31 + letter) & 0xFFFFFFFF
    return value


_NESTED = np.array([_name_hash(name) for name in NESTED], dtype=np.int64)
_WHOLE = np.array([_name_hash(name) for name in WHOLE], dtype=np.int64)
_SKIPPED = np.frombuffer(b"\0".join(word.encode() for word in SKIPPED) + b"\0", np.uint8)


@njit(cache=True, nogil=True)
def _scan(data: np.ndarray, nested: np.ndarray, whole: np.ndarray, skipped: np.ndarray) -> tuple[int, int, np.ndarray]:
    """One pass over a page.

    Args:
        data: uint8, the page.
        nested: int64, hashes of the names of elements that count as depth.
        whole: int64, hashes of the names in WHOLE.
        skipped: uint8, words in lower case, a zero after each.

    Returns:
        How deep elements are nested; how many paragraphs are opened; int64 [names, 4]: where each class and id with one of the words
        starts and ends, whether it is an id, and whether the element is one of WHOLE.
    """
    depth = deepest = paragraphs = found = 0
    spans = np.empty((MOST_NAMES, 4), np.int64)
    size = len(data)
    at = 0
    while at < size:
        while at < size and data[at] != 60:  # <
            at += 1
        at += 1
        closing = at < size and data[at] == 47  # /
        at += closing
        value = 0
        while at < size:
            letter: Any = np.int64(data[at]) | 32
            if letter < 97 or letter > 122:
                break
            value = (value * 31 + letter) & 0xFFFFFFFF
            at += 1
        paragraphs += value == 112 and not closing  # p
        for name in nested:
            if name == value:
                depth = max(0, depth - 1) if closing else depth + 1
                deepest = max(deepest, depth)
        while at < size and data[at] != 62 and data[at] != 60:  # to the end of the tag, or the next one
            at += 1
            if data[at - 1] != 61 or at == size or (data[at] != 34 and data[at] != 39):  # = and a quote
                continue
            is_class = at > 6 and data[at - 2] == 115 and data[at - 3] == 115 and data[at - 4] == 97 and data[at - 5] == 108
            is_id = data[at - 2] == 100 and data[at - 3] == 105 and data[at - 4] <= 32
            if not is_class and not is_id:
                continue
            quote = data[at]
            at += 1
            start = at
            while at < size:
                last = data[at] == quote or data[at] == 62
                if last or data[at] <= 32:
                    if at > start and found < MOST_NAMES and _holds(data, start, at, skipped):
                        spans[found, 0], spans[found, 1], spans[found, 2] = start, at, is_id
                        spans[found, 3] = (whole == value).any()
                        found += 1
                    start = at + 1
                    if last:
                        break
                at += 1
    return deepest, paragraphs, spans[:found]


@njit(cache=True, nogil=True)
def _holds(data: np.ndarray, start: int, end: int, words: np.ndarray) -> bool:
    """Whether one of the words stands somewhere in the bytes from start to end, in either case."""
    first = 0
    while first < len(words):
        last = first
        while words[last] != 0:
            last += 1
        for place in range(start, end - (last - first) + 1):
            if data[place] | 32 != words[first]:
                continue
            index = 1
            while index < last - first and data[place + index] | 32 == words[first + index]:
                index += 1
            if index == last - first:
                return True
        first = last + 1
    return False
