"""One batch of candidates through all rules that look at a document alone. The result has every row, with reason and score.

Personal data is masked first, so that no table has it. Then, in order: what the reader found, empty text, language, quality, the
learned score, length. The first reason stands. Added columns are what the comparison of all documents needs, so that texts can stay
where they are: `key` (equal for equal texts), `bands` (MinHash), `characters`; and `masked`, the number of replaced items by kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.corpus.documents import CANDIDATE
from raysberta.corpus.duplicates import BANDS, bands, minhashes
from raysberta.corpus.language import identify
from raysberta.corpus.length import surely_within, token_counts
from raysberta.corpus.normal import content_key
from raysberta.corpus.personal import KINDS, mask
from raysberta.corpus.quality import judge
from raysberta.corpus.scoring import SCORED, scores
from raysberta.corpus.settings import Corpus, PersonalData

FILTERED = pa.schema(
    [
        *CANDIDATE,
        ("key", pa.string()),
        ("characters", pa.int64()),
        ("bands", pa.list_(pa.uint64(), BANDS)),
        ("masked", pa.list_(pa.int32(), len(KINDS))),  # in the order of personal.KINDS
    ]
)


@dataclass(frozen=True)
class Settings:
    """What decides about the documents of one source."""

    corpus: Corpus
    languages: tuple[str, ...]
    """Two-letter codes that are kept."""
    language: str | None
    """Of every document, where the recipe says so."""
    web: bool
    """Whether it is web text: quality rules, learned score and masking apply."""
    near_duplicates: bool
    """Whether near-duplicates are looked for: not among sentences that one template makes."""


class _Verdicts:
    """Reason and score of each row; what has a reason keeps it."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = list(reasons)
        self.scores: list[float | None] = [None] * len(self.reasons)

    def open(self) -> list[int]:
        """Rows without a reason."""
        return [row for row, reason in enumerate(self.reasons) if not reason]

    def drop(self, row: int, reason: str, score: float | None = None) -> None:
        self.reasons[row], self.scores[row] = reason, score


def filter_batch(table: pa.Table, settings: Settings, tokenizer: Path | None) -> pa.Table:
    """Judge each document.

    Args:
        table: Columns of CANDIDATE, one source.
        settings: The rules.
        tokenizer: The tokenizer.json that counts; no rule looks at lengths where None.

    Returns:
        The same rows in the same order with the columns of FILTERED.
    """
    masked = np.zeros((table.num_rows, len(KINDS)), dtype=np.int32)
    if settings.web and settings.corpus.mask:
        table = _mask(table, settings.corpus.mask, masked)
    verdicts = _Verdicts(table.column("reason").to_pylist())
    texts: list[str] = table.column("text").to_pylist()
    titles: list[str] = table.column("title").to_pylist()
    for row in verdicts.open():
        if not any(map(str.isalnum, texts[row])):
            verdicts.drop(row, "empty")
    languages = _languages(table, texts, settings, verdicts)
    if settings.corpus.quality and settings.web:
        _quality(texts, languages, settings.corpus, verdicts)
    if settings.corpus.scorer is not None and settings.web:
        _learned(table, languages, settings.corpus, verdicts)
    if tokenizer is not None:
        _lengths(titles, texts, settings.corpus, tokenizer, verdicts)
    return _with_columns(table, texts, languages, masked, settings, verdicts)


def _mask(table: pa.Table, kinds: Sequence[PersonalData], counts: np.ndarray) -> pa.Table:
    """The table without personal data; `counts` [rows, KINDS] is filled."""

    def replaced(row: int, text: str) -> str:
        text, found = mask(text, kinds)
        for kind, number in found.items():
            counts[row, KINDS.index(kind)] += number
        return text

    columns: dict[str, list[Any]] = {
        name: [replaced(row, text) for row, text in enumerate(table.column(name).to_pylist())] for name in ("title", "text")
    }
    seen = counts.copy()
    columns["sections"] = [
        [{name: replaced(row, text) for name, text in section.items()} for section in sections or ()]
        for row, sections in enumerate(table.column("sections").to_pylist())
    ]
    counts[:] = seen  # sections repeat what the text has
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table


