"""HTML to title, sections and main text: resiliparse's main-content rules, without what readers skip.

Comments, galleries, adverts for other articles and the like are known by the words in their `class` and `id`. Where the rules leave
next to nothing of a page that has paragraphs, the paragraphs of the place with most text are taken.
"""

import html as entities
import re
from dataclasses import dataclass

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
BLANKS = re.compile(r"[^\S\n]+")
BREAKS = re.compile(r"\s*\n\s*\n\s*")
SKIPPED = re.compile("comment|gallery|promo|footer|author|social|newsletter|byline|popular|cookie", re.IGNORECASE)
"""Words in the names of what is not the article."""
PLAIN_NAME = re.compile(r"[A-Za-z][\w-]*", re.ASCII)
NOT_WHOLE = ":not(body):not(html):not(main):not(article)"
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
        html: The decoded page; broken markup is repaired as browsers do.

    Raises:
        Unreadable: it is nested more than MAX_DEPTH deep.
    """
    if _deepest(np.frombuffer(html.encode("utf-8", "surrogatepass"), np.uint8), _NESTED) > MAX_DEPTH:
        raise Unreadable(f"nested more than {MAX_DEPTH} deep")
    tree = HTMLTree.parse(html)
    title = _title(tree)
    marked = extract_plain_text(
        tree,
        preserve_formatting="minimal_html",
        main_content=True,
        alt_texts=False,
        list_bullets=False,
        skip_elements=_skipped(tree, html),
    )
    pieces = HEADING.split(marked)  # text, level, heading, text, level, heading, ...
    headings = [_plain(heading).replace("\n", " ") for heading in pieces[2::3]]
    bodies = [_plain(body) for body in pieces[3::3]]
    sections = [(heading, body) for heading, body in zip(headings, bodies, strict=True) if heading and body]
    parts = [_plain(pieces[0]), *(part for pair in zip(headings, bodies, strict=True) for part in pair)]
    text = "\n\n".join(filter(None, parts))
    if len(text) < SHORT_TEXT:
        text = _paragraphs(tree, text)
    return Page(title or (headings[0] if headings else ""), text, sections)


def _skipped(tree: HTMLTree, html: str) -> list[str]:
    """CSS selectors of what is named as something that readers skip."""
    body = tree.body
    names = [*(f".{name}{NOT_WHOLE}" for name in _names(html, "class")), *(f"#{name}{NOT_WHOLE}" for name in _names(html, "id"))]
    if body is None or not names:
        return []
    most = max(FEW_PARAGRAPHS, MOST_PARAGRAPHS * len(body.query_selector_all("p")))
    if len(body.query_selector_all(",".join(f"{name} p" for name in names))) <= most:
        return names
    return [name for name in names if len(body.query_selector_all(f"{name} p")) <= most]


def _names(html: str, attribute: str) -> list[str]:
    """Values of an attribute, single names, that hold a word of SKIPPED."""
    values: set[str] = set()
    for quote in "\"'":
        opening = f"{attribute}={quote}"
        if opening in html:
            values.update([piece[: piece.find(quote)] for piece in html.split(opening)[1:]])
    return sorted(name for name in set(" ".join(values).split()) if SKIPPED.search(name) and PLAIN_NAME.fullmatch(name))


def _paragraphs(tree: HTMLTree, text: str) -> str:
    """The paragraphs of the place with most text, where the text found is next to nothing against them; else the text."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for node in tree.body.query_selector_all("p") if tree.body is not None else ():
        paragraph = " ".join(node.text.split())
        if len(paragraph) > LONG_PARAGRAPH and node.parent is not None:
            place = (node.parent.tag, node.parent.getattr("class") or "", node.parent.getattr("id") or "")
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
    text = entities.unescape(TAG.sub("", marked))
    return BREAKS.sub("\n\n", BLANKS.sub(" ", text)).strip()


def _name_hash(name: str) -> int:
    value = 0
    for letter in name.encode():
        value = (value * 31 + letter) & 0xFFFFFFFF
    return value


_NESTED = np.array([_name_hash(name) for name in NESTED], dtype=np.int64)


@njit(cache=True, nogil=True)
def _deepest(data: np.ndarray, nested: np.ndarray) -> int:
    """How deep the elements are nested whose names have these hashes."""
    depth = deepest = 0
    size = len(data)
    at = 0
    while at < size:
        if data[at] != 60:  # <
            at += 1
            continue
        at += 1
        closing = at < size and data[at] == 47  # /
        if closing:
            at += 1
        value = 0
        while at < size:
            letter = np.int64(data[at]) | 32
            if letter < 97 or letter > 122:
                break
            value = (value * 31 + letter) & 0xFFFFFFFF
            at += 1
        for name in nested:
            if name == value:
                depth = max(0, depth - 1) if closing else depth + 1
                deepest = max(deepest, depth)
    return deepest
