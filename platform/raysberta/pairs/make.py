"""Documents to pairs, one function of Arrow batches: no state, no order, so any number of workers gives the same pairs.

Each kind says which parts of one document are its two sides; `same_label` alone pairs two documents (see match.py).
"""

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from raysberta.pairs.text import cut, name_words, normalise
from raysberta.schema import PAIR, SELF_PAIR, Task, text_id

Sides = Iterator[tuple[str, str]]
Sections = list[dict[str, str]]
Mappings = Mapping[str, Mapping[str, Task]]
"""Source name -> kind -> task."""

USAGE, TRANSLATION, NAME, DESCRIPTION, OPENING, REST = "usage", "translation", "name", "description", "opening", "rest"
"""Headings that readers give to what is no section of a page."""


def _of_heading(sections: Sections, heading: str) -> list[str]:
    return [section["text"] for section in sections if section["heading"] == heading]


def _title_text(doc_id: str, title: str, text: str, sections: Sections) -> Sides:
    yield title, text


def _text(doc_id: str, title: str, text: str, sections: Sections) -> Sides:
    """A text and itself, for training that reads it twice."""
    yield text, text


def _definition_usage(doc_id: str, title: str, text: str, sections: Sections) -> Sides:
    """One usage a document, chosen by hash: the first one would always be of the first sense."""
    usages = sorted(_of_heading(sections, USAGE), key=lambda usage: text_id(doc_id, usage))
    yield from ((text, usage) for usage in usages[:1])


def _name_summary(doc_id: str, title: str, text: str, sections: Sections) -> Sides:
    yield from ((name_words(name), title) for name in _of_heading(sections, NAME)[:1])


def _translation(doc_id: str, title: str, text: str, sections: Sections) -> Sides:
    yield from ((text, other) for other in _of_heading(sections, TRANSLATION))


def _name_description(doc_id: str, title: str, text: str, sections: Sections) -> Sides:
    yield from ((text, description) for description in _of_heading(sections, DESCRIPTION))


def _opening_rest(doc_id: str, title: str, text: str, sections: Sections) -> Sides:
    """The first sentence in one language, what follows it in the other."""
    yield from zip(_of_heading(sections, OPENING), _of_heading(sections, REST), strict=True)


def _heading_section(doc_id: str, title: str, text: str, sections: Sections) -> Sides:
    """A heading such as "Examples" means nothing without the page's title, so the title stands before it."""
    for section in sections:
        heading = section["heading"]
        if heading and heading not in (USAGE, TRANSLATION, NAME, DESCRIPTION, OPENING, REST):
            alone = not title or normalise(title) == normalise(heading)
            yield heading if alone else f"{title}: {heading}", section["text"]


SIDES: Mapping[str, Callable[[str, str, str, Sections], Sides]] = {
    "term_definition": _title_text,
    "definition_usage": _definition_usage,
    "summary_body": _title_text,
    "name_summary": _name_summary,
    "translation": _translation,
    "name_description": _name_description,
    "opening_rest": _opening_rest,
    "title_body": _title_text,
    "heading_section": _heading_section,
    SELF_PAIR: _text,
}
"""The kinds that are made from one document."""


def make(documents: pa.Table, mappings: Mappings, max_characters: int) -> pa.Table:
    """The pairs of a batch of documents.

    Args:
        documents: Schema DOCUMENT.
        mappings: What to make of which source; sources that are not in it give nothing, nor do kinds that take two documents.
        max_characters: Either side is cut at a sentence end before this.

    Returns:
        Schema PAIR, in the order of the documents. A side may be empty: filter.py judges.
    """
    rows = []
    for document in documents.to_pylist():
        sections = document["sections"] or []
        for kind, task in mappings.get(document["source"], {}).items():
            if kind in SIDES:
                for query, positive in SIDES[kind](document["doc_id"], document["title"], document["text"], sections):
                    rows.append(row(document, kind, task, cut(query, max_characters), cut(positive, max_characters)))
    return pa.Table.from_pylist(rows, PAIR)


def row(document: Mapping[str, str], kind: str, task: Task, query: str, positive: str) -> dict[str, object]:
    """One row of schema PAIR; the id follows from what the pair is, never from where it stood."""
    return {
        "pair_id": text_id(document["source"], kind, document["doc_id"], query, positive),
        **{name: document[name] for name in ("doc_id", "group", "split", "source", "language")},
        "kind": kind,
        "task": task,
        "query": query,
        "positive": positive,
        "negatives": [],
    }
