"""A docstring as a searcher reads it: summary, prose, and what is left of its tables when there is no prose.

Understands numpydoc sections (a heading underlined with dashes), Google sections ("Args:"), Sphinx fields (":param x:"), doctests,
directives and the inline markup of reStructuredText and Markdown.
"""

import re

SECTION = re.compile(
    r"^(?:parameters?|other parameters|args?|arguments|keyword args|keyword arguments|inputs?|shapes?|returns?|yields?|receives|outputs?"
    r"|attributes|properties|methods|raises|warns|examples?|usage|references|see also|versionadded|todo|example usage)\s*:{0,2}\s*$",
    re.IGNORECASE,
)
EXAMPLES = re.compile(r"^(?:examples?|usage|references|see also|todo|example usage|methods)\s*:{0,2}\s*$", re.IGNORECASE)
UNDERLINE = re.compile(r"^\s*([-=~^\"])\1{2,}\s*$")
FIELD = re.compile(r"^:(?:(?:param|type|raises?|keyword|arg|ivar|cvar|var)\s[^:]*:|(?:returns?|rtype|yields?|raises?):)(?!`)")
DIRECTIVE = re.compile(r"^\.\. ")
KEPT_DIRECTIVE = re.compile(r"^\.\. (?:note|warning|tip|important|attention|seealso)\s*::", re.IGNORECASE)
DOCTEST = re.compile(r"^\s*(?:>>>|\.\.\.|In \[\d|Out\[\d)")
FENCE = re.compile(r"^\s*(?:```|~~~)")
TABLE = re.compile(r"^\s*(?:[+|].*[+|]|=+( +=+)+)\s*$")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(`])")
ABBREVIATION = re.compile(r"(?:\be\.g|\bi\.e|\betc|\bcf|\bvs|\bFig|\bEq|\bal|\b[A-Z])\.$")

INLINE = (
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]+)\]\([^)\s]*\)"), r"\1"),
    (re.compile(r"\[([^\]]+)\](?=\[[\w.]+\])\[[\w.]+\]"), r"\1"),
    (re.compile(r":[a-zA-Z][\w:+-]*:`[~!]?([^`<]*?)\s*(?:<[^`>]*>)?`"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}"), r"\1"),
    (re.compile(r"\s*\[(?:\d+|[A-Z]\w*)\]_"), ""),
    (re.compile(r"\|(\w+)\|_?"), r"\1"),
    (re.compile(r"\[`+[~!]?([^`]*?)`+\]"), r"\1"),
    (re.compile(r"`+[~!]?([^`]*?)`+_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*\n]+)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*\n]*?)\*(?![\w*])"), r"\1"),
    (re.compile(r"<(?:[a-zA-Z/][^<>]{0,80})>"), ""),
)
MARKED = re.compile(r"[`*\[|<]")
ENTRY = re.compile(r"^[\w*]{1,40}\s*\([^()]{0,200}(?:\([^()]*\)[^()]*){0,6}\)\s*:|^[\w*]{1,40} : ")
"""The start of a parameter's description."""
SIGNATURE = re.compile(r"^[\w.]+\([^()]*(?:\([^()]*\)[^()]*)*\)(?:\s*->.*)?$")
MIN_PROSE = 80


def summary_and_body(docstring: str) -> tuple[str, str]:
    """The first sentence, and the prose after it.

    Where the prose is under 80 characters, descriptions of parameters and results follow it; examples never do. Either may be "".

    Args:
        docstring: Already dedented, as `inspect.cleandoc` leaves it.
    """
    prose, tables = _blocks(docstring)
    if prose and SIGNATURE.match(prose[0]):
        prose = prose[1:]
    if not prose or ENTRY.match(prose[0]):
        return "", " ".join(prose + tables)
    summary, rest = _first_sentence(prose[0])
    body = " ".join([rest, *prose[1:]]).strip()
    if len(body) < MIN_PROSE:
        body = " ".join([body, *(entry if entry.endswith((".", ":", "!", "?")) else f"{entry}." for entry in tables)]).strip()
    return summary, body


def _first_sentence(paragraph: str) -> tuple[str, str]:
    start = 0
    for match in SENTENCE.finditer(paragraph):
        if not ABBREVIATION.search(paragraph[start : match.start()]):
            return paragraph[: match.start()], paragraph[match.end() :]
    return paragraph, ""


def _blocks(docstring: str) -> tuple[list[str], list[str]]:
    """Paragraphs of prose, and paragraphs of the tables of parameters and results."""
    prose: list[str] = []
    tables: list[str] = []
    target: list[str] | None = prose
    fenced = False
    skipped_indent: int | None = None  # a directive or a literal block lasts as long as the indentation
    paragraph: list[str] = []

    def flush() -> None:
        text = _inline(" ".join(paragraph))
        if target is not None and sum(map(str.isalpha, text)) >= 3:
            target.append(text)
        paragraph.clear()

    doctest = False  # with its output, up to the next empty line
    lines = docstring.expandtabs().splitlines()
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        stripped = line.strip()
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if FENCE.match(line):
            flush()
            fenced = not fenced
            continue
        if skipped_indent is not None and stripped and indent <= skipped_indent:
            skipped_indent = None
        if fenced or skipped_indent is not None:
            continue
        if not stripped:
            flush()
            doctest = False
            continue
        if doctest:
            continue
        if SECTION.match(stripped) or FIELD.match(stripped):
            flush()
            target = None if EXAMPLES.match(stripped) else tables
            if not FIELD.match(stripped):
                continue
            stripped = re.sub(r"^:\w+:? ?", "", stripped)
        elif UNDERLINE.match(line):
            continue
        elif UNDERLINE.match(following) and indent == 0:  # "Notes", "Warnings": prose again
            flush()
            target = prose
            continue
        elif target is not prose and indent == 0 and not UNDERLINE.match(following) and _opens_prose(stripped, lines, number):
            flush()
            target = prose
        if DIRECTIVE.match(stripped):
            flush()
            if not KEPT_DIRECTIVE.match(stripped):
                skipped_indent = indent
            else:
                paragraph.append(stripped.split("::", 1)[1].strip())
            continue
        if DOCTEST.match(line) or TABLE.match(line):
            flush()
            doctest = DOCTEST.match(line) is not None
            continue
        if stripped.endswith("::"):
            skipped_indent = indent
            stripped = stripped[:-1]
        if target is tables and indent <= 4 and re.match(r"^[\w*`., ]{1,40}\s*(?:\([^)]*\))?\s*:", stripped):
            flush()
        paragraph.append(stripped)
    flush()
    return prose, tables


def _opens_prose(line: str, lines: list[str], number: int) -> bool:
    """Whether an unindented line after a Google section is a sentence and not one more entry of a numpydoc table."""
    after_blank = number == 0 or not lines[number - 1].strip()
    return after_blank and line[:1].isupper() and len(line) > 40 and " : " not in line


def _inline(text: str) -> str:
    if MARKED.search(text):
        for pattern, replacement in INLINE:
            text = pattern.sub(replacement, text)
    text = text.replace("\\ ", "").replace("\\", "") if "\\" in text and "\\frac" not in text else text
    return re.sub(r"\s+", " ", text).strip()
