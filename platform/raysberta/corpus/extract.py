"""HTML to title, sections and main text, by resiliparse's main-content rules; menus, scripts and styles stay away."""

import html as entities
import re
from dataclasses import dataclass

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from raysberta.corpus.stream import Unreadable

MAX_DEPTH = 1500
"""Deeper nesting makes extraction quadratic, and no page that is meant to be read has it."""
DEPTH_CHECK_FROM = 2 * MAX_DEPTH
BLOCK = re.compile(r"<(/?)(?:div|table|section|article|ul|ol|blockquote|center|form|fieldset|main|aside|dl|nav)\b", re.IGNORECASE)
HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)
TAG = re.compile(r"</?(?:p|ul|ol|li|pre|br|a|h[1-6])\b[^<>]*>")
BLANKS = re.compile(r"[^\S\n]+")
BREAKS = re.compile(r"\s*\n\s*\n\s*")
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
    if html.count("<") > DEPTH_CHECK_FROM and _depth(html) > MAX_DEPTH:
        raise Unreadable(f"nested more than {MAX_DEPTH} deep")
    tree = HTMLTree.parse(html)
    marked = extract_plain_text(tree, preserve_formatting="minimal_html", main_content=True, alt_texts=False, list_bullets=False)
    pieces = HEADING.split(marked)  # text, level, heading, text, level, heading, ...
    headings = [_plain(heading).replace("\n", " ") for heading in pieces[2::3]]
    bodies = [_plain(body) for body in pieces[3::3]]
    sections = [(heading, body) for heading, body in zip(headings, bodies, strict=True) if heading and body]
    return Page(_title(tree, headings), _plain(marked), sections)


def _title(tree: HTMLTree, headings: list[str]) -> str:
    """The page's title without the site's name; its first heading where there is no title."""
    title = BLANKS.sub(" ", (tree.title or "").replace("\n", " ")).strip()
    body = tree.body
    first = body.query_selector("h1") if body is not None else None
    heading = " ".join(((first.text if first is not None else "") or "").split())
    heading = heading or (headings[0] if headings else "")
    if not title:
        return heading
    if heading and heading.lower() in title.lower():
        return heading
    parts = TITLE_PARTS.split(title)
    return parts[0] if len(parts[0].split()) > 1 else max(parts, key=len)


def _plain(marked: str) -> str:
    text = entities.unescape(TAG.sub("", marked))
    return BREAKS.sub("\n\n", BLANKS.sub(" ", text)).strip()


def _depth(html: str) -> int:
    depth = deepest = 0
    for match in BLOCK.finditer(html):
        depth = max(0, depth - 1) if match[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest
