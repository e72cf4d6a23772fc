"""The published quality rules for web text, a batch at a time: every measure as a column, then the first limit that a text breaks.

Sources: Gopher (arXiv 2112.11446) quality and repetition rules, FineWeb (arXiv 2406.17557) line rules, FineWeb2 `rus_Cyrl` limits.
Each measure is defined as FineWeb's own pipeline computes it, so that the published limits mean what they meant. A text is taken
without blanks at its ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.corpus.settings import QualityRules
from raysberta.corpus.tokens import character_classes, measure_words, text_buffers, token_hashes

ENDS = pa.array([".", "?", "!", "。", "！", "？", "؟", "۔", "।", "‼", "⁇", "⁈", "⁉", "‽", "．", "։", "።"])
"""Last characters of a line that ends as a sentence does (Unicode's Sentence_Terminal, of the scripts in use)."""
BULLETS = pa.array(["•", "-"])

Verdict = tuple[str, float] | None


@dataclass(frozen=True)
class Rule:
    """One limit: what is measured, and when it is broken."""

    reason: str
    measure: str
    """Key of `Measures`."""
    limit: float
    above: bool
    """Broken above the limit; below it where False."""


Measures = Mapping[str, np.ndarray]
"""float64 [texts] by name; NaN, which breaks no rule, where there is nothing to measure."""


def rules_of(limits: QualityRules) -> list[Rule]:
    """The rules that are on, in FineWeb's order, but for the number of words: it says more of a short text."""
    rules: list[tuple[str, str, float | None, bool]] = [
        ("quality_words", "words", limits.min_words, False),
        ("quality_words", "words", limits.max_words, True),
        ("repetition_lines", "duplicate_paragraphs", limits.duplicate_paragraphs, True),
        ("repetition_lines", "duplicate_paragraph_characters", limits.duplicate_paragraph_characters, True),
        ("repetition_lines", "duplicate_lines", limits.duplicate_lines, True),
        ("repetition_lines", "duplicate_line_characters", limits.duplicate_line_characters, True),
        *(("repetition_top_ngram", f"top_{size}_gram", limit, True) for size, limit in sorted(limits.top_ngrams.items())),
        *(("repetition_ngrams", f"duplicate_{size}_grams", limit, True) for size, limit in sorted(limits.duplicate_ngrams.items())),
        ("quality_word_length", "word_length", limits.min_word_length, False),
        ("quality_word_length", "word_length", limits.max_word_length, True),
        ("quality_symbols", "hashes_per_word", limits.max_symbols, True),
        ("quality_symbols", "ellipses_per_word", limits.max_symbols, True),
        ("quality_bullets", "bullet_lines", limits.max_bullet_lines, True),
        ("quality_ellipses", "ellipsis_lines", limits.max_ellipsis_lines, True),
        ("quality_alphabetic", "alphabetic_words", limits.min_alphabetic_words, False),
        ("quality_stop_words", "stop_words", limits.min_stop_words, False),
        ("quality_unpunctuated", "punctuated_lines", limits.min_punctuated_lines, False),
        ("quality_short_lines", "short_lines", limits.max_short_lines, True),
        ("repetition_line_characters", "repeated_line_characters", limits.max_repeated_line_characters, True),
        ("quality_line_breaks", "breaks_per_word", limits.max_breaks_per_word, True),
    ]
    return [Rule(reason, name, limit, above) for reason, name, limit, above in rules if limit is not None]


def judge(texts: Sequence[str], limits: QualityRules) -> list[Verdict]:
    """For each text the reason and the measured value of the first rule that it breaks; None where it breaks none."""
    if not len(texts):
        return []
    measures = measure(texts, limits)
    verdicts: list[Verdict] = [None] * len(texts)
    undecided = np.ones(len(texts), dtype=bool)
    for row in np.flatnonzero(measures["tokens"] == 0).tolist():
        verdicts[row] = "quality_empty", 0.0
        undecided[row] = False
    for rule in rules_of(limits):
        for row in np.flatnonzero(undecided & broken(rule, measures)).tolist():
            verdicts[row] = rule.reason, float(measures[rule.measure][row])
            undecided[row] = False
    return verdicts


def broken(rule: Rule, measures: Measures) -> np.ndarray:
    """Which texts break a rule, bool [texts]."""
    values = measures[rule.measure]
    result: np.ndarray = values > rule.limit if rule.above else values < rule.limit
    return result


def measure(texts: Sequence[str], limits: QualityRules) -> Measures:
    """Everything that the rules look at."""
    column = pc.utf8_trim_whitespace(pa.array(texts, pa.large_string()))
    characters = _floats(pc.utf8_length(column))
    top, repeated = sorted(limits.top_ngrams), sorted(limits.duplicate_ngrams)
    data, offsets = text_buffers(column)
    counts, tops, repeats = measure_words(
        data,
        offsets,
        character_classes(),
        token_hashes(limits.stop_words),
        np.array(top, np.int64),
        np.array(repeated, np.int64),
        int(np.diff(offsets).max(initial=0)),
    )
    tokens, words = counts[:, 0], counts[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "tokens": tokens,
            "words": words,
            "word_length": counts[:, 2] / words,
            "alphabetic_words": counts[:, 3] / tokens,
            "stop_words": counts[:, 4],
            "hashes_per_word": _floats(pc.count_substring(column, "#")) / tokens,
            "ellipses_per_word": _floats(pc.add(pc.count_substring(column, "..."), pc.count_substring(column, "…"))) / tokens,
            "breaks_per_word": _floats(pc.count_substring(column, "\n")) / tokens,
            **{f"top_{size}_gram": tops[:, index] / characters for index, size in enumerate(top)},
            **{f"duplicate_{size}_grams": repeats[:, index] / characters for index, size in enumerate(repeated)},
            **_line_measures(column, characters, limits.short_line),
            **_paragraph_measures(column, characters),
        }


def _line_measures(column: pa.Array, characters: np.ndarray, short_line: int) -> Measures:
    pieces = pc.split_pattern(column, "\n")
    lines, owners = pieces.flatten(), pc.list_parent_indices(pieces).to_numpy()
    lengths = _floats(pc.utf8_length(lines))
    blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(lines)), 0).to_numpy(zero_copy_only=False)
    starts = pc.is_in(pc.utf8_slice_codeunits(pc.utf8_ltrim_whitespace(lines), 0, 1), BULLETS.cast(lines.type))
    trimmed = pc.utf8_rtrim_whitespace(lines)
    trailing = pc.or_(pc.ends_with(trimmed, "..."), pc.ends_with(trimmed, "…"))
    ending = pc.is_in(pc.utf8_slice_codeunits(lines, -1), ENDS.cast(lines.type))
    total = len(column)

    def share(hit: np.ndarray, among: np.ndarray) -> np.ndarray:
        return np.bincount(owners[hit & among], minlength=total) / np.bincount(owners[among], minlength=total)

    every, filled = np.ones(len(lines), dtype=bool), lengths > 0
    repeats, repeated_characters = _duplicates(lines.filter(pa.array(filled)), owners[filled], lengths[filled], total)
    solid = filled & ~blank
    _, solid_characters = _duplicates(lines.filter(pa.array(solid)), owners[solid], lengths[solid], total)
    breaks = _floats(pc.count_substring(column, "\n"))
    return {
        "bullet_lines": share(starts.to_numpy(zero_copy_only=False), every),
        "ellipsis_lines": share(trailing.to_numpy(zero_copy_only=False), every),
        "punctuated_lines": share(ending.to_numpy(zero_copy_only=False), solid),
        "short_lines": share(lengths <= short_line, solid),
        "duplicate_lines": repeats / np.bincount(owners[filled], minlength=total),
        "duplicate_line_characters": repeated_characters / characters,
        "repeated_line_characters": solid_characters / (characters - breaks),
    }


def _paragraph_measures(column: pa.Array, characters: np.ndarray) -> Measures:
    pieces = pc.split_pattern_regex(column, "\n{2,}")
    paragraphs, owners = pieces.flatten(), pc.list_parent_indices(pieces).to_numpy()
    repeats, repeated_characters = _duplicates(paragraphs, owners, _floats(pc.utf8_length(paragraphs)), len(column))
    return {
        "duplicate_paragraphs": repeats / np.bincount(owners, minlength=len(column)),
        "duplicate_paragraph_characters": repeated_characters / characters,
    }


def _duplicates(pieces: pa.Array, owners: np.ndarray, lengths: np.ndarray, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """How many pieces of each text occur in it before, and their characters; float64 [texts] both."""
    names = pieces.dictionary_encode()
    keys = owners * max(1, len(names.dictionary)) + names.indices.to_numpy()
    _, first = np.unique(keys, return_index=True)
    again = np.ones(len(keys), dtype=bool)
    again[first] = False
    number = np.bincount(owners[again], minlength=texts).astype(np.float64)
    return number, np.bincount(owners[again], weights=lengths[again], minlength=texts)


def _floats(values: pa.Array) -> np.ndarray:
    result: np.ndarray = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return result
