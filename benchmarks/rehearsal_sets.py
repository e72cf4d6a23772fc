"""What the published recipe's data sets hold in the rehearsal: items by number, each with its fate, and the counts that follow.

Everything is computed from the recipe's own entries: which columns a record has, how many pairs a set is capped at, what its thresholds
are. Entries that are read from the same files are one collection; those that read the same records of it are one group.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from raysberta.data_sets.settings import DatasetSource
from raysberta.schema import Task
from rehearsal_texts import Pool, mix, step

Fate = Literal[
    "good", "duplicate", "shared", "too_long", "empty_query", "empty_positive", "missing", "in_evaluation", "below", "no_positive",
    "no_label", "broken", "elsewhere"
]  # fmt: skip
SHARES: Mapping[Fate, float] = {
    "duplicate": 0.01,
    "shared": 0.003,
    "too_long": 0.003,
    "empty_query": 0.001,
    "empty_positive": 0.001,
    "missing": 0.001,
    "in_evaluation": 0.002,
    "below": 0.1,
    "no_positive": 0.01,
    "no_label": 0.005,
    "broken": 0.001,
}
"""Of each that there can be, as a share of a set's cap."""
SURPLUS = 0.03
"""Good pairs above the cap."""
PASSAGES = 0.001
"""Share of the good items that repeat a passage of an evaluation set, which stay."""
ELSEWHERE = 0.02
"""Rows of none of the entries, where a column says whose a row is."""
LEAST_CAP = 30
SENTENCES: Mapping[Task, tuple[int, int]] = {"topic": (3, 10), "retrieval": (2, 9), "paraphrase": (2, 3)}
"""Of a positive, by what its pair is for."""
QUERIES_OF_A_PASSAGE = 3
"""Of retrieval sets in English: their passages repeat."""
NEGATIVES = {"parquet": 1, "jsonl": 8}
LABELLED = 2
PARTS = 3
"""Of a text that comes in parts, at most."""
ROOM = 4
"""Numbers of texts for each item: its positives, and what stands beside them. Queries of several sentences have as many again."""


def cap(limit: int, size: float) -> int:
    """A cap at a share of the full size."""
    return max(LEAST_CAP, round(limit * size))


@dataclass(frozen=True)
class Entry:
    """One data set of the recipe."""

    name: str
    source: DatasetSource
    offset: int
    """Texts from this number on are its own."""

    @property
    def cap(self) -> int:
        """Pairs that are kept at most."""
        return self.source.limit or 0

    @property
    def query_language(self) -> str:
        """Of its queries."""
        return self.source.language or "ru"

    @property
    def language(self) -> str:
        """Of its positives: English where they are translations."""
        return "en" if self.source.positive_field.rpartition(".")[2] == "en" else self.query_language

    def answers(self, item: int) -> int:
        """Positives of an item: some questions have two answers."""
        return 1 + (mix(item) % 4 == 0) if self.source.positive_field.startswith("answers.") else 1


@dataclass(frozen=True)
class Content:
    """What an item says."""

    query: str
    positives: Mapping[str, Sequence[str]]
    """By the name of the entry."""
    negatives: Sequence[str] = ()


