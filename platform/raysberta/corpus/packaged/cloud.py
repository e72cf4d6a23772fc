"""English descriptions of what cloud services can be asked to do: API models of Amazon Web Services in the package botocore (Apache-2.0).

Title = first sentence of an operation's description, text = the rest of it, label = service, group = the service with the noun of
the operation's name (creating, listing and deleting a queue share a split). Sentences that several operations of a service share are
left out: they name permissions, limits, retirements. Where a service has several versions of its API, the newest.
"""

import gzip
import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.packaged.place import folder
from raysberta.corpus.packaged.prose import ABBREVIATION, SENTENCE
from raysberta.errors import InputError

PACKAGE = "botocore"
LANGUAGE = "en"
MIN_TITLE_WORDS = 4
MAX_TITLE = 300
MIN_BODY = 100
MAX_BODY = 1500
SHARED = 3
"""A sentence of so many operations of a service is left out."""
BLOCK = re.compile(r"</(?:p|li|dt|dd|note|important|h\d|tr)>|<br\s*/?>")
TAG = re.compile(r"<[^<>]*>")
SPACE = re.compile(r"\s+")
BEFORE_PUNCTUATION = re.compile(r" +([,.;:!?)])")
POINTS_ELSEWHERE = re.compile(
    r"^(?:For (?:more|further|additional|detailed) |To learn more|To view|See |Also see|The following operations are related)"
)
"""Sentences that are the same everywhere: where to read more."""
NOUN = re.compile(r"^(?:Batch)?[A-Z][a-z]+(?=[A-Z])")
"""The verb of an operation's name, to take off: what is left is its noun."""


def parts(services: Sequence[str]) -> list[tuple[str, ...]]:
    """A work unit for all services: each is read in some hundredths of a second."""
    return [tuple(services)]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The operations of each service."""
    root = folder(PACKAGE, key) / "data"
    for service in part:
        versions = sorted((root / service).glob("*/service-2.json.gz"))
        if not versions:
            raise InputError(f"{key}.services: package {PACKAGE} knows no service {service!r}; right would be a folder of {PACKAGE}/data")
        yield from _service(service, versions[-1])


def _service(service: str, file: Path) -> Iterator[Found]:
    try:
        operations = json.loads(gzip.decompress(file.read_bytes()))["operations"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        yield broken(service, f"{service}: {type(error).__name__}")
        return
    said = {name: sentences(described.get("documentation", "")) for name, described in operations.items()}
    operations_with = Counter(sentence for told in said.values() for sentence in set(told))
    for name, told in said.items():
        yield operation(service, name, [sentence for sentence in told if operations_with[sentence] < SHARED])


def operation(service: str, name: str, told: Sequence[str]) -> Found:
    """One operation as a document.

    Args:
        service: The folder it is from.
        name: As in CreateQueue.
        told: The sentences about it.
    """
    title, *others = told or [""]
    body = " ".join(sentence for sentence in others if not POINTS_ELSEWHERE.match(sentence))
    if len(body) > MAX_BODY:
        body = body[: body.rfind(". ", 0, MAX_BODY) + 1]
    if len(body) < MIN_BODY:
        reason = "short_body"
    elif len(title.split()) < MIN_TITLE_WORDS or len(title) > MAX_TITLE:
        reason = "no_summary"
    else:
        reason = ""
    noun = NOUN.sub("", name).removesuffix("s").lower()
    return Found(f"{service} {noun}", title, body, LANGUAGE, service, (), reason)


def sentences(markup: str) -> list[str]:
    """The sentences of a description in HTML, without its tags; an item of a list ends one."""
    found: list[str] = []
    for block in BLOCK.sub("\n", markup).split("\n\n" if "<" not in markup else "\n"):
        text = BEFORE_PUNCTUATION.sub(r"\1", SPACE.sub(" ", html.unescape(TAG.sub("", block)))).strip()
        start = 0
        for match in SENTENCE.finditer(text):
            if not ABBREVIATION.search(text[start : match.start()]):
                found.append(text[start : match.start()])
                start = match.end()
        if text[start:]:
            found.append(text[start:])
    return found
