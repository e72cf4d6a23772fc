"""Held-out data sets made from pairs and documents of one split: pure functions over Arrow tables, the same in every run.

What is chosen follows from hashes of seed and text alone, so row order, block layout and machine cannot move it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa

from raysberta.evaluation.settings import OwnTask
from raysberta.schema import text_id

PAIR_COLUMNS = ["query", "positive"]
DOCUMENT_COLUMNS = ["group", "title", "text", "label"]
PROBE_PER_LABEL = 16
"""Texts of a label that the linear probe may draw from; mteb draws 8 of them, ten times."""
PROBE_AT_LEAST = 4
"""Fewer texts of a label on either side of the probe: the label is left out."""
CLUSTER_AT_LEAST = 5
"""Fewer texts of a label: it is no cluster."""

Tables = dict[str, pa.Table]


def build(task: OwnTask, rows: pa.Table, seed: int) -> tuple[Tables, int]:
    """The tables of one half of a task, and how many queries, pairs or texts it is scored on.

    Args:
        task: What to make.
        rows: For Retrieval and BitextMining pairs with PAIR_COLUMNS, for the others documents with DOCUMENT_COLUMNS; all of one
            split, source, kind and language.
        seed: Of the recipe.
    """
    if task.type == "Retrieval":
        return _retrieval(task, rows, seed)
    if task.type == "BitextMining":
        return _bitext(task, rows, seed)
    if task.type == "PairClassification":
        return _pair_classification(task, rows, seed)
    if task.type == "Classification":
        return _classification(task, rows, seed)
    return _clustering(task, rows, seed)


def same(text: str) -> str:
    """Texts that differ in blanks only count as one."""
    return " ".join(text.split())


def reads(task: OwnTask) -> bool:
    """Whether the task is made from pairs; from documents otherwise."""
    return task.type in ("Retrieval", "BitextMining")


def _retrieval(task: OwnTask, rows: pa.Table, seed: int) -> tuple[Tables, int]:
    """Queries with all their positives; distractors are positives of the half's other queries."""
    positives: dict[str, set[str]] = defaultdict(set)
    for query, positive in _pairs(rows):
        positives[query].add(positive)
    chosen = _first(positives, task.queries, seed)
    corpus = {text for query in chosen for text in positives[query]}
    others = {text for texts in positives.values() for text in texts} - corpus
    corpus |= set(_first(others, max(0, task.documents - len(corpus)), seed))
    links = [(query, text) for query in chosen for text in sorted(positives[query])]
    return {
        "queries": pa.table({"id": [text_id(query) for query in chosen], "text": chosen}),
        "corpus": pa.table({"id": [text_id(text) for text in sorted(corpus)], "text": sorted(corpus)}),
        "relevant": pa.table({"query_id": [text_id(query) for query, _ in links], "corpus_id": [text_id(text) for _, text in links]}),
    }, len(chosen)


def _bitext(task: OwnTask, rows: pa.Table, seed: int) -> tuple[Tables, int]:
    """Pairs in which neither side occurs twice: a repeated side has no one right answer."""
    left: dict[str, list[str]] = defaultdict(list)
    right: dict[str, list[str]] = defaultdict(list)
    for query, positive in sorted(set(_pairs(rows))):
        left[query].append(positive)
        right[positive].append(query)
    clear = [query for query, texts in left.items() if len(texts) == 1 and len(right[texts[0]]) == 1]
    chosen = _first(clear, task.queries, seed)
    return {"pairs": pa.table({"sentence1": chosen, "sentence2": [left[query][0] for query in chosen]})}, len(chosen)


