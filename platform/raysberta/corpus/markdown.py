"""Markdown to title, sections and text: front matter, code, comments and inline markup away, headings kept."""

import re

from raysberta.corpus.extract import Page

FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n(?:---|\.\.\.)\s*(?:\n|\Z)", re.DOTALL)
FRONT_TITLE = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$")
SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
RULE = re.compile(r"^\s*(?:[-*_]\s*){3,}$|^\s*\|?[\s:|-]+\|[\s:|-]*$")
INLINE = (
    (re.compile(r"!\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])"), ""),
    (re.compile(r"\[([^\]]+)\](?:\([^)\s]*(?:\s+\"[^\"]*\")?\)|\[[^\]]*\])"), r"\1"),
    (re.compile(r"<(https?://[^>\s]+)>"), r"\1"),
    (re.compile(r"</?[a-zA-Z][^<>]*>"), ""),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w_])_(?=\S)([^_\n]+?)(?<=\S)_(?![\w_])"), r"\1"),
    (re.compile(r"`+([^`\n]+)`+"), r"\1"),
    (re.compile(r"\s*\{#[\w-]+\}"), ""),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!|<>-])"), r"\1"),
)
DEFINITION = re.compile(r"^\s{0,3}\[[^\]]+\]:\s+\S+")
QUOTE = re.compile(r"^\s{0,3}(?:>\s?)+")


def read_markdown(markdown: str) -> Page:
    """Title (front matter, else the first heading), text and sections of a document."""
    markdown = markdown.replace("\r\n", "\n").replace("\r", "\n")
    front = FRONT_MATTER.match(markdown)
    named = FRONT_TITLE.search(front[1]) if front else None
    body = COMMENT.sub("", markdown[front.end() :] if front else markdown)
    blocks = _sections(body)
    headings = [heading for heading, _ in blocks if heading]
    title = _inline(named[1]) if named else (headings[0] if headings else "")
    text = "\n\n".join(part for block in blocks for part in block if part)
    return Page(title, text, [(heading, content) for heading, content in blocks if heading and content])


def _sections(body: str) -> list[tuple[str, str]]:
    """Heading and text up to the next heading; the first heading is "" where text stands before all headings."""
    found: list[tuple[str, list[str]]] = [("", [])]
    fence = ""
    for line in body.split("\n"):
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(mark[1][0]):
                fence = ""
            continue
        if mark:
            fence = mark[1]
            continue
        heading = ATX.match(line)
        lines = found[-1][1]
        if heading:
            found.append((_inline(heading[2]), []))
        elif SETEXT.match(line) and lines and lines[-1].strip() and (len(lines) < 2 or not lines[-2].strip()):
            found.append((_inline(lines.pop()), []))
        elif not RULE.match(line) and not DEFINITION.match(line):
            lines.append(QUOTE.sub("", line))
    return [(heading, _text(lines)) for heading, lines in found if heading or any(line.strip() for line in lines)]


def _text(lines: list[str]) -> str:
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    return "\n\n".join(text for text in map(_inline, paragraphs) if text)


def _inline(text: str) -> str:
    for pattern, replacement in INLINE:
        text = pattern.sub(replacement, text)
    return "\n".join(" ".join(line.replace("|", " ").split()) for line in text.split("\n")).strip()
