"""Pairs of two documents that share a label: sentences of one intent, contexts of one word sense, definitions of one field."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain
from types import MappingProxyType

import pyarrow as pa

from raysberta.pairs.make import row
from raysberta.pairs.text import cut
from raysberta.schema import PAIR, Task, text_id

LABELLED = ["doc_id", "group", "split", "source", "language", "label", "text"]
"""The columns of DOCUMENT that are read."""

CROSS_LANGUAGE = 0.25
"""Share of documents that are paired with one of another language, where the label has such."""

CIRCLE = 50_000
"""Documents of one label, about, among which partners are looked for: a process holds as many, however many the label has."""

Document = Mapping[str, str]
Cluster = tuple[str, str, str]
"""Source, label and split."""
Circles = Mapping[Cluster, int]
"""Into how many circles the documents of a label are cut, by a hash of their ids; one where nothing is said."""


def circles(counts: Mapping[Cluster, int]) -> dict[Cluster, int]:
    """The labels that are cut, by their documents."""
    return {cluster: -(-count // CIRCLE) for cluster, count in counts.items() if count > CIRCLE}


def circle(document: Document, cut_into: Circles) -> tuple[str, str, str, int]:
    """The circle that a document is in."""
    source, label, split = document["source"], document["label"], document["split"]
    of = cut_into.get((source, label, split), 1)
    return source, label, split, int(text_id("circle", document["doc_id"]), 16) * of >> 64


def same_label(documents: pa.Table, tasks: Mapping[str, Task], max_characters: int, cut_into: Circles = MappingProxyType({})) -> pa.Table:
    """Each labelled document as a query with one other document of its source, split and label.

    Partners follow from hashes of the ids alone. One of another group is preferred (texts of a group are near-copies), and the
    same pair never comes twice the other way round. The pair's `group` is its source, label and split: two texts of one label
    answer one another, so neither may ever be the other's negative.

    Args:
        documents: Columns LABELLED; all documents of some circles, in any order.
        tasks: Source name -> task of its pairs.
        max_characters: Either side is cut at a sentence end before this.
        cut_into: The circles of a label.

    Returns:
        Schema PAIR.
    """
    members_of: dict[tuple[str, str, str, int], list[Document]] = defaultdict(list)
    for document in documents.select(LABELLED).to_pylist():
        if document["label"] and document["source"] in tasks:
            members_of[circle(document, cut_into)].append(document)
    rows = []
    for (source, label, split, _), members in sorted(members_of.items()):
        members.sort(key=lambda document: text_id("same_label", document["doc_id"]))
        for left, right in _matches(members):
            tied = {**left, "group": f"{source}/{label}/{split}"}
            rows.append(row(tied, "same_label", tasks[source], cut(left["text"], max_characters), cut(right["text"], max_characters)))
    return pa.Table.from_pylist(rows, PAIR)


def _matches(members: list[Document]) -> list[tuple[Document, Document]]:
    """Each member with its partner; members stand in order of hash, so the next one round is a random one."""
    by_language: dict[str, list[int]] = defaultdict(list)
    for number, member in enumerate(members):
        by_language[member["language"]].append(number)
    elsewhere = {language: sorted(chain(*(by_language[other] for other in by_language if other != language))) for language in by_language}
    taken: set[frozenset[int]] = set()
    matches = []
    for number, member in enumerate(members):
        own = by_language[member["language"]]
        crossing = int(text_id("cross", member["doc_id"]), 16) < CROSS_LANGUAGE * 16**16
        others = elsewhere[member["language"]] if crossing else []
        partner = _next(number, others or own, members, taken)
        if partner is not None:
            taken.add(frozenset((number, partner)))
            matches.append((member, members[partner]))
    return matches


def _next(number: int, candidates: list[int], members: list[Document], taken: set[frozenset[int]]) -> int | None:
    """The next candidate round the circle that is not yet paired with this one: of another group, else of the same. Candidates rise."""
    fallback = None
    for other in _round(number, candidates):
        if frozenset((number, other)) in taken:
            continue
        if members[other]["group"] != members[number]["group"]:
            return other
        fallback = other if fallback is None else fallback
    return fallback


def _round(number: int, candidates: list[int]) -> Iterator[int]:
    """The candidates above a number, then those below it; mostly the first one will do, so a label may have many documents."""
    above, below = bisect_right(candidates, number), bisect_left(candidates, number)
    yield from (candidates[place] for place in range(above, len(candidates)))
    yield from (candidates[place] for place in range(below))