def _pair_classification(task: OwnTask, rows: pa.Table, seed: int) -> tuple[Tables, int]:
    """As many pairs of one label as of two, both texts of one group or of one title, so that the topic gives nothing away.

    The senses of a word share its group or its title; where neither holds two labels, pairs are made across all texts.
    """
    found = _labelled(rows, titled=False)
    groups: dict[str, dict[str, list[str]]] = {}
    for column in (lambda row: row.group, lambda row: row.title, lambda row: ""):
        groups = defaultdict(lambda: defaultdict(list))
        for row in found:
            groups[column(row)][row.label].append(row.text)
        if any(len(labels) > 1 for labels in groups.values()):
            break
    alike: list[tuple[str, str]] = []
    unlike: list[tuple[str, str]] = []
    for labels in groups.values():
        same_label = [pair for texts in labels.values() for pair in _neighbours(_first(texts, len(texts), seed))]
        crossed = _crossed({label: _first(texts, len(texts), seed) for label, texts in labels.items()})
        count = min(len(same_label), len(crossed))
        alike += _first_pairs(same_label, count, seed)
        unlike += _first_pairs(crossed, count, seed)
    count = min(task.queries // 2, len(alike))
    pairs = [(*pair, 1) for pair in _first_pairs(alike, count, seed)] + [(*pair, 0) for pair in _first_pairs(unlike, count, seed)]
    pairs.sort(key=lambda pair: text_id(str(seed), pair[0], pair[1]))
    columns = list(zip(*pairs, strict=True)) or [(), (), ()]
    table = pa.table({"sentence1": pa.array(columns[0], pa.string()), "sentence2": pa.array(columns[1], pa.string()), "labels": columns[2]})
    return {"pairs": table}, len(pairs)


def _classification(task: OwnTask, rows: pa.Table, seed: int) -> tuple[Tables, int]:
    """Texts to train the linear probe on and texts to test it on; no group is on both sides."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in _labelled(rows):
        groups[row.group].append((row.label, row.text))
    sides: tuple[dict[str, list[str]], dict[str, list[str]]] = (defaultdict(list), defaultdict(list))
    for group in _first(groups, len(groups), seed):
        load = [sum(len(side[label]) for label in {label for label, _ in groups[group]}) for side in sides]
        for label, text in groups[group]:
            sides[load[1] < load[0]][label].append(text)
    labels = sorted(label for label in sides[0] if min(len(sides[0][label]), len(sides[1][label])) >= PROBE_AT_LEAST)
    if len(labels) < 2:
        return {}, 0
    train = [(label, text) for label in labels for text in _first(sides[0][label], PROBE_PER_LABEL, seed)]
    test = _round_robin({label: sides[1][label] for label in labels}, task.queries, seed)
    return {"train": _coded(train, labels), "test": _coded(test, labels)}, len(test)


def _clustering(task: OwnTask, rows: pa.Table, seed: int) -> tuple[Tables, int]:
    by_label: dict[str, list[str]] = defaultdict(list)
    for row in _labelled(rows):
        by_label[row.label].append(row.text)
    by_label = {label: texts for label, texts in by_label.items() if len(texts) >= CLUSTER_AT_LEAST}
    if len(by_label) < 2:
        return {}, 0
    chosen = _round_robin(by_label, task.queries, seed)
    return {"texts": _coded(chosen, sorted(by_label))}, len(chosen)


def _pairs(rows: pa.Table) -> Iterable[tuple[str, str]]:
    """Query and positive, trivial ones left out."""
    for query, positive in zip(rows["query"].to_pylist(), rows["positive"].to_pylist(), strict=True):
        if same(query) and same(positive) and same(query) != same(positive):
            yield same(query), positive.strip()


class _Labelled(NamedTuple):
    group: str
    title: str
    text: str
    label: str


def _labelled(rows: pa.Table, titled: bool = True) -> list[_Labelled]:
    """The labelled documents, their title before the text; a text that occurs twice counts once, one with two labels not at all."""
    found: dict[str, _Labelled] = {}
    labels: dict[str, set[str]] = defaultdict(set)
    columns = [rows[name].to_pylist() for name in DOCUMENT_COLUMNS]
    for row in map(_Labelled._make, sorted(zip(*columns, strict=True))):
        whole = f"{row.title}\n{row.text}" if titled and row.title and not row.text.startswith(row.title) else row.text
        if row.label and same(whole):
            found.setdefault(same(whole), row._replace(text=whole))
            labels[same(whole)].add(row.label)
    return [row for key, row in found.items() if len(labels[key]) == 1]


def _first(texts: Iterable[str], count: int, seed: int) -> list[str]:
    """The first texts by hash."""
    return sorted(texts, key=lambda text: text_id(str(seed), text))[:count]


def _first_pairs(pairs: Iterable[tuple[str, str]], count: int, seed: int) -> list[tuple[str, str]]:
    return sorted(pairs, key=lambda pair: text_id(str(seed), *pair))[:count]


def _round_robin(by_label: Mapping[str, list[str]], count: int, seed: int) -> list[tuple[str, str]]:
    """One text of each label after the other until there are enough, so no label outweighs the rest."""
    ranked = [(rank, label, text) for label, texts in by_label.items() for rank, text in enumerate(_first(texts, len(texts), seed))]
    return [(label, text) for _, label, text in sorted(ranked)[:count]]


def _neighbours(texts: list[str]) -> list[tuple[str, str]]:
    """Texts two by two, each used once."""
    return list(zip(texts[::2], texts[1::2], strict=False))


def _crossed(labels: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """Pairs of two labels, each text used once: the largest label gives to the next until one is left."""
    left = {label: list(texts) for label, texts in sorted(labels.items())}
    pairs: list[tuple[str, str]] = []
    while True:
        larger = sorted(left, key=lambda label: (-len(left[label]), label))[:2]
        if len(larger) < 2 or not left[larger[1]]:
            return pairs
        pairs.append((left[larger[0]].pop(), left[larger[1]].pop()))


def _coded(rows: list[tuple[str, str]], labels: list[str]) -> pa.Table:
    """Texts with their label as a number and as a name."""
    code = {label: number for number, label in enumerate(labels)}
    return pa.table({"text": [text for _, text in rows], "label": [code[label] for label, _ in rows], "name": [label for label, _ in rows]})
