"""New pieces for a vocabulary: learned from a corpus, or taken over from another tokenizer. Old ids stay as they are.

Learning goes on where the old vocabulary stopped: words stand there as old pieces, and the pair of neighbours that occurs most
becomes a piece, again and again, as in BPE (Sennrich et al. 2016, arXiv 1508.07909). Each merge saves as many tokens as the pair
occurs. For BPE the merges are appended; for a Unigram the pieces that survive get the logarithm of their relative frequency;
WordPiece takes the longest piece that fits, whatever it was merged from.
"""

import heapq
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from tokenizers import models

from raysberta.errors import InputError
from raysberta.vocabulary.pieces import CONTINUING, Kind, Pieces

MIN_COUNT = 5
MAX_CHARACTERS = {"unigram": 24, "bpe": 48, "wordpiece": 24}
REPAIR_ROUNDS = 3

Pair = tuple[int, int]


@dataclass
class _Learner:
    """Words as pieces, with the pairs of neighbours counted."""

    kind: Kind
    texts: list[str]
    words: list[list[int]]
    counts: list[int]

    def __post_init__(self) -> None:
        self.uses: Counter[int] = Counter()
        self.pairs: Counter[Pair] = Counter()
        self.places: defaultdict[Pair, set[int]] = defaultdict(set)
        for place, (word, count) in enumerate(zip(self.words, self.counts, strict=True)):
            for piece in word:
                self.uses[piece] += count
            for pair in pairwise(word):
                self.pairs[pair] += count
                self.places[pair].add(place)

    def text(self, pair: Pair) -> str:
        """What the pair reads as one piece."""
        left, right = (self.texts[piece] for piece in pair)
        return left + (right.removeprefix(CONTINUING) if self.kind == "wordpiece" else right)

    def merge(self, pair: Pair) -> set[Pair]:
        """Make the pair one piece wherever it stands; return the pairs whose counts grew."""
        new = len(self.texts)
        self.texts.append(self.text(pair))
        grown: set[Pair] = set()
        for place in sorted(self.places.pop(pair)):
            old, count = self.words[place], self.counts[place]
            word = _joined(old, pair, new)
            for pieces, sign in ((old, -1), (word, 1)):
                for one in pieces:
                    self.uses[one] += sign * count
                for two in pairwise(pieces):
                    self.pairs[two] += sign * count
            for two in pairwise(word):
                self.places[two].add(place)
                grown.add(two)
            self.words[place] = word
        return {two for two in grown if new in two}


def _joined(word: list[int], pair: Pair, new: int) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(word):
        if at + 1 < len(word) and (word[at], word[at + 1]) == pair:
            found.append(new)
            at += 2
        else:
            found.append(word[at])
            at += 1
    return found


def learn(pieces: Pieces, words: Mapping[tuple[int, ...], int], how_many: int, taken: frozenset[str] = frozenset()) -> Pieces:
    """Append up to `how_many` pieces learned from words.

    Args:
        pieces: What there is.
        words: Ids of distinct words with their occurrences.
        how_many: Fewer are learned where no further pair occurs MIN_COUNT times.
        taken: Texts that must not become pieces, such as those that were trimmed away.
    """
    known = {*taken, *pieces.texts}
    special = {number for number, text in enumerate(pieces.texts) if text in pieces.special}
    usable = {word: count for word, count in words.items() if special.isdisjoint(word)}
    learner = _Learner(pieces.kind, list(pieces.texts), [list(word) for word in usable], list(usable.values()))
    queue = [_entry(learner, pair) for pair in learner.pairs]
    heapq.heapify(queue)
    parts: dict[int, Pair] = {}
    alive: set[int] = set()
    while queue and len(alive) < how_many:
        pair = heapq.heappop(queue)[-1]
        text = learner.text(pair)
        if learner.pairs[pair] < MIN_COUNT or text in known or not _may_join(pieces.kind, text):
            continue
        if queue and _entry(learner, pair) > queue[0]:  # its count fell since it was queued
            heapq.heappush(queue, _entry(learner, pair))
            continue
        new = len(learner.texts)
        parts[new] = pair
        for grown in learner.merge(pair):
            heapq.heappush(queue, _entry(learner, grown))
        known.add(text)
        alive.add(new)
        if pieces.kind != "bpe":  # which needs the steps between as well
            alive -= {piece for piece in pair if learner.uses[piece] < MIN_COUNT}
    if pieces.kind == "bpe":
        merges = [(learner.texts[left], learner.texts[right]) for left, right in parts.values()]
        return replace(pieces, texts=learner.texts, merges=pieces.merges + merges)
    if pieces.kind == "wordpiece":
        used = [learner.texts[piece] for piece in parts if learner.uses[piece] >= MIN_COUNT]
        return replace(pieces, texts=pieces.texts + used)
    return _scored(pieces, learner, parts)


