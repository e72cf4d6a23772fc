"""Items of the rehearsal's data sets to records with the columns that the recipe's entries read, and what a reader has to find in them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from raysberta.data_sets.settings import Role
from rehearsal_sets import Collection, Content, Entry, Fate, Group, format_of
from rehearsal_texts import Pool, mix

Record = dict[str, Any]
LANGUAGES = ("ru", "en")


@dataclass
class Planned:
    """What comes of one data set, in numbers."""

    rows: int = 0
    """Records that are read for it."""
    unreadable: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that the entry itself leaves out, by reason."""
    pairs: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Pairs by reason; `duplicate` of pairs of its own alone."""
    shared: dict[str, int] = field(default_factory=dict)
    """Pairs that stand in another data set too, by its name: one of the two stays."""
    passages: int = 0
    """Pairs that repeat nothing but a passage of an evaluation set."""
    kept: int = 0


def records(group: Group, place: int, pools: Mapping[str, Pool]) -> Iterator[Record | None]:
    """The records of the item at a place; None for one that cannot be read."""
    fate, number = group.fate(place)
    if fate == "broken":
        yield None
        return
    content = group.content(fate, number, pools)
    if group.labelled:
        yield from (_labelled(group, content, role) for role in _roles(fate))
    elif group.entries[0].source.order_field:
        yield from _parts(group, content, place, group.parts(number) if fate == "good" else 1)
    else:
        yield _record(group, content, fate, place)


def planned(collection: Collection) -> dict[str, Planned]:
    """What comes of each data set of a collection, by name: counted from its items, without their texts."""
    found: dict[str, Planned] = {}
    total = sum(_rows(group) for group in collection.groups)
    for group in collection.groups:
        for entry in group.entries:
            found[entry.name] = own = _planned(group, entry)
            own.rows, own.unreadable = total, collection.broken
            if entry.source.where:
                elsewhere = total - _rows(group) - collection.broken + group.counts.get("broken", 0) + group.counts.get("elsewhere", 0)
                own.left_out["where"] = elsewhere
    return found


def _planned(group: Group, entry: Entry) -> Planned:
    counts = group.counts
    of_good = sum(entry.answers(number) for number in range(counts["good"]))
    of_copies = sum(entry.answers(group.repeated(number)) for number in range(counts.get("duplicate", 0)))
    rejected = Counter(
        too_short=sum(counts.get(fate, 0) for fate in ("empty_query", "empty_positive", "missing")),
        too_long=counts.get("too_long", 0),
        duplicate=of_copies,
        in_evaluation=counts.get("in_evaluation", 0),
    )
    left_out = Counter({f"minimum:{column}": counts.get("below", 0) for column in list(entry.source.minimum)[:1]})
    if group.labelled:
        left_out["label"] = sum(counts.get(fate, 0) * _roles(fate).count(role) for fate in counts for role in ("unused", None))
        left_out["no_positive"] = counts.get("no_positive", 0)
    shared = {group.copied.entries[0].name: counts["shared"]} if group.copied is not None and "shared" in counts else {}
    pairs = of_good + rejected.total() + counts.get("shared", 0)
    return Planned(0, 0, +left_out, pairs, +rejected, shared, group.passages, min(entry.cap, of_good))


def _rows(group: Group) -> int:
    """Records of all items."""
    if group.labelled:
        return sum(count * max(1, len(_roles(fate))) for fate, count in group.counts.items())
    if group.entries[0].source.order_field:
        return group.items - group.counts["good"] + sum(group.parts(number) for number in range(group.counts["good"]))
    return group.items


def _roles(fate: Fate) -> tuple[Role | None, ...]:
    """Labels of the records of an item, whose texts are compared with one query."""
    if fate == "broken":
        return ()
    if fate == "no_label":
        return (None,)
    return ("negative", "unused") if fate == "no_positive" else ("positive", "negative", "unused")


def _several(entry: Entry) -> bool:
    """Whether a list stands in the column of positives."""
    column = entry.source.positive_field
    if "." in column:
        return column.rpartition(".")[2] not in LANGUAGES
    return "negatives_field" in entry.source.model_fields_set and format_of(entry.source) == "jsonl"


def _record(group: Group, content: Content, fate: Fate, place: int) -> Record:
    record: Record = {}
    for entry in group.entries:
        source, positives = entry.source, content.positives[entry.name]
        put(record, source.query_field, content.query)
        put(record, source.positive_field, list(positives) if _several(entry) else positives[0] if positives else None)
        for column, wanted in source.where.items():
            put(record, column, "super_ni_other" if fate == "elsewhere" else wanted if isinstance(wanted, str) else wanted[0])
        for column, least in source.minimum.items():
            put(record, column, _number(least, place, fate == "below"))
        if source.score_field is not None and source.score_field not in source.minimum:
            put(record, source.score_field, _number(0.5, place, False))
        if content.negatives:
            flat = len(content.negatives) == 1
            put(record, source.negatives_field, content.negatives[0] if flat else list(content.negatives))
    return record


def _labelled(group: Group, content: Content, role: Role | None) -> Record:
    (entry,) = group.entries
    source = entry.source
    label = next((label for label, each in source.labels.items() if each == role), None)
    text = content.positives[entry.name][0] if role == "positive" else content.negatives[role != "negative"]
    record: Record = {}
    put(record, source.query_field, content.query)
    put(record, source.positive_field, text)
    put(record, str(source.label_field), int(label) if label is not None and label.isdigit() else label)
    return record


def _parts(group: Group, content: Content, place: int, parts: int) -> Iterator[Record]:
    """A text in parts, the last ones first."""
    (entry,) = group.entries
    text = content.positives[entry.name][0]
    words = text.split(" ")
    for part in reversed(range(parts)):
        record: Record = {}
        put(record, entry.source.query_field, content.query)
        own = words[part * len(words) // parts : (part + 1) * len(words) // parts]
        put(record, entry.source.positive_field, " ".join(own))
        put(record, str(entry.source.order_field), f"{place}#{part}")
        yield record


def put(record: Record, column: str, value: Any) -> None:
    """Write what a data set's entry will read from a column: the inverse of its notation."""
    first, _, rest = column.partition(".")
    if not rest:
        record[first] = value
    elif rest == "0":
        record.setdefault(first, [None])[0] = value
    elif rest == "1:":
        record.setdefault(first, [None]).extend(value)
    elif isinstance(value, list):
        record[first] = [{rest: each} for each in value]
    else:
        record.setdefault(first, {})[rest] = value


def _number(least: float, place: int, below: bool) -> float | None:
    """A value at least as great as a threshold, or below it; every third of these has none."""
    share = mix(place) % 1000 / 1000
    if below:
        return None if mix(place) % 3 == 0 else round(least * share * 0.999, 4)
    return round(least + (1 - least) * share, 4) if least <= 1 else int(least * (1 + 9 * share))
