"""Fit an encoder's vocabulary to a corpus: take over a donor's tokens, trim what is never used, learn what is often spelled out.

In this order, so that a donor's tokens are trimmed and spelled with as well. What is left as it is keeps its embedding bit for bit,
and where nothing is trimmed its id; the tokenizer is always rebuilt whole.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.head import MlmHead
from raysberta.vocabulary.extend import adopt, learn, unreachable
from raysberta.vocabulary.facts import Fertility, HeldOut, Neighbours
from raysberta.vocabulary.initialise import Found, Initialisation, Origin, install, resize, rows, table
from raysberta.vocabulary.pieces import Pieces, cut_greedily, read, rebuild
from raysberta.vocabulary.settings import Vocabulary
from raysberta.vocabulary.trim import choose, count, keep

SAMPLES = 20
NEIGHBOURS = 3


@dataclass(frozen=True)
class Revision:
    """A tokenizer with other pieces, and how it came about."""

    tokenizer: PreTrainedTokenizerFast
    texts: list[str]
    """The pieces by id."""
    origins: list[Origin]
    """Where each piece comes from, in ids of the old tokenizer."""
    counts: dict[str, int]
    """before, adopted, adopted_unreachable, trimmed, learned, after."""

    @property
    def new(self) -> list[int]:
        """Ids of the pieces that there were not before."""
        return [number for number, origin in enumerate(self.origins) if not isinstance(origin, int)]


def revise(
    tokenizer: PreTrainedTokenizerFast, batches: Iterable[Sequence[str]], settings: Vocabulary, donor: PreTrainedTokenizerFast | None = None
) -> Revision:
    """The tokenizer that the settings ask for.

    Args:
        tokenizer: The old one, Unigram, BPE or WordPiece.
        batches: Texts as the model will read them, prefixes included; read once, and only where trimming or learning asks for it.
        settings: What to do.
        donor: Tokenizer of `settings.extend_from`.

    Raises:
        InputError: the tokenizer's kind cannot do what is asked.
    """
    if not (settings.trim or settings.learn or donor):
        size = len(tokenizer)
        texts = [str(tokenizer.convert_ids_to_tokens(number)) for number in range(size)]
        return Revision(tokenizer, texts, list(range(size)), _counts(before=size, after=size))
    old = read(tokenizer)
    if settings.trim and old.kind == "wordpiece":
        raise InputError("trim: is for Unigram and BPE, the tokenizer is WordPiece; right would be learn or extend_from alone")
    pieces = adopt(old, read(donor)) if donor else old
    counts = _counts(before=len(old), adopted=len(pieces) - len(old), adopted_unreachable=unreachable(pieces, len(old)))
    if settings.trim or settings.learn:
        usage = count(rebuild(tokenizer, pieces) if donor else tokenizer, batches, words=settings.learn > 0)
        whole = pieces
        words: Mapping[tuple[int, ...], int] = usage.words
        if settings.trim:
            given = settings.size, settings.smoothing
            kept = keep(whole, usage.counts) if given[0] is None else choose(whole, usage.counts, given[0], given[1])
            pieces = whole.select(kept)
            words = _cut_again(words, whole, kept, rebuild(tokenizer, pieces)) if settings.learn else {}
        counts["trimmed"] = len(whole) - len(pieces)
        fitted = learn(pieces, words, settings.learn, taken=frozenset(whole.texts))
        counts["learned"] = len(fitted) - len(pieces)
        pieces = fitted
    counts["after"] = len(pieces)
    return Revision(rebuild(tokenizer, pieces), pieces.texts, _origins(tokenizer, old, pieces), counts)


def _counts(**known: int) -> dict[str, int]:
    return {"before": 0, "adopted": 0, "adopted_unreachable": 0, "trimmed": 0, "learned": 0, "after": 0, **known}


def _origins(tokenizer: PreTrainedTokenizerFast, old: Pieces, pieces: Pieces) -> list[Origin]:
    number_of = {text: number for number, text in enumerate(old.texts)}
    unknown = tokenizer.unk_token_id if old.kind == "unigram" else None
    model = tokenizer.backend_tokenizer.model

    def spelled(text: str) -> tuple[int, ...]:
        if old.kind == "wordpiece":
            return cut_greedily(text, number_of)
        return tuple(token.id for token in model.tokenize(text) if token.id != unknown)

    return [number_of[text] if text in number_of else spelled(text) for text in pieces.texts]


def apply(
    model: PreTrainedModel,
    revision: Revision,
    settings: Vocabulary,
    seed: int,
    found: Mapping[Initialisation, Found] | None = None,
    head: MlmHead | None = None,
) -> None:
    """Give the model the revised vocabulary. Untouched, it keeps its embedding table, rows past the last piece included.

    Args:
        model: Changed in place.
        revision: Of its tokenizer.
        settings: Say how new rows start.
        seed: Of draws.
        found: Of the initialisations that ask more than the old rows, see `initialise.rows`.
        head: The model's for masked words, changed with it.
    """
    origins = revision.origins
    if len(origins) == revision.counts["before"] and origins == list(range(len(origins))):
        return
    install(model, revision.tokenizer, rows(table(model), origins, settings.initialisation, seed, found))
    if head is not None:
        resize(head, origins, seed)


def _cut_again(
    words: Mapping[tuple[int, ...], int], whole: Pieces, kept: Sequence[int], tokenizer: PreTrainedTokenizerFast
) -> Counter[tuple[int, ...]]:
    """Words, as ids of the whole vocabulary, in ids of the kept pieces; a word with a piece that was dropped is cut anew."""
    place = {number: new for new, number in enumerate(kept)}
    model = tokenizer.backend_tokenizer.model
    found: Counter[tuple[int, ...]] = Counter()
    for word, times in words.items():
        if all(number in place for number in word):
            found[tuple(place[number] for number in word)] += times
        elif not any(whole.texts[number] in whole.special for number in word):  # nothing is learned from a word with an unknown part
            found[tuple(token.id for token in model.tokenize("".join(whole.texts[number] for number in word)))] += times
    return found


def held_out(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast, texts: Mapping[str, Sequence[str]]) -> dict[str, HeldOut]:
    """How texts that decided nothing are cut by two tokenizers, by language; special tokens are not counted."""
    found = {}
    for language, sample in texts.items():
        words = max(sum(len(text.split()) for text in sample), 1)
        before, after, same = 0, 0, 0
        for text in sample:
            ours, theirs = (_cuts(tokenizer, text) for tokenizer in (old, new))
            before, after, same = before + ours.total(), after + theirs.total(), same + (ours & theirs).total()
        found[language] = HeldOut(
            tokens=before,
            changed=round(1 - same / max(before, 1), 6),
            fertility_before=round(before / words, 4),
            fertility_after=round(after / words, 4),
        )
    return found


def _cuts(tokenizer: PreTrainedTokenizerFast, text: str) -> Counter[tuple[str, tuple[int, int]]]:
    """Each token's piece and place in the text; those of half a letter share a place. An unknown part is the unknown piece, not itself."""
    backend = tokenizer.backend_tokenizer
    encoding = backend.encode(text, add_special_tokens=False)
    pieces = (backend.id_to_token(number) or "" for number in encoding.ids)
    return Counter(zip(pieces, encoding.offsets, strict=True))


