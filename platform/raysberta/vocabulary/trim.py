"""Which pieces texts use, and which to keep: all of those, or so many of the most probable ones of the texts' languages.

Whatever is kept, a text whose pieces are all kept is cut as before. A Unigram takes the best of all segmentations, and the best one is
still there; BPE keeps with each piece the merges that lead to it, and every merge that fired led to a piece that was used.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from transformers import PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.vocabulary.pieces import Pieces
from raysberta.vocabulary.scripts import byte_level, in_scripts, readable, scripts_of, spells

WORDS = 3_000_000
"""Distinct words that are counted at once, some 200 bytes each, and 800 while pieces are learned from them. Half of any corpus's stand in
it once; one that was left out and comes again is counted anew."""


@dataclass
class Usage:
    """What a tokenizer made of a corpus."""

    counts: np.ndarray
    """Occurrences by id, int64 [pieces]."""
    words: Counter[tuple[int, ...]] = field(default_factory=Counter)
    """Ids of each distinct word with its occurrences, of the most frequent ones where there are very many; empty unless asked for."""


def count(tokenizer: PreTrainedTokenizerFast, batches: Iterable[Sequence[str]], words: bool = False) -> Usage:
    """Tokenize batches of texts, without special tokens, and count. Of words the most frequent half is kept whenever there are WORDS."""
    usage = Usage(np.zeros(len(tokenizer), np.int64))
    for texts in batches:
        encodings = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        usage.counts += np.bincount(np.fromiter(chain.from_iterable(ids), np.int64), minlength=len(usage.counts))
        if words:
            for row, encoding in zip(ids, encodings, strict=True):
                usage.words.update(_words(row, encoding.word_ids))
            if len(usage.words) > WORDS:
                usage.words = Counter(dict(heapq.nsmallest(WORDS // 2, usage.words.items(), key=lambda item: (-item[1], item[0]))))
    return usage


def _words(ids: list[int], places: list[int | None]) -> Iterable[tuple[int, ...]]:
    """Group ids by the word that they stand in."""
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or places[end] != places[start]:
            yield tuple(ids[start:end])
            start = end


def keep(pieces: Pieces, counts: np.ndarray) -> list[int]:
    """Ids to keep, ascending: what the texts use, and what spells words unseen (`_always`).

    Args:
        pieces: All there are.
        counts: Occurrences by id, int64 [pieces].
    """
    always = _always(pieces, scripts_of(readable(pieces), counts))
    return sorted(_parts_first(pieces, [*always, *np.flatnonzero(counts).tolist()]))


def choose(pieces: Pieces, counts: np.ndarray, size: int, smoothing: float) -> list[int]:
    """Exactly `size` ids to keep, ascending: what spells words unseen (`_always`), then the most probable by `estimates`.

    Of pieces that are as probable, the one that the tokenizer itself holds more probable goes first. A greater size keeps all that a
    smaller one keeps. BPE's order has the parts of a piece right before it, so every beginning of it can be reached by merges.

    Args:
        pieces: All there are.
        counts: Occurrences by id, int64 [pieces].
        size: How many.
        smoothing: See `estimates`.

    Raises:
        InputError: what is always kept is more than that, or the texts' scripts have less.
    """
    shown = readable(pieces)
    scripts = scripts_of(shown, counts)
    always = _parts_first(pieces, _always(pieces, scripts))
    own = _own(pieces, shown, scripts)
    probable = estimates(counts, own, smoothing)
    order = np.lexsort((np.arange(len(pieces)), -own, -probable))
    there = order[(probable[order] > 0) | (own[order] > 0)]
    ranked = _parts_first(pieces, [*always, *there.tolist()])
    if not len(always) <= size <= len(ranked):
        named = ", ".join(sorted(script.capitalize() for script in scripts)) or "none"
        raise InputError(
            f"size: {size:,} cannot be; right would be from {len(always):,}, the special tokens, letters, digits and signs, "
            f"to {len(ranked):,}, all that the texts use or that their scripts ({named}) have"
        )
    return sorted(ranked[:size])


def estimates(counts: np.ndarray, own: np.ndarray, smoothing: float) -> np.ndarray:
    """The probability of each piece in text like the one counted, float64 [pieces].

    p(piece) = (1 - smoothing) * count(piece) / sum of counts + smoothing * own(piece): linear interpolation (Jelinek and Mercer 1980)
    of what the texts say with what the tokenizer was trained on, so that texts which lack a word do not cost the language its pieces.

    Args:
        counts: Occurrences by id, int64 [pieces].
        own: The tokenizer's own probabilities, see `_own`.
        smoothing: Share of `own`, 0 to 1.
    """
    return (1 - smoothing) * counts / max(int(counts.sum()), 1) + smoothing * own


def _own(pieces: Pieces, shown: Sequence[str], scripts: set[str]) -> np.ndarray:
    """What the tokenizer holds of each piece in the scripts, as a share of all such, float64 [pieces]; 0 for all others.

    A Unigram's scores are log probabilities. BPE merges the most frequent pair first, and frequencies fall about as 1 / rank (Zipf),
    so the product of the n-th merge is taken to be 1 / n as frequent as that of the first.
    """
    if pieces.kind == "unigram":
        weights = np.exp(np.array(pieces.scores, np.float64))
    else:
        number_of = {text: number for number, text in enumerate(pieces.texts)}
        weights = np.zeros(len(pieces))
        for rank, (left, right) in reversed(list(enumerate(pieces.merges, 1))):  # the first of several that lead to a piece counts
            weights[number_of[left + right]] = 1 / rank
    inside = [text not in pieces.special and in_scripts(shown[number], scripts) for number, text in enumerate(pieces.texts)]
    weights *= np.array(inside, np.float64)
    return weights / max(float(weights.sum()), np.finfo(np.float64).tiny)


def _always(pieces: Pieces, scripts: set[str]) -> list[int]:
    """Ids that no trim drops: special tokens, pieces that stand for a byte, and the letters, digits and signs that spell words unseen."""
    of_bytes = byte_level(pieces)
    stay = {text for text in pieces.texts if (len(text) == 1 if of_bytes else spells(text, scripts))} | pieces.special
    return [number for number, text in enumerate(pieces.texts) if text in stay]


def _parts_first(pieces: Pieces, order: Iterable[int]) -> list[int]:
    """The ids in their order, each once, and before each those that BPE's merges make it of; of a Unigram just the ids."""
    number_of = {text: number for number, text in enumerate(pieces.texts)} if pieces.merges else {}
    parts: dict[int, list[int]] = {}
    for left, right in pieces.merges:
        parts.setdefault(number_of[left + right], []).extend((number_of[left], number_of[right]))
    found: dict[int, None] = {}
    for wanted in order:
        todo = [wanted]
        while todo:
            missing = [part for part in parts.get(todo[-1], ()) if part not in found]
            if missing:
                todo.extend(missing)
            else:
                found[todo.pop()] = None
    return list(found)
