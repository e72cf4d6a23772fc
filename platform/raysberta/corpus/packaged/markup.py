"""Wiki markup of ru.wiktionary to plain text: links, templates from the inside out, emphasis, entities."""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence

COMMENT = re.compile(r"<!--.*?(?:-->|$)|<ref\b[^>/]*/>|<ref\b[^>]*>.*?(?:</ref>|$)", re.DOTALL)
FILE_LINK = re.compile(r"\[\[(?:Файл|Изображение|File|Image|Категория|Category):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]", re.IGNORECASE)
LINK = re.compile(r"\[\[([^\[\]|]*)(?:\|([^\[\]]*))?\]\]")
URL = re.compile(r"\[https?://\S+\s*([^\]]*)\]")
TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
EMPHASIS = re.compile(r"'{2,}")
STRESS = re.compile("[\u0300\u0301]")
SPACE = re.compile(r"[\s\u00a0\u200e\u200b]+")
BEFORE_PUNCTUATION = re.compile(r" +([,.;:!?…)»])")

Expand = Callable[[str, Sequence[str], dict[str, str]], str]
"""Name, positional and named parameters of a template to the text that stands for it."""


def expand(text: str, template: Expand) -> str:
    """Markup with links replaced by what a reader sees and templates by what `template` says of them, innermost first."""
    text = FILE_LINK.sub("", COMMENT.sub("", text))
    text = URL.sub(r"\1", LINK.sub(_seen, text))
    for _ in range(8):
        text, replaced = TEMPLATE.subn(lambda match: _call(match[1], template), text)
        if not replaced:
            break
    return text


def plain(text: str) -> str:
    """Text without tags, emphasis, entities and stress marks, blanks single, NFC."""
    text = html.unescape(TAG.sub("", EMPHASIS.sub("", text)))
    text = STRESS.sub("", unicodedata.normalize("NFC", text))
    return BEFORE_PUNCTUATION.sub(r"\1", SPACE.sub(" ", text)).strip()


def _seen(link: re.Match[str]) -> str:
    target, shown = link[1], link[2]
    if shown is None:
        return target.rsplit(":", 1)[-1].split("#", 1)[0]
    return shown.replace("|", " ")


def _call(body: str, template: Expand) -> str:
    name, *parameters = body.split("|")
    positional: list[str] = []
    named: dict[str, str] = {}
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        if equals and re.fullmatch(r"[\w -]{1,24}", key):
            named[key.strip()] = value.strip()
        else:
            positional.append(parameter.strip())
    return template(name.strip(), positional, named).replace("|", " ")  # a bar would cut the template around it