def fertility(tokenizer: PreTrainedTokenizerFast, texts: Mapping[str, Sequence[str]]) -> dict[str, Fertility]:
    """Tokens a word (between blanks) and share of unknown tokens, by language; special tokens are not counted."""
    found = {}
    for language, sample in texts.items():
        counts = count(tokenizer, [sample]).counts
        words = sum(len(text.split()) for text in sample)
        unknown = int(counts[tokenizer.unk_token_id]) if tokenizer.unk_token_id is not None else 0
        tokens = max(int(counts.sum()), 1)
        found[language] = Fertility(fertility=round(tokens / max(words, 1), 4), unknown=round(unknown / tokens, 6))
    return found


def neighbours(revision: Revision, words: Tensor) -> list[Neighbours]:
    """Some new pieces, evenly spread, each with the old pieces nearest to its row of the words [V, H] by cosine."""
    new = revision.new
    old = [number for number, origin in enumerate(revision.origins) if isinstance(origin, int)]
    chosen = [new[place] for place in np.linspace(0, len(new) - 1, min(SAMPLES, len(new))).astype(int)]
    if not chosen:
        return []
    unit = F.normalize(words, dim=-1)
    best = torch.topk(unit[chosen] @ unit[old].T, min(NEIGHBOURS, len(old))).indices
    return [
        Neighbours(piece=revision.texts[number], nearest=[revision.texts[old[place]] for place in places])
        for number, places in zip(chosen, best.tolist(), strict=True)
    ]
