"""What a decoder writes: the loss of a language-model head over many states, and the rows on which it is measured.

Logits of a large vocabulary are many times the states that they come from, so few states' logits are in memory at once: each part's are
made again in the backward pass.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerFast

from raysberta.models.language_head import LanguageHead
from raysberta.training.examples import Examples
from raysberta.training.settings import MOST_LOGITS

APART, MOST_APART = 0.05, 256
"""Rows that a loss is measured on and nothing is learned from: this share, and at most so many."""

MEASURED = 32
"""Rows at once where a loss is measured."""

Row = TypeVar("Row")
Cast = Callable[[torch.device], AbstractContextManager[object]]


def written_loss(head: LanguageHead, table: Tensor, states: Tensor, labels: Tensor, weights: Tensor, cast: Cast, pieces: int) -> Tensor:
    """Weighted sum of the cross entropies of tokens that are to be written.

    Args:
        head: From states to logits.
        table: [V, H], the decoder's embeddings.
        states: [n, H], each of the position before the token.
        labels: int64 [n]: the tokens.
        weights: [n], in the dtype of the states.
        cast: Within it arithmetic is of the precision asked for.
        pieces: V, which the table's shape does not tell where workers hold parts of it.

    Returns:
        Scalar, float32 (float64 for float64 states).
    """

    def loss(states: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        with cast(states.device):
            logits = head(states, table)
        return (F.cross_entropy(logits.to(states.dtype), labels, reduction="none") * weights).sum()

    rows = max(1, MOST_LOGITS // pieces)
    parts = zip(states.split(rows), labels.split(rows), weights.split(rows), strict=True)
    losses = [checkpoint(loss, *part, use_reentrant=False) if torch.is_grad_enabled() else loss(*part) for part in parts]
    return torch.stack(losses).sum()


def set_apart(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and rows to measure on: of other groups, and no text of them among the texts of the ones. int64, rising.

    Groups are numbered by the hash of their name, so the first of them are drawn, and are the same for any order of files; large ones, such
    as classes, are all learned from.
    """
    wanted = min(MOST_APART, int(APART * len(examples)))
    sizes = np.bincount(examples.group)
    small = np.flatnonzero(sizes <= wanted)
    chosen = small[: int(np.searchsorted(np.cumsum(sizes[small]), wanted)) + 1]
    inside = np.isin(examples.group, chosen)
    query, positive = examples.raw[examples.query], examples.raw[examples.positive]
    known = np.concatenate([query[~inside], positive[~inside]])
    apart = np.flatnonzero(inside & ~np.isin(query, known) & ~np.isin(positive, known))
    return np.flatnonzero(~inside), apart[:MOST_APART]


def mean_loss(rows: Sequence[Row], tokens: Sequence[int], loss: Callable[[Sequence[Row]], Tensor]) -> float:
    """Mean loss of a token.

    Args:
        rows: What is measured on.
        tokens: Of each row, those that are predicted.
        loss: The mean over the tokens of some rows, a scalar.
    """
    total = 0.0
    for first in range(0, len(rows), MEASURED):
        part = slice(first, first + MEASURED)
        total += float(loss(rows[part])) * sum(tokens[part])
    return total / sum(tokens)


def answer_of(ids: np.ndarray, tokenizer: PreTrainedTokenizerFast, limit: int) -> np.ndarray:
    """A text as a decoder writes it: without what its tokenizer puts in front, and with its end token unless it was cut.

    Args:
        ids: int [n]: the text by the tokenizer.
        tokenizer: Whatever it puts around a text.
        limit: Tokens that it was cut to.

    Returns:
        int64, at least one token.
    """
    found = ids[1:] if len(ids) and ids[0] == tokenizer.bos_token_id else ids
    found = found[:-1] if len(found) and found[-1] == tokenizer.eos_token_id else found
    end = [] if len(ids) >= limit and len(found) else [tokenizer.eos_token_id]
    return np.concatenate([found, end]).astype(np.int64)


def question_of(ids: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """A text as a decoder goes on from it: without an end token that its tokenizer puts behind it. int64."""
    return (ids[:-1] if len(ids) and ids[-1] == tokenizer.eos_token_id else ids).astype(np.int64)