def _entry(learner: _Learner, pair: Pair) -> tuple[int, str, str, Pair]:
    """Most frequent first, then by text, so that the order of the corpus does not matter."""
    return -learner.pairs[pair], learner.texts[pair[0]], learner.texts[pair[1]], pair


def _may_join(kind: Kind, text: str) -> bool:
    """Whether a text may become a piece: not too long and, but in BPE, without digits and no word with a sign ("word,").

    Byte-level BPE writes bytes as stand-in characters, and has parted words, numbers and signs before.
    """
    if len(text) > MAX_CHARACTERS[kind]:
        return False
    text = text.removeprefix(CONTINUING) if kind == "wordpiece" else text
    letters = {unicodedata.category(character)[0] in "LM" for character in text if character != "▁"}
    return kind == "bpe" or (len(letters) <= 1 and not any(character.isdigit() for character in text))


def _scored(pieces: Pieces, learner: _Learner, parts: Mapping[int, Pair]) -> Pieces:
    """The Unigram with those new pieces that are still used and more probable than their spelling in old pieces."""
    total = learner.uses.total()
    spelled = dict(enumerate(pieces.scores))
    texts, scores = list(pieces.texts), list(pieces.scores)
    for piece, (left, right) in parts.items():
        spelled[piece] = spelled[left] + spelled[right]
        score = math.log(learner.uses[piece] / total) if learner.uses[piece] >= MIN_COUNT else -math.inf
        if score > spelled[piece]:
            texts.append(learner.texts[piece])
            scores.append(score)
    return replace(pieces, texts=texts, scores=scores)


def adopt(pieces: Pieces, donor: Pieces) -> Pieces:
    """Append the tokens of a donor of the same kind that are missing.

    BPE: its merges are appended as well; the old ones go first, so only what they leave apart is joined further. A token that the old
    merges keep from forming gets a merge of its own where two pieces spell it. Unigram: its log probabilities are moved so that, at
    the median, the pieces that both have agree; text is then cut into the most probable pieces of either. WordPiece:
    into the longest of either.

    Raises:
        InputError: the two are of different kinds, or a BPE donor is built on another alphabet.
    """
    if pieces.kind != donor.kind:
        raise InputError(f"extend_from: merges {donor.kind} into {pieces.kind}; right would be both of one kind")
    known = set(pieces.texts)
    new = [text for text in donor.texts if text not in known and text not in donor.special]
    texts = pieces.texts + new
    if pieces.kind == "wordpiece":
        return replace(pieces, texts=texts)
    if pieces.kind == "unigram":
        ours, theirs = (dict(zip(each.texts, each.scores, strict=True)) for each in (pieces, donor))
        apart = [ours[text] - theirs[text] for text in known & set(donor.texts) - pieces.special - donor.special]
        moved = median(apart) if apart else 0.0
        return replace(pieces, texts=texts, scores=pieces.scores + [theirs[text] + moved for text in new])
    foreign = {text for text in new if len(text) == 1}
    if foreign:
        raise InputError(f"extend_from: the donor spells with {len(foreign)} other letters; right would be byte-level BPE")
    there, merged = set(texts), set(pieces.merges)
    merges = pieces.merges + [(a, b) for a, b in donor.merges if (a, b) not in merged and a in there and b in there and a + b in there]
    for _ in range(REPAIR_ROUNDS):
        model = _model(replace(pieces, texts=texts, merges=merges))
        spellings = ([token.value for token in model.tokenize(text)] for text in new)
        missing = [(spelling[0], spelling[1]) for spelling in spellings if len(spelling) == 2]
        if not missing:
            break
        merges = merges + missing
    return replace(pieces, texts=texts, merges=merges)


def unreachable(pieces: Pieces, since: int) -> int:
    """How many tokens from id `since` on no text can bring forth, because other merges come first or other pieces are more probable."""
    if len(pieces) == since or pieces.kind == "wordpiece":  # which takes the longest that fits
        return 0
    model = _model(pieces)
    return sum(len(model.tokenize(text)) != 1 for text in pieces.texts[since:])


def _model(pieces: Pieces) -> models.Model:
    if pieces.kind == "unigram":
        return models.Unigram(list(zip(pieces.texts, pieces.scores, strict=True)), unk_id=None, byte_fallback=False)
    return models.BPE({text: number for number, text in enumerate(pieces.texts)}, list(pieces.merges))