def _quality(texts: Sequence[str], languages: Sequence[str], rules: Corpus, verdicts: _Verdicts) -> None:
    for language, limits in rules.quality_rules.items():
        rows = [row for row in verdicts.open() if languages[row] == language]
        if limits is None or not rows:
            continue
        for row, verdict in zip(rows, judge([texts[row] for row in rows], limits), strict=True):
            if verdict is not None:
                verdicts.drop(row, *verdict)


def _learned(table: pa.Table, languages: Sequence[str], rules: Corpus, verdicts: _Verdicts) -> None:
    rows = verdicts.open()
    if not rows:
        return
    asked = table.select(SCORED).set_column(SCORED.index("language"), "language", pa.array(languages, pa.string())).take(rows)
    for row, score in zip(rows, scores(str(rules.scorer), asked).tolist(), strict=True):
        if not score >= rules.min_score:  # NaN is no score either
            verdicts.drop(row, "quality_score", score)


def _languages(table: pa.Table, texts: Sequence[str], settings: Settings, verdicts: _Verdicts) -> list[str]:
    languages: list[str] = table.column("language").to_pylist()
    rules = settings.corpus
    for row in verdicts.open():
        declared = settings.language or languages[row]
        if declared:
            languages[row] = declared
            if declared not in settings.languages:
                verdicts.drop(row, "language")
            continue
        language, score = identify(texts[row], settings.languages, rules.language_min_characters, rules.language_model)
        languages[row] = language
        if not language or (len(texts[row]) >= rules.language_min_characters and score < rules.min_language_score):
            verdicts.drop(row, "language", score)
    return languages


def _lengths(titles: Sequence[str], texts: Sequence[str], rules: Corpus, tokenizer: Path, verdicts: _Verdicts) -> None:
    rows = [row for row in verdicts.open() if not _surely_within(titles[row], texts[row], rules)]
    counts = token_counts([f"{titles[row]}\n{texts[row]}" for row in rows], tokenizer, rules.max_tokens)
    for row, count in zip(rows, counts.tolist(), strict=True):
        if count < rules.min_tokens:
            verdicts.drop(row, "short", float(count))
        elif count > rules.max_tokens:
            verdicts.drop(row, "long", float(count))


def _surely_within(title: str, text: str, rules: Corpus) -> bool:
    """Whether counting can be spared: a word has at least one token."""
    return surely_within(f"{title}\n{text}", rules.max_tokens) and len(text.split()) >= rules.min_tokens


def _with_columns(
    table: pa.Table, texts: Sequence[str], languages: list[str], masked: np.ndarray, settings: Settings, verdicts: _Verdicts
) -> pa.Table:
    rows = verdicts.open()
    keys = [""] * len(texts)
    for row in rows:
        keys[row] = content_key(texts[row])
    hashes = np.zeros((len(texts), BANDS), dtype=np.uint64)
    present = np.zeros(len(texts), dtype=bool)
    if settings.corpus.near_duplicates and settings.near_duplicates:
        signatures, has = minhashes([texts[row] for row in rows])
        hashes[rows], present[rows] = bands(signatures), has
    band_column = pa.FixedSizeListArray.from_arrays(pa.array(hashes.reshape(-1), pa.uint64()), BANDS, mask=pa.array(~present))
    columns = {
        "language": pa.array(languages, pa.string()),
        "reason": pa.array(verdicts.reasons, pa.string()),
        "score": pa.array(verdicts.scores, pa.float64()),
        "key": pa.array(keys, pa.string()),
        "characters": pc.utf8_length(table.column("text")).cast(pa.int64()),
        "bands": band_column,
        "masked": pa.FixedSizeListArray.from_arrays(pa.array(masked.reshape(-1)), len(KINDS)),
    }
    return pa.table(
        {name: columns.get(name, table.column(name) if name in table.schema.names else None) for name in FILTERED.names}, schema=FILTERED
    )
