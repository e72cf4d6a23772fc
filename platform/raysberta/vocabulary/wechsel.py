"""WECHSEL: a new piece's row as a mean of the rows of old pieces that mean the like in the language that the base knows.

Minixhofer et al. 2022 (arXiv 2112.06598): static word vectors of both languages, the source's turned into the target's space by
orthogonal Procrustes over a bilingual dictionary; a piece's vector is the mean of those of the words that hold it, weighed by their
frequency; a new row is the mean of the rows of the 10 nearest old pieces, weighed by the softmax of their cosines / 0.1. Vectors come
from files in word2vec's text format (fastText's .vec), or are learned from the corpus as those of FOCUS are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.storage.location import shown
from raysberta.vocabulary.focus import auxiliary
from raysberta.vocabulary.initialise import Found, Origin
from raysberta.vocabulary.outside import lines
from raysberta.vocabulary.procrustes import rotation

NEAREST = 10
TEMPERATURE = 0.1
BLOCK = 256
MIN_COUNT = 5
MAX_WORDS = 200_000
MAX_DIMENSIONS = 1024
MAX_PAIRS = 1_000_000
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Words:
    """Static vectors of a language's words, the most frequent first."""

    texts: list[str]
    vectors: Tensor
    """float32 [words, D]."""


def wechsel(source: Tensor, target: Tensor, origins: Sequence[Origin], old: Tensor) -> Found:
    """Rows for the new pieces that have a vector.

    Args:
        source: Vectors of the old vocabulary's pieces [V, D], 0 where a piece has none.
        target: Of the new vocabulary's in the same space [len(origins), D].
        origins: Where each piece comes from.
        old: The rows there were [V, H].
    """
    known = source.any(1).nonzero()[:, 0]
    there = target.any(1).tolist()
    new = [place for place, origin in enumerate(origins) if not isinstance(origin, int) and there[place]] if len(known) else []
    near, wanted = F.normalize(source[known], dim=-1), F.normalize(target[new], dim=-1)
    found = torch.empty(len(new), old.shape[1], dtype=old.dtype)
    for start in range(0, len(new), BLOCK):
        best = torch.topk(wanted[start : start + BLOCK] @ near.T, min(NEAREST, len(known)))
        weights = (best.values / TEMPERATURE).softmax(-1).to(old.dtype)
        found[start : start + BLOCK] = (weights[..., None] * old[known[best.indices]]).sum(1)
    return new, found


def aligned(source: Words, target: Words, dictionary: Iterable[tuple[str, str]]) -> Words:
    """The source's words in the target's space.

    Raises:
        InputError: too few of the dictionary's pairs have vectors for the rotation to be determined.
    """
    first, second = ({text: place for place, text in enumerate(words.texts)} for words in (source, target))
    pairs = [(first[one], second[other]) for one, other in dictionary if one in first and other in second]
    width = min(source.vectors.shape[1], target.vectors.shape[1])
    if len(pairs) <= width:
        raise InputError(
            f"wechsel.dictionary: {len(pairs)} of its pairs have vectors on both sides; "
            f"right would be more than the {width} dimensions that are to be aligned"
        )
    ours, theirs = (list(places) for places in zip(*pairs, strict=True))
    turn = rotation(source.vectors[ours].double(), target.vectors[theirs].double())
    return Words(source.texts, source.vectors @ turn.float())


def piece_vectors(words: Words, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Vectors float32 [pieces, D]: of each piece the mean of those of the words it stands in, weighed by 1 / rank (Zipf); else 0."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast([f" {text}" for text in words.texts], add_special_tokens=False)
    special = set(tokenizer.all_special_ids)
    places = [(piece, word) for word, encoding in enumerate(encodings) for piece in encoding.ids if piece not in special]
    pieces, ranks = np.asarray(places, np.int64).reshape(-1, 2).T
    shares = sparse.csr_matrix((1 / (1.0 + ranks), (pieces, ranks)), shape=(len(tokenizer), len(words.texts)))
    totals = np.asarray(shares.sum(1)).ravel()
    means = sparse.diags(1 / np.where(totals, totals, 1)) @ shares @ words.vectors.double().numpy()
    return torch.from_numpy(np.asarray(means, np.float32))


def own_words(read: Callable[[], Iterable[Sequence[str]]], seed: int, key: str) -> Words:
    """Vectors of the words that occur MIN_COUNT times in a corpus, see `focus.auxiliary`.

    Args:
        read: Gives the texts in batches; called twice.
        seed: Of the decomposition.
        key: Of the recipe, for messages.

    Raises:
        InputError: the corpus has no such words.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=MAX_WORDS, min_frequency=MIN_COUNT, special_tokens=[UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(read(), trainer)
    size = tokenizer.get_vocab_size()
    if size < 3:
        raise InputError(f"{key}: the training texts hold hardly a word of that language; right would be another, or a file of vectors")
    vectors = auxiliary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN), read(), seed)
    return Words([str(tokenizer.id_to_token(number)) for number in range(1, size)], vectors[1:])


def read_words(uri: str, key: str) -> Words:
    """The first MAX_WORDS words of a file in word2vec's text format: "words dimensions", then a line a word, most frequent first.

    Raises:
        InputError: naming the key, the file and the line that is wrong.
    """
    rest = lines(uri, key)
    head = next(rest, "").split()
    if len(head) != 2 or not all(part.isascii() and part.isdigit() for part in head) or not 0 < int(head[1]) <= MAX_DIMENSIONS:
        raise InputError(
            f'{key}: {shown(uri)}: no file of vectors; right would be word2vec\'s text format, whose first line is "words dimensions"'
        )
    width = int(head[1])
    texts: list[str] = []
    vectors: list[np.ndarray] = []
    for number, line in enumerate(rest, 2):
        if len(texts) == MAX_WORDS:
            break
        text, *numbers = line.rstrip("\n ").rsplit(" ", width)
        vector = _numbers(numbers)
        if vector is None or len(vector) != width:
            raise InputError(f"{key}: {shown(uri)}: line {number} is not a word and {width} numbers")
        texts.append(text)
        vectors.append(vector)
    if not texts:
        raise InputError(f"{key}: {shown(uri)}: no words there")
    return Words(texts, torch.from_numpy(np.stack(vectors)))


def _numbers(texts: list[str]) -> np.ndarray | None:
    try:
        with np.errstate(over="ignore"):  # infinite then, and refused
            found = np.asarray(texts, np.float32)
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def read_dictionary(uri: str, key: str) -> list[tuple[str, str]]:
    """Pairs of a source and a target word, a line each, parted by a tab or blanks.

    Raises:
        InputError: naming the key, the file and the line that is wrong.
    """
    pairs = []
    for number, line in enumerate(lines(uri, key), 1):
        parts = [part.strip() for part in (line.split("\t") if "\t" in line else line.split())]
        if len(parts) != 2 or not all(parts):
            raise InputError(f"{key}: {shown(uri)}: line {number} is not a source word and a target word")
        if number > MAX_PAIRS:
            raise InputError(f"{key}: {shown(uri)}: over {MAX_PAIRS:,} pairs, which no dictionary of words has")
        pairs.append((parts[0], parts[1]))
    return pairs
