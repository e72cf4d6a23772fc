"""Russian translations of the help and messages of Mercurial, whose catalogue and help texts its package carries (GPL-2.0-or-later).

Text = the Russian message, section "translation" = the English one. Messages are paragraphs, so many have several sentences: where
both languages have as many, section "opening" is the first Russian sentence and "rest" the English text after the first English one.
Which passage goes on from this sentence is a question that matching words cannot answer: the inverse cloze task (Lee, Chang and
Toutanova, 2019, "Latent Retrieval for Weakly Supervised Open Domain Question Answering") across two languages. The one-line summary of
a command, a message of its own, opens the rest of the command's help.

Group = the help text that the message is a paragraph of, a command or a section of a topic; else the English message itself.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from raysberta.corpus.documents import Found
from raysberta.corpus.packaged.catalogue import translations
from raysberta.corpus.packaged.place import folder
from raysberta.corpus.packaged.prose import summary_and_body
from raysberta.errors import InputError

PACKAGE = "mercurial"
EXTENSIONS = "hgext"
LANGUAGE = "ru"
MIN_WORDS = 5
"""Of the English message; shorter ones are labels and names of options."""
MIN_OPENING_WORDS = 4
MIN_REST = 60
MAX_REST = 1500
DEFINITION = re.compile(r"^(?=@|def |class )", re.MULTILINE)
NAME = re.compile(r"^(?:def|class) (\w+)", re.MULTILINE)
DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
HEADING = re.compile(r"^(?=\S.*\n[=\-\"~]{3,}$)", re.MULTILINE)
"""Where a line is underlined."""
BLANK_LINES = re.compile(r"\n[ \t]*\n")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-ZА-ЯЁ\"'(])")
TERM = re.compile(r"\A\s*``[^`\n]*``\s*\n")
"""The line with the option that a paragraph defines: it is the same in both languages."""
INLINE = (
    (re.compile(r":hg:`([^`]*)`"), r"hg \1"),
    (re.compile(r":\w+:`([^`]*)`"), r"\1"),
    (re.compile(r"`+([^`]*)`+_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*\n]+)\*\*"), r"\1"),
    (re.compile(r"\|([\w()]+)\|_?"), r"\1"),
    (re.compile(r"^\s*(?:\.\. \w+::|[-*]\s|:[^:\n]+:)\s*"), ""),
    (re.compile(r"\s*\((?:DEPRECATED|ADVANCED|EXPERIMENTAL|УСТАРЕЛО|УСТАРЕЛА|РАСШИРЕННОЕ|ЭКСПЕРИМЕНТАЛЬНО[ЕЙ]?)\)"), ""),
    (re.compile(r"::\s*$"), ":"),
    (re.compile(r"\s+"), " "),
)
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-\d.]*[sdrifc]")
CODE = re.compile(r"[{}$=\[\]<>|\\]")
CYRILLIC, LETTER = re.compile("[а-яё]", re.IGNORECASE), re.compile(r"[^\W\d_]")
MIN_CYRILLIC = 0.6
MAX_CODE = 0.03
"""Signs of code per character of a message that is still prose."""


def parts() -> list[tuple[str, ...]]:
    """One work unit: it is small."""
    return [()]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The messages of the Russian catalogue."""
    root = folder(PACKAGE, key)
    file = root / "locale" / "ru" / "LC_MESSAGES" / "hg.mo"
    try:
        catalogue = translations(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{key}: package {PACKAGE} holds no Russian catalogue ({error}); right would be mercurial 7") from error
    groups, bodies = _help(root)
    for english, russian in catalogue.items():
        yield message(english, russian, groups.get(english.strip(), ""), bodies.get(english.strip(), ""))


def _help(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Paragraph to the help text it stands in, the first where it stands in several; first line of a command's help to what follows it."""
    groups: dict[str, str] = {}
    bodies: dict[str, str] = {}
    for name, text in _help_texts(root):
        paragraphs = [paragraph.strip() for paragraph in BLANK_LINES.split(text)]
        for paragraph in paragraphs:
            groups.setdefault(paragraph, name)
        bodies.setdefault(paragraphs[0], " ".join(summary_and_body(inspect.cleandoc(text))[1].split()))
    return groups, bodies


def _help_texts(root: Path) -> Iterator[tuple[str, str]]:
    for package in (root, root.parent / EXTENSIONS):
        for file in sorted(package.rglob("*.py")):
            name = str(file.relative_to(root.parent))
            for piece in DEFINITION.split(file.read_text(encoding="utf-8")):
                named, docstring = NAME.search(piece), DOCSTRING.search(piece)
                if docstring:
                    yield f"{name} {named[1] if named else ''}", docstring[1].strip()
    for file in sorted((root / "helptext").glob("*.txt")):
        for number, section in enumerate(HEADING.split(file.read_text(encoding="utf-8"))):
            yield f"{file.name} {number}", section.strip()


def message(english: str, russian: str, group: str, body: str) -> Found:
    """One message as a document.

    Args:
        english: As the catalogue has it, with markup.
        russian: Its translation, likewise.
        group: The help text it belongs to, "" where it is none.
        body: What follows it in a command's help, "" where it is not a first line.
    """
    prose = not (PLACEHOLDER.search(english) or len(CODE.findall(english)) > MAX_CODE * len(english) or english.rstrip().endswith("::"))
    english, russian = plain(english), plain(russian)
    sections = [("translation", english)]
    spoken, written = SENTENCE.split(russian), SENTENCE.split(english)
    rest = body or " ".join(written[1:])
    if len(spoken) == len(written) and len(spoken[0].split()) >= MIN_OPENING_WORDS and MIN_REST <= len(rest) <= MAX_REST:
        sections += [("opening", spoken[0]), ("rest", rest)]
    letters = len(LETTER.findall(russian))
    if not letters or russian == english:
        reason = "untranslated"
    elif not prose:
        reason = "placeholders_or_code"
    elif len(CYRILLIC.findall(russian)) < MIN_CYRILLIC * letters:
        reason = "little_russian"
    elif len(english.split()) < MIN_WORDS:
        reason = "short_message"
    else:
        reason = ""
    return Found(group or english.lower(), "", russian, LANGUAGE, "", sections, reason)


def plain(text: str) -> str:
    """Without reStructuredText, line breaks and the marks of deprecated options."""
    text = TERM.sub("", text)
    for pattern, replacement in INLINE:
        text = pattern.sub(replacement, text)
    return text.strip()
