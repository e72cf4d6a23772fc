"""The verdicts that need all documents at once: duplicates, limits, splits; and the counts that the report shows. No texts here."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysberta.corpus.documents import UNREADABLE, WRONG_INPUT
from raysberta.corpus.duplicates import clusters, exact, preference
from raysberta.corpus.facts import SourceCounts
from raysberta.corpus.personal import KINDS
from raysberta.corpus.settings import Corpus, TextSource
from raysberta.errors import InputError
from raysberta.schema import Split, split_of, text_id

DUPLICATE = "duplicate:"
NEAR_DUPLICATE = "near_duplicate:"
IN_EVALUATION = "in_evaluation:"
"""What follows the colon is the doc_id of the document that is kept instead (a later rule may drop that one in turn)."""
IN_PASSAGES = "in_passages:"
"""The same for a passage that a benchmark searches."""
OVER_LIMIT = "over_limit"
HELD_OUT_TEST = 0.5
"""Share of the groups of a source that is held out whole in the test half; the rest is in the dev half."""
TALLY = pa.schema(
    [("source", pa.string()), ("language", pa.string()), ("reason", pa.string()), ("documents", pa.int64()), ("bytes", pa.int64())]
)


@dataclass
class Verdicts:
    """All documents that were read, and what becomes of each; arrays are aligned."""

    table: pa.Table
    """Columns of `spread.LIGHT`."""
    reasons: np.ndarray
    """object [documents]: "" where the document stays."""
    splits: np.ndarray
    """object [documents]: train, dev or test, whatever becomes of it."""

    @classmethod
    def of(cls, table: pa.Table, corpus: Corpus, held_out: Collection[str] = ()) -> "Verdicts":
        """Start with what the filters said.

        Args:
            table: Columns of `spread.LIGHT`.
            corpus: The shares of the halves.
            held_out: Sources that are held out whole: none of their groups is for training.
        """
        reasons = np.array(table.column("reason").to_pylist(), dtype=object)
        groups = list(zip(table.column("source").to_pylist(), table.column("group").to_pylist(), strict=True))
        known: dict[tuple[str, str], Split] = {
            (source, group): split_of(group, *((1.0, HELD_OUT_TEST) if source in held_out else (corpus.dev, corpus.test)))
            for source, group in set(groups)
        }
        return cls(table, reasons, np.array([known[each] for each in groups], dtype=object))

    def column(self, name: str) -> np.ndarray:
        """A column as numpy array."""
        return self.table.column(name).to_numpy()

    def open(self) -> np.ndarray:
        """Indices of the documents that stay so far."""
        return np.flatnonzero(self.reasons == "")


def check_readable(verdicts: Verdicts, budget: float, sources: Mapping[str, TextSource]) -> None:
    """Stop at wrong input, at a source that is empty, and at one with too many broken records.

    Raises:
        InputError: the first of them.
    """
    for reason in verdicts.reasons:
        if reason.startswith(WRONG_INPUT):
            raise InputError(reason.removeprefix(WRONG_INPUT))
    names = verdicts.column("source")
    for name, source in sources.items():
        key = f"sources.{name}.path" if source.kind == "files" else f"sources.{name}"
        own = verdicts.reasons[names == name]
        broken = [reason for reason in own if reason.startswith(UNREADABLE)]
        if not len(own):
            raise InputError(f"{key}: there is not one record in it")
        if len(broken) > budget * len(own):
            found = f"{len(broken)} of {len(own)} records are unreadable, corpus.failure_budget allows a share of {budget:g}"
            raise InputError(f"{key}: {found}; the first: {broken[0].removeprefix(UNREADABLE)}")


def drop_exact(verdicts: Verdicts) -> None:
    """Exact duplicates over all sources."""
    chosen = verdicts.open()
    kept = exact(verdicts.column("key")[chosen].astype("U16"), _ranks(verdicts, chosen))
    _drop_others(verdicts, chosen, kept, DUPLICATE)


def drop_near(verdicts: Verdicts, pairs: np.ndarray) -> None:
    """Near-duplicates among what is left.

    Args:
        verdicts: All documents.
        pairs: int64 [pairs, 2], documents that share a band, both still open.
    """
    chosen = np.unique(pairs)
    if len(chosen):
        _drop_others(verdicts, chosen, clusters(np.searchsorted(chosen, pairs), _ranks(verdicts, chosen)), NEAR_DUPLICATE)


def _ranks(verdicts: Verdicts, chosen: np.ndarray) -> np.ndarray:
    doc_ids = verdicts.column("doc_id")[chosen].astype("U16")
    return preference(verdicts.column("characters")[chosen], doc_ids, verdicts.column("row")[chosen])


def _drop_others(verdicts: Verdicts, chosen: np.ndarray, kept: np.ndarray, reason: str) -> None:
    doc_ids = verdicts.column("doc_id")
    for index in np.flatnonzero(kept != np.arange(len(kept))).tolist():
        verdicts.reasons[chosen[index]] = reason + doc_ids[chosen[kept[index]]]


def apply_limits(verdicts: Verdicts, limits: Mapping[str, int | None]) -> None:
    """Of each source keep at most its limit, those whose id has the smallest hash: the same ones whatever else is in the corpus."""
    chosen = verdicts.open()
    names, doc_ids = verdicts.column("source")[chosen], verdicts.column("doc_id")[chosen]
    for name, limit in limits.items():
        own = chosen[names == name]
        if limit is None or len(own) <= limit:
            continue
        order = np.argsort(np.array([text_id("limit", doc_id) for doc_id in doc_ids[names == name]], dtype="U16"))
        verdicts.reasons[own[order[limit:]]] = OVER_LIMIT


def count(verdicts: Verdicts, sources: Mapping[str, TextSource]) -> dict[str, SourceCounts]:
    """For each source: documents and bytes read and kept, splits and languages of the kept ones, dropped ones by reason,
    personal data masked by kind."""
    names, sizes = verdicts.column("source"), verdicts.column("bytes")
    languages = verdicts.column("language")
    kept = verdicts.reasons == ""
    masked = verdicts.table.column("masked").combine_chunks().flatten().to_numpy().reshape(-1, len(KINDS))
    counts: dict[str, SourceCounts] = {}
    for name in sources:
        own = names == name
        if not own.any():
            continue
        dropped = Counter(reason.split(":", 1)[0] for reason in verdicts.reasons[own & ~kept])
        counts[name] = SourceCounts(
            read=int(own.sum()),
            kept=int((own & kept).sum()),
            dropped=dict(sorted(dropped.items())),
            bytes_in=int(sizes[own].sum()),
            bytes_out=int(sizes[own & kept].sum()),
            splits=dict(sorted(Counter(verdicts.splits[own & kept]).items())),
            languages=dict(sorted(Counter(languages[own & kept]).items())),
            masked={kind: int(number) for kind, number in zip(KINDS, masked[own].sum(axis=0), strict=True) if number},
        )
    return counts


def cluster_sizes(verdicts: Verdicts) -> pa.Table:
    """Each document that stands for others, `doc_id`, with the number of documents of its cluster, itself included, `documents`."""
    keepers: dict[str, str] = {}
    for doc_id, reason in zip(verdicts.table.column("doc_id").to_pylist(), verdicts.reasons, strict=True):
        if reason.startswith(NEAR_DUPLICATE):
            keepers[doc_id] = reason.removeprefix(NEAR_DUPLICATE)
    sizes: Counter[str] = Counter(keepers.values())
    for reason in verdicts.reasons:
        if reason.startswith(DUPLICATE):
            kept = reason.removeprefix(DUPLICATE)
            sizes[keepers.get(kept, kept)] += 1
    found = sorted(sizes.items())
    doc_ids, counts = [doc_id for doc_id, _ in found], [count + 1 for _, count in found]
    return pa.table({"doc_id": pa.array(doc_ids, pa.string()), "documents": pa.array(counts, pa.int64())})


def repeated(verdicts: Verdicts) -> pa.Table:
    """Training documents that say what a held-out one says, `doc_id`, each with that one, `held_out`."""
    rows = [row for row, reason in enumerate(verdicts.reasons) if reason.startswith((IN_EVALUATION, IN_PASSAGES))]
    held = [verdicts.reasons[row].partition(":")[2] for row in rows]
    doc_ids = verdicts.table.column("doc_id").take(pa.array(rows, pa.int64()))
    return pa.table({"doc_id": doc_ids, "held_out": pa.array(held, pa.string())}).sort_by("doc_id")


def tally(verdicts: Verdicts) -> pa.Table:
    """Documents and bytes by source, language and reason: a row each, "" is the reason of those that stay."""
    reasons = pa.array([reason.split(":", 1)[0] for reason in verdicts.reasons], pa.string())
    table = verdicts.table.select(["source", "language", "bytes"]).append_column("reason", reasons)
    grouped = table.group_by(["source", "language", "reason"]).aggregate([([], "count_all"), ("bytes", "sum")])
    named = grouped.rename_columns({"count_all": "documents", "bytes_sum": "bytes"}).select([*TALLY.names])
    return named.cast(TALLY).sort_by([(name, "ascending") for name in ("source", "language", "reason")])
