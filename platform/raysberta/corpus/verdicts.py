"""What becomes of each document: duplicates, near-duplicates, limits; and the counts that the report shows. No texts and no strings here.

The driver holds 38 bytes a document, whatever its text (`Verdicts`), and some more for those that are compared in one range.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.corpus.decontaminate import PASSAGE
from raysberta.corpus.documents import UNREADABLE
from raysberta.corpus.duplicates import best_of, exact, preference
from raysberta.corpus.facts import Repeats, SourceCounts
from raysberta.corpus.personal import KINDS
from raysberta.corpus.settings import TextSource
from raysberta.errors import InputError
from raysberta.schema import text_id
from raysberta.storage.runs import bucket_of, power_of_two, texts

SPLITS = ("train", "dev", "test")
REASONS = ("", "duplicate", "near_duplicate", "in_evaluation", "in_passages", "over_limit")
"""The first names of `Verdicts.reasons`; behind them stand those of the rules for single documents."""
STAYS, DUPLICATE, NEAR_DUPLICATE, IN_EVALUATION, IN_PASSAGES, OVER_LIMIT = range(6)
BROKEN = UNREADABLE.removesuffix(": ")
ROWS = 36
"""Bits of a row's number within its work unit; the unit's number stands above them."""
COMPARED = 4_000_000
"""Documents that are compared at once: some hundred megabytes."""
SLICE = 1_000_000
"""Documents whose reasons are spelled at once."""
COLUMNS = ("doc_id", "key", "characters", "bytes", "language", "reason", "split")
TALLY = pa.schema(
    [("source", pa.string()), ("language", pa.string()), ("reason", pa.string()), ("documents", pa.int64()), ("bytes", pa.int64())]
)
DECIDED = pa.schema([("row", pa.uint64()), ("reason", pa.string())])
"""Documents that go for what another one is, by `row`."""


@dataclass
class Unit:
    """What a work unit found."""

    number: int
    source: str
    columns: dict[str, np.ndarray]
    """COLUMNS, aligned, in order of rows; `language` and `reason` are places in the names."""
    languages: list[str]
    reasons: list[str]
    masked: np.ndarray
    """int64 [KINDS]: personal data that was replaced."""
    broken: str = ""
    """What the first record says that could not be read."""
    wrong: str = ""
    """What is wrong with the source as a whole."""


@dataclass(frozen=True)
class Stays:
    """Which documents stay so far, a bit each: for tasks, which know documents by their rows."""

    starts: np.ndarray
    """int64 [units]: the first document of each unit."""
    bits: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Whether the documents of some rows (uint64) stay, bool."""
        places = places_of(rows, self.starts)
        return (self.bits[places >> 3] >> (7 - (places & 7)).astype(np.uint8)) & 1 == 1


