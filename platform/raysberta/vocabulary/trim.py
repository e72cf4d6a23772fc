"""Which pieces a corpus uses, and which to keep so that it is still tokenized exactly as before."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from transformers import PreTrainedTokenizerFast

from raysberta.vocabulary.pieces import Pieces

MIN_SCRIPT_SHARE = 0.001  # of the letters; a stray foreign word does not bring its alphabet along


@dataclass
class Usage:
    """What a tokenizer made of a corpus."""

    counts: np.ndarray
    """Occurrences by id, int64 [pieces]."""
    words: Counter[tuple[int, ...]] = field(default_factory=Counter)
    """Ids of each distinct word with its occurrences; empty unless asked for."""


def count(tokenizer: PreTrainedTokenizerFast, batches: Iterable[Sequence[str]], words: bool = False) -> Usage:
    """Tokenize batches of texts, without special tokens, and count. Memory grows with the distinct words alone."""
    usage = Usage(np.zeros(len(tokenizer), np.int64))
    for texts in batches:
        encodings = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        usage.counts += np.bincount(np.fromiter(chain.from_iterable(ids), np.int64), minlength=len(usage.counts))
        if words:
            for row, encoding in zip(ids, encodings, strict=True):
                usage.words.update(_words(row, encoding.word_ids))
    return usage


def _words(ids: list[int], places: list[int | None]) -> Iterable[tuple[int, ...]]:
    """Group ids by the word that they stand in."""
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or places[end] != places[start]:
            yield tuple(ids[start:end])
            start = end


def keep(pieces: Pieces, counts: np.ndarray) -> list[int]:
    """Ids to keep, ascending: special tokens, what the corpus uses, and the letters, digits and signs that spell words unseen.

    Whatever the corpus used is tokenized as before. A Unigram takes the best of all segmentations, and the best one is still there;
    BPE keeps with each piece the merges that lead to it, and every merge that fired led to a piece that was used.
    """
    kept = {number for number, text in enumerate(pieces.texts) if counts[number] or text in pieces.special}
    if pieces.kind == "bpe":
        kept |= {number for number, text in enumerate(pieces.texts) if len(text) == 1}
        return sorted(_with_ancestors(pieces, kept))
    scripts = _scripts(pieces, counts)
    for number, text in enumerate(pieces.texts):
        if len(text) == 1 and (unicodedata.category(text)[0] in "NPSZ" or _script(text) in scripts):
            kept.add(number)
    return sorted(kept)


def _with_ancestors(pieces: Pieces, kept: set[int]) -> set[int]:
    number_of = {text: number for number, text in enumerate(pieces.texts)}
    parents: dict[int, list[int]] = {}
    for left, right in pieces.merges:
        parents.setdefault(number_of[left + right], []).extend((number_of[left], number_of[right]))
    found, todo = set(kept), list(kept)
    while todo:
        for parent in parents.get(todo.pop(), ()):
            if parent not in found:
                found.add(parent)
                todo.append(parent)
    return found


def _scripts(pieces: Pieces, counts: np.ndarray) -> set[str]:
    letters: Counter[str] = Counter()
    for number in np.flatnonzero(counts):
        for character in pieces.texts[number]:
            if unicodedata.category(character)[0] == "L":
                letters[_script(character)] += int(counts[number])
    return {script for script, seen in letters.items() if seen >= MIN_SCRIPT_SHARE * letters.total()}


def _script(character: str) -> str:
    return unicodedata.name(character, "?").split()[0]
