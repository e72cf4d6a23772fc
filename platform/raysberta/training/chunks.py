"""All texts of a step as few, even chunks: sorted by length, each chunk within a token budget, token ids made step-local.

Sorting all texts of a step together (queries, positives, negatives) leaves little padding. The tokens of a step use a small
part of the vocabulary: chunks hold indices into that part, so the embedding table is read, and its dense gradient written,
once a step and not once a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Chunk:
    """Texts encoded together."""

    tokens: torch.Tensor
    """int64 [texts, width]: index into the step's vocabulary; padding on the right."""
    mask: torch.Tensor
    """int64 [texts, width]: 1 for tokens, 0 for padding."""
    places: torch.Tensor
    """int64 [tokens]: where the mask is 1 in the flat [texts * width], for encoders that leave out padding."""
    starts: torch.Tensor
    """int32 [texts + 1]: where each text begins among these, and their number."""

    def to(self, device: torch.device) -> "Chunk":
        """The same on a device."""
        parts = (self.tokens, self.mask, self.places, self.starts)
        return Chunk(*(part.to(device, non_blocking=True) for part in parts))


@dataclass(frozen=True)
class Chunks:
    """All texts of a step on one worker."""

    vocabulary: torch.Tensor
    """int64 [distinct]: the token ids of the step."""
    chunks: list[Chunk]
    order: torch.Tensor
    """int64 [texts]: row of each text in the chunks laid end to end."""
    real: int
    """Tokens without padding."""
    padded: int
    """Tokens with padding."""

    def to(self, device: torch.device) -> "Chunks":
        """The same on a device."""
        chunks = [chunk.to(device) for chunk in self.chunks]
        return Chunks(self.vocabulary.to(device), chunks, self.order.to(device), self.real, self.padded)


def plan_chunks(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Which texts go together: rows in falling length, each chunk at most `budget` tokens with its padding.

    The longest come first, so a step that does not fit in memory fails at once. A text longer than the budget goes alone.
    """
    order = np.argsort(-lengths, kind="stable")
    chunks, start = [], 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        chunks.append(order[start : start + size])
        start += size
    return chunks


def share(lengths: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Which of a step's texts a worker encodes: every `world`-th in order of falling length, so that all have equally much to do.

    What two workers have differs by less than the longest text; the order of the result is that of the lengths.
    """
    return np.argsort(-lengths, kind="stable")[rank::world]


def most_chunks(lengths: np.ndarray, world: int, budget: int) -> int:
    """How many chunks a step's texts make for the worker that has most."""
    return max(len(plan_chunks(lengths[share(lengths, rank, world)], budget)) for rank in range(world))


def make_chunks(texts: Sequence[np.ndarray], budget: int, at_least: int = 0) -> Chunks:
    """Chunks of token sequences (int arrays), to be read back in the order given.

    Where they are fewer than `at_least`, single tokens that are not read back make up the rest: under ZeRO 3 a layer's weights come
    together whenever all workers call it, so all must call it as often.
    """
    lengths = np.asarray([len(text) for text in texts], np.int64)
    vocabulary, inverse = np.unique(np.concatenate(texts), return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    planned = plan_chunks(lengths, budget)
    chunks = []
    for rows in planned:
        width = int(lengths[rows].max())
        tokens, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
        for place, row in enumerate(rows):
            tokens[place, : lengths[row]] = inverse[starts[row] : starts[row + 1]]
            mask[place, : lengths[row]] = 1
        begins = np.concatenate([[0], np.cumsum(lengths[rows])]).astype(np.int32)
        chunks.append(Chunk(*map(torch.from_numpy, (tokens, mask, np.flatnonzero(mask), begins))))
    one = torch.ones((1, 1), dtype=torch.int64)
    filler = Chunk(one - 1, one, torch.zeros(1, dtype=torch.int64), torch.arange(2, dtype=torch.int32))
    chunks += [filler] * (at_least - len(chunks))
    order = np.empty(len(texts), np.int64)
    order[np.concatenate(planned)] = np.arange(len(texts))
    padded = sum(chunk.tokens.numel() for chunk in chunks)
    return Chunks(torch.from_numpy(vocabulary.astype(np.int64)), chunks, torch.from_numpy(order), int(lengths.sum()), padded)