def places_of(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The documents of some rows, int64."""
    return starts[(rows >> np.uint64(ROWS)).astype(np.int64)] + (rows & np.uint64((1 << ROWS) - 1)).astype(np.int64)


@dataclass
class Verdicts:
    """All documents that were read, in order of rows; arrays are aligned, 38 bytes a document."""

    sources: list[str]
    languages: list[str]
    reasons: list[str]
    starts: np.ndarray
    doc_id: np.ndarray
    key: np.ndarray
    other: np.ndarray
    """uint64: the doc_id that is kept instead; for IN_EVALUATION and IN_PASSAGES the place in `names`."""
    characters: np.ndarray
    bytes: np.ndarray
    source: np.ndarray
    language: np.ndarray
    reason: np.ndarray
    split: np.ndarray
    names: list[str] = field(default_factory=list)
    """What training documents repeat: doc_ids, evaluation items and passages of benchmarks."""
    broken: dict[str, str] = field(default_factory=dict)
    masked: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, units: Iterable[Unit], sources: Sequence[str]) -> "Verdicts":
        """Join what all units found; they lose their columns on the way.

        Raises:
            InputError: a source is wrong as a whole.
        """
        ordered = sorted(units, key=lambda unit: unit.number)
        for unit in ordered:
            if unit.wrong:
                raise InputError(unit.wrong)
        languages, reasons = _Names(), _Names(REASONS)
        for unit in ordered:
            unit.columns["language"] = languages.places(unit.languages, np.uint16)[unit.columns["language"]]
            unit.columns["reason"] = reasons.places(unit.reasons, np.uint8)[unit.columns["reason"]]
        sizes = np.zeros(1 + max((unit.number for unit in ordered), default=0), np.int64)
        for unit in ordered:
            sizes[unit.number] = len(unit.columns["doc_id"])
        source = np.concatenate([np.empty(0, np.uint16), *(np.full(sizes[u.number], sources.index(u.source), np.uint16) for u in ordered)])
        joined = {name: np.concatenate([unit.columns.pop(name) for unit in ordered]) for name in COLUMNS if ordered}
        found = cls(
            list(sources),
            languages.names,
            reasons.names,
            np.cumsum(sizes) - sizes,
            source=source,
            other=np.zeros_like(joined["doc_id"]),
            **joined,
        )
        for unit in ordered:
            if unit.broken:
                found.broken.setdefault(unit.source, unit.broken)
            found.masked[unit.source] = found.masked.get(unit.source, np.zeros(len(KINDS), np.int64)) + unit.masked
        return found

    def open(self) -> np.ndarray:
        """Indices of the documents that stay so far."""
        return np.flatnonzero(self.reason == STAYS)

    def stays(self) -> Stays:
        """The same, a bit a document."""
        return Stays(self.starts, np.packbits(self.reason == STAYS))

    def named(self, places: np.ndarray) -> pa.StringArray:
        """What stands for some documents, spelled as in the tables: the reason, and after a colon what is kept instead."""
        others = self.other[places]
        reasons = self.reason[places]
        held = (reasons == IN_EVALUATION) | (reasons == IN_PASSAGES)
        spelled = np.array(texts(others).to_pylist(), dtype=object)
        spelled[held] = [self.names[each] for each in others[held].tolist()]
        pairs = zip(reasons.tolist(), spelled.tolist(), strict=True)
        return pa.array([self.reasons[r] if r == OVER_LIMIT else f"{self.reasons[r]}:{other}" for r, other in pairs], pa.string())

    def decided(self) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """DECIDED, some at a time, each with its doc_ids."""
        for first in range(0, len(self.reason), SLICE):
            own = self.reason[first : first + SLICE]
            places = first + np.flatnonzero((own > STAYS) & (own <= OVER_LIMIT))
            unit = np.searchsorted(self.starts, places, side="right") - 1
            rows = (unit.astype(np.uint64) << np.uint64(ROWS)) + (places - self.starts[unit]).astype(np.uint64)
            yield pa.table([rows, self.named(places)], DECIDED), self.doc_id[places]


class _Names:
    """Names and their places, which units have in orders of their own."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)

    def places(self, own: Sequence[str], kind: type[np.unsignedinteger]) -> np.ndarray:
        self.names.extend(name for name in own if name not in self.names)
        return np.array([self.names.index(name) for name in own], kind)


def check_readable(verdicts: Verdicts, budget: float, sources: Mapping[str, TextSource]) -> None:
    """Stop at a source that is empty, and at one with too many broken records.

    Raises:
        InputError: the first of them.
    """
    broken = verdicts.reasons.index(BROKEN) if BROKEN in verdicts.reasons else -1
    for name, source in sources.items():
        key = f"sources.{name}.path" if source.kind == "files" else f"sources.{name}"
        own = verdicts.reason[verdicts.source == verdicts.sources.index(name)]
        faults = int((own == broken).sum())
        if not len(own):
            raise InputError(f"{key}: there is not one record in it")
        if faults > budget * len(own):
            found = f"{faults} of {len(own)} records are unreadable, corpus.failure_budget allows a share of {budget:g}"
            raise InputError(f"{key}: {found}; the first: {verdicts.broken[name]}")


def drop_exact(verdicts: Verdicts) -> None:
    """Exact duplicates over all sources, a range of keys at a time."""
    parts = power_of_two(len(verdicts.reason) / COMPARED)
    part_of = bucket_of(verdicts.key, parts)
    for part in range(parts):
        own = np.flatnonzero((verdicts.reason == STAYS) & (part_of == part))
        _drop_others(verdicts, own, exact(verdicts.key[own], _ranks(verdicts, own)), DUPLICATE)


def drop_near(verdicts: Verdicts, leasts: np.ndarray, others: np.ndarray) -> None:
    """Near-duplicates among what is left: of each component of documents one stays.

    Args:
        verdicts: All documents.
        leasts: uint64, rows: for each document but one of each component that one.
        others: uint64, rows of those documents; whole components.
    """
    first = np.unique(leasts)
    places = places_of(np.r_[first, others], verdicts.starts)
    groups = np.r_[np.arange(len(first)), np.searchsorted(first, leasts)]
    _drop_others(verdicts, places, best_of(groups, _ranks(verdicts, places)), NEAR_DUPLICATE)


def _ranks(verdicts: Verdicts, chosen: np.ndarray) -> np.ndarray:
    return preference(verdicts.characters[chosen].astype(np.int64), verdicts.doc_id[chosen], chosen)


def _drop_others(verdicts: Verdicts, chosen: np.ndarray, kept: np.ndarray, reason: int) -> None:
    goes = np.flatnonzero(kept != np.arange(len(kept)))
    verdicts.reason[chosen[goes]] = reason
    verdicts.other[chosen[goes]] = verdicts.doc_id[chosen[kept[goes]]]


def apply_limits(verdicts: Verdicts, limits: Mapping[str, int | None]) -> None:
    """Of each source keep at most its limit, those whose id has the smallest hash: the same ones whatever else is in the corpus."""
    for name, limit in limits.items():
        own = np.flatnonzero((verdicts.reason == STAYS) & (verdicts.source == verdicts.sources.index(name)))
        if limit is None or len(own) <= limit:
            continue
        hashes = np.empty(len(own), np.uint64)
        for start in range(0, len(own), SLICE):
            some = texts(verdicts.doc_id[own[start : start + SLICE]]).to_pylist()
            hashes[start : start + SLICE] = [int(text_id("limit", each), 16) for each in some]
        verdicts.reason[own[np.argsort(hashes)[limit:]]] = OVER_LIMIT


def drop_repeated(verdicts: Verdicts, found: pa.Table, passages: bool) -> Repeats:
    """Training documents that say what a held-out text says.

    Args:
        verdicts: All documents.
        found: Columns `id` (uint64, a row) and `name`, each row once.
        passages: Whether those go that say what no more than a passage of a benchmark says.
    """
    searched = pc.starts_with(found["name"], PASSAGE)
    number = pc.sum(searched).as_py() or 0
    for reason, own in ((IN_EVALUATION, pc.invert(searched)), (IN_PASSAGES, searched)):
        if reason == IN_EVALUATION or passages:
            rows = found.filter(own)
            names = rows["name"].combine_chunks().dictionary_encode()
            places = places_of(rows["id"].to_numpy(), verdicts.starts)
            verdicts.reason[places] = reason
            verdicts.other[places] = names.indices.to_numpy().astype(np.uint64) + np.uint64(len(verdicts.names))
            verdicts.names.extend(name.removeprefix(PASSAGE) for name in names.dictionary.to_pylist())
    return Repeats(texts=found.num_rows - number, passages=number, passages_dropped=passages)


def count(verdicts: Verdicts, sources: Mapping[str, TextSource]) -> dict[str, SourceCounts]:
    """For each source: documents and bytes read and kept, splits and languages of the kept ones, dropped ones by reason,
    personal data masked by kind."""
    counts: dict[str, SourceCounts] = {}
    for name in sources:
        own = verdicts.source == verdicts.sources.index(name)
        if not own.any():
            continue
        kept = own & (verdicts.reason == STAYS)
        masked = zip(KINDS, verdicts.masked[name].tolist(), strict=True)
        counts[name] = SourceCounts(
            read=int(own.sum()),
            kept=int(kept.sum()),
            dropped=_by_name(verdicts.reason[own & ~kept], verdicts.reasons),
            bytes_in=int(verdicts.bytes[own].sum(dtype=np.int64)),
            bytes_out=int(verdicts.bytes[kept].sum(dtype=np.int64)),
            splits=_by_name(verdicts.split[kept], SPLITS),
            languages=_by_name(verdicts.language[kept], verdicts.languages),
            masked={kind: number for kind, number in masked if number},
        )
    return counts


def _by_name(places: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    numbers = Counter(dict(enumerate(np.bincount(places, minlength=len(names)).tolist())))
    return {names[place]: number for place, number in sorted(numbers.items(), key=lambda each: names[each[0]]) if number}


def cluster_sizes(verdicts: Verdicts) -> pa.Table:
    """Each document that stands for others, `doc_id`, with the number of documents of its cluster, itself included, `documents`."""
    near, copies = verdicts.reason == NEAR_DUPLICATE, verdicts.reason == DUPLICATE
    goes, stays = verdicts.doc_id[near], verdicts.other[near]
    order = np.argsort(goes, kind="stable")
    kept = verdicts.other[copies]
    if len(goes):  # what is kept of copies may be a near-duplicate itself
        at = np.minimum(np.searchsorted(goes[order], kept), len(goes) - 1)
        kept = np.where(goes[order][at] == kept, stays[order][at], kept)
    found, counts = np.unique(np.r_[stays, kept], return_counts=True)
    return pa.table({"doc_id": texts(found), "documents": pa.array(counts + 1, pa.int64())})


def repeated(verdicts: Verdicts) -> pa.Table:
    """Training documents that say what a held-out one says, `doc_id`, each with that one, `held_out`."""
    places = np.flatnonzero((verdicts.reason == IN_EVALUATION) | (verdicts.reason == IN_PASSAGES))
    held = [verdicts.names[each] for each in verdicts.other[places].tolist()]
    return pa.table({"doc_id": texts(verdicts.doc_id[places]), "held_out": pa.array(held, pa.string())}).sort_by("doc_id")


def tally(verdicts: Verdicts) -> pa.Table:
    """Documents and bytes by source, language and reason: a row each, "" is the reason of those that stay."""
    of = (len(verdicts.sources), len(verdicts.languages), len(verdicts.reasons))
    cells = np.ravel_multi_index((verdicts.source, verdicts.language, verdicts.reason), of)
    numbers, sizes = np.bincount(cells), np.bincount(cells, weights=verdicts.bytes)
    filled = np.flatnonzero(numbers)
    source, language, reason = np.unravel_index(filled, of)
    columns = [
        [names[place] for place in places.tolist()]
        for names, places in ((verdicts.sources, source), (verdicts.languages, language), (verdicts.reasons, reason))
    ]
    table = pa.table([*columns, numbers[filled], sizes[filled].astype(np.int64)], TALLY)
    return table.sort_by([(name, "ascending") for name in ("source", "language", "reason")])