@dataclass(frozen=True)
class Group:
    """Entries that read the same records, and the items that these come from."""

    entries: tuple[Entry, ...]
    counts: Mapping[Fate, int]
    copied: "Group | None" = field(default=None, repr=False)
    """Whose items it repeats."""

    @cached_property
    def items(self) -> int:
        """All."""
        return sum(self.counts.values())

    @property
    def passages(self) -> int:
        """Of the good items the first so many repeat a passage of an evaluation set."""
        return max(1, round(self.counts["good"] * PASSAGES))

    @property
    def labelled(self) -> bool:
        """Whether rows of one query come together by their labels."""
        return bool(self.entries[0].source.labels)

    def fate(self, place: int) -> tuple[Fate, int]:
        """What becomes of the item at a place, and its number among those of its fate. Fates are spread over all places."""
        number = place * self._step % self.items
        for fate, count in self.counts.items():
            if number < count:
                return fate, number
            number -= count
        raise IndexError(place)

    @cached_property
    def _step(self) -> int:
        return step(self.items)

    def before(self, fate: Fate) -> int:
        """Items of the fates before one: an item of its own has that many numbers before it."""
        found = 0
        for other, count in self.counts.items():
            if other == fate:
                return found
            found += count
        raise KeyError(fate)

    def content(self, fate: Fate, number: int, pools: Mapping[str, Pool]) -> Content:
        """What an item says."""
        if fate == "duplicate":
            return self.content("good", self.repeated(number), pools)
        if fate == "shared":
            assert self.copied is not None
            other = self.copied.content("good", self.copied.repeated(number), pools)
            (positives,) = other.positives.values()
            return Content(other.query, {self.entries[0].name: positives}, other.negatives)
        item = number + self.before(fate)
        first = self.entries[0]
        pool = pools[first.query_language]
        grouped = self.labelled or first.source.order_field
        query = pool.text(first.offset + ROOM * self.items + item, 2, 2) if grouped else pool.query(first.offset + item)
        positives = {entry.name: self._positives(entry, fate, number, item, pools) for entry in self.entries}
        if fate == "empty_query":
            query = ""
        return Content(query, positives, self._negatives(item, pools))

    def repeated(self, number: int) -> int:
        """The good item that another one repeats: none with a passage of an evaluation set."""
        return self.passages + number * 7919 % (self.counts["good"] - self.passages)

    def _positives(self, entry: Entry, fate: Fate, number: int, item: int, pools: Mapping[str, Pool]) -> list[str]:
        pool = pools[entry.language]
        if fate in ("empty_positive", "missing"):
            return [""] if fate == "empty_positive" else []
        if fate == "too_long":
            return [pool.long_text(entry.offset + item)]
        answers = entry.answers(number) if fate == "good" else 1
        texts = [self._text(entry, item + answer * 2 * self.items, pool) for answer in range(answers)]
        if fate == "in_evaluation":
            return [f"{pool.aside[number * 2 % (len(pool.aside) // 2 * 2)]} {texts[0]}"]
        if fate == "good" and number < self.passages:
            return [f"{pool.aside[(number * 2 + 1) % (len(pool.aside) // 2 * 2)]} {texts[0]}", *texts[1:]]
        return texts

    def _text(self, entry: Entry, item: int, pool: Pool) -> str:
        repeats = QUERIES_OF_A_PASSAGE if entry.source.task == "retrieval" and entry.language == "en" and len(self.entries) == 1 else 1
        return pool.text(entry.offset + item // repeats, *SENTENCES[entry.source.task])

    def _negatives(self, item: int, pools: Mapping[str, Pool]) -> list[str]:
        """Positives of other items; of rows with labels, what is no positive."""
        entry = self.entries[0]
        if not self.labelled and "negatives_field" not in entry.source.model_fields_set:
            return []
        many = LABELLED if self.labelled else NEGATIVES["parquet" if entry.source.where else "jsonl"]
        others = [(item + 1000 + 17 * place) % (2 * self.items) for place in range(many)]
        return [self._text(entry, other, pools[entry.language]) for other in others]

    def parts(self, number: int) -> int:
        """Records of a good item whose text comes in parts."""
        return 1 + mix(number) % PARTS


@dataclass(frozen=True)
class Collection:
    """What is read from the same files."""

    groups: tuple[Group, ...]

    @property
    def source(self) -> DatasetSource:
        """One of its entries: all have the same files."""
        return self.groups[0].entries[0].source

    @property
    def items(self) -> int:
        """Of all groups."""
        return sum(group.items for group in self.groups)

    @property
    def broken(self) -> int:
        """Records that cannot be read: they count for every entry."""
        return sum(group.counts.get("broken", 0) for group in self.groups)


def collections(sources: Mapping[str, DatasetSource]) -> list[Collection]:
    """All data sets of a recipe, with the caps that its `limit`s say."""
    together: dict[object, list[str]] = defaultdict(list)
    for name, source in sources.items():
        together[source.hub or source.path, source.config, source.split, source.files].append(name)
    offsets: Counter[str] = Counter()
    last: dict[tuple[str, str], Group] = {}
    found = []
    for names in together.values():
        own = [[name] for name in names] if sources[names[0]].where else [names]
        groups = tuple(_group([(name, sources[name]) for name in each], offsets, last) for each in own)
        if sources[names[0]].where:
            groups = (*groups[:-1], _with(groups[-1], "elsewhere", sum(group.items for group in groups)))
        found.append(Collection(groups))
    return found


def _with(group: Group, fate: Fate, rows: int) -> Group:
    """A group that has rows of no entry too."""
    return Group(group.entries, {**group.counts, fate: max(1, round(rows * ELSEWHERE))}, group.copied)


def _group(named: Sequence[tuple[str, DatasetSource]], offsets: Counter[str], last: dict[tuple[str, str], Group]) -> Group:
    most = max(source.limit or 0 for _, source in named)
    source = named[0][1]
    plain = len(named) == 1 and not source.labels and not source.order_field
    counts: dict[Fate, int] = {"good": most + max(2, round(SURPLUS * most))}
    alike = (str(source.language), Entry("", source, 0).language)
    copied = last.get(alike) if plain else None
    for fate in SHARES:
        if _can(fate, source, plain, copied is not None):
            counts[fate] = max(1, round(SHARES[fate] * most))
    if copied is not None:
        counts["shared"] = max(1, min(counts["shared"], round(SHARES["shared"] * copied.counts["good"])))
    entries = []
    for name, each in named:
        entry = Entry(name, each, 0)
        entries.append(Entry(name, each, offsets[entry.language]))
        offsets[entry.language] += ROOM * sum(counts.values())
        offsets[entry.query_language] += ROOM * sum(counts.values())
    group = Group(tuple(entries), counts, copied)
    if plain:
        last[alike] = group
    return group


def _can(fate: Fate, source: DatasetSource, plain: bool, copies: bool) -> bool:
    """Whether there can be such items, and their number be foreseen: rows of one query are joined before they are compared."""
    grouped = bool(source.labels) or source.order_field is not None
    match fate:
        case "duplicate" | "empty_query" | "missing":
            return not grouped
        case "shared":
            return plain and copies
        case "below":
            return bool(source.minimum)
        case "no_positive" | "no_label":
            return bool(source.labels)
        case "broken":
            return _can_break(source)
    return True


def _can_break(source: DatasetSource) -> bool:
    """Whether a record of such files can be unreadable by itself: a line of JSONL, a field of CSV too many, no UTF-8 in plain Parquet."""
    return format_of(source) != "parquet" or "." not in source.query_field


def format_of(source: DatasetSource) -> str:
    """parquet, jsonl, json or csv, as the entry's paths end."""
    paths = source.files or source.path
    first = paths if isinstance(paths, str) else paths[0] if paths else "x.parquet"
    return next(kind for kind in ("parquet", "jsonl", "json", "csv") if f".{kind}" in first)
