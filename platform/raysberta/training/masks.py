"""Which tokens are hidden: from the encoder, which predicts them, and from each position of RetroMAE's decoder."""

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from raysberta.errors import InputError

IGNORED = -100
RANDOM_SHARE, KEPT_SHARE = 0.1, 0.1


@dataclass(frozen=True)
class Pieces:
    """What the masks need to know of a vocabulary."""

    mask: int
    special: np.ndarray
    """Ids that are never predicted."""
    ordinary: np.ndarray
    """Ids that a random replacement may be."""
    begins: np.ndarray | None = None
    """bool [ids]: whether a piece begins a word, where whole words are masked."""


def pieces_of(tokenizer: PreTrainedTokenizerFast, whole_words: bool = False, mask_token: str | None = None) -> Pieces:
    """The pieces of a tokenizer. Words begin at "▁" (SentencePiece) or "Ġ" (byte-level BPE), and do not at "##" (WordPiece).

    Args:
        tokenizer: Of the model to train.
        whole_words: Whether all pieces of a word are hidden or none.
        mask_token: What stands for a hidden token; the tokenizer's own where None.

    Raises:
        InputError: there is no such token; or whole words are asked for and none of its pieces says where words begin.
    """
    hidden = tokenizer.mask_token_id if mask_token is None else tokenizer.get_vocab().get(mask_token)
    if hidden is None:
        right = "right would be mask_token: <one of its tokens>, such as '_'"
        raise InputError(f"mask_token: the tokenizer has no {'token of that kind' if mask_token is None else repr(mask_token)}; {right}")
    special = np.asarray(sorted({*tokenizer.all_special_ids, hidden}), np.int64)
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), special)
    return Pieces(hidden, special, ordinary, _begins(tokenizer, special) if whole_words else None)


def _begins(tokenizer: PreTrainedTokenizerFast, special: np.ndarray) -> np.ndarray:
    texts = [str(text) for text in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
    if any(text.startswith("##") for text in texts):
        found = np.asarray([not text.startswith("##") for text in texts])
    else:
        found = np.asarray([text.startswith(("▁", "Ġ")) for text in texts])
    if not found.any():
        raise InputError("mlm.whole_words: no piece of the vocabulary is marked as a word's first; right would be mlm.whole_words: false")
    found[special] = True
    return found


def mask(tokens: np.ndarray, pieces: Pieces, probability: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens to predict: each ordinary one with `probability`; of these 80 % masked, 10 % random, 10 % kept.

    Where `pieces` knows which begin words, each word is chosen with `probability`, with all its pieces; each piece meets its own fate.

    Args:
        tokens: int [n], of many texts end to end.
        pieces: Of the vocabulary.
        probability: Share of ordinary tokens to predict.
        generator: Draws; the same state gives the same masks.

    Returns:
        What the encoder reads and the labels (IGNORED where nothing is predicted), int64 [n] both.
    """
    special = np.isin(tokens, pieces.special)
    chosen = (generator.random(len(tokens))[word_of(tokens, pieces)] < probability) & ~special
    fate = generator.random(len(tokens))
    strange = generator.choice(pieces.ordinary, len(tokens))
    read = tokens.astype(np.int64)
    labels = np.where(chosen, read, IGNORED)
    read[chosen & (fate >= RANDOM_SHARE + KEPT_SHARE)] = pieces.mask
    swapped = chosen & (fate < RANDOM_SHARE)
    read[swapped] = strange[swapped]
    return read, labels


def word_of(tokens: np.ndarray, pieces: Pieces) -> np.ndarray:
    """Where the word of each token begins, int64 [n]; where `pieces` does not know which begin words, each token is one.

    What follows a special token begins a word.
    """
    places = np.arange(len(tokens))
    if pieces.begins is None:
        return places
    begins = pieces.begins[tokens] | np.concatenate([[True], np.isin(tokens[:-1], pieces.special)])
    return np.maximum.accumulate(np.where(begins, places, 0))


def visible(tokens: np.ndarray, pieces: Pieces, hidden: float, generator: np.random.Generator) -> np.ndarray:
    """What each position of a text sees of the others when it is reconstructed (RetroMAE's position-specific attention mask).

    Position 0 stands for the sentence's vector, which all see. Of the rest each sees a sample of its own, and never its own word.

    Args:
        tokens: int [n], of one text.
        pieces: Of the vocabulary; where it knows which begin words, a position sees all pieces of a word or none.
        hidden: Share of the others that a position does not see.
        generator: Draws.

    Returns:
        bool [n, n]: whether the position of the row sees that of the column.
    """
    word = word_of(tokens, pieces)
    seen = generator.random((len(tokens), len(tokens)), np.float32)[:, word] >= hidden
    seen &= word[:, None] != word
    seen[:, 0] = True
    return seen
