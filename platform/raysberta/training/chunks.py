"""All texts of a step as few, even chunks: sorted by length, each chunk within a token budget, token ids made step-local.

Sorting all texts of a step together (queries, positives, negatives) leaves little padding, and where chunks end is chosen so that
padding and number of chunks together cost least. The tokens of a step use a small part of the vocabulary: chunks hold indices into
that part, so the embedding table is read, and its dense gradient written, once a step and not once a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Budget:
    """How a step is cut into chunks."""

    tokens: int
    """Of a chunk at most, padding included; a longer text goes alone."""
    chunk: int
    """So many tokens of padding are computed in the time that one more chunk costs."""


def budget_of(tokens: int, device: torch.device) -> Budget:
    """On a CPU a chunk costs as much as some 100 tokens (docs/performance.md); on a GPU padding is not computed, so few chunks are best."""
    return Budget(tokens, 100 if device.type == "cpu" else tokens)


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
    prompts: torch.Tensor
    """int64 [texts]: how many of a text's first tokens are of what goes before it."""

    def to(self, device: torch.device) -> "Chunk":
        """The same on a device."""
        parts = (self.tokens, self.mask, self.places, self.starts, self.prompts)
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


def plan_chunks(lengths: np.ndarray, budget: Budget) -> list[np.ndarray]:
    """Which texts go together: rows in falling length, cut where tokens with padding plus `budget.chunk` a chunk come to the least.

    The longest come first, so a step that does not fit in memory fails at once. A text longer than the budget goes alone. Of all cuts
    where the length changes, where texts of one length fill a chunk, and where filling each chunk would end it, these are the best.
    """
    order = np.argsort(-lengths, kind="stable")
    falling = lengths[order]
    full = np.maximum(1, budget.tokens // np.maximum(1, falling))
    begins = np.flatnonzero(np.diff(falling, prepend=-1))
    runs = map(np.arange, begins, np.append(begins[1:], len(falling)), full[begins])
    filled = [0]
    while filled[-1] < len(falling):
        filled.append(min(filled[-1] + int(full[filled[-1]]), len(falling)))
    cuts = np.unique(np.concatenate([*runs, filled]))
    widths, first = falling[cuts[:-1]], 0
    least, before = np.zeros(len(cuts), np.int64), np.zeros(len(cuts), np.int64)
    for end in range(1, len(cuts)):
        while first < end - 1 and widths[first] * (cuts[end] - cuts[first]) > budget.tokens:
            first += 1
        cost = least[first:end] + widths[first:end] * (cuts[end] - cuts[first:end]) + budget.chunk
        before[end] = first + cost.argmin()
        least[end] = cost.min()
    chunks, end = [], len(cuts) - 1
    while end:
        chunks.append(order[cuts[before[end]] : cuts[end]])
        end = before[end]
    return chunks[::-1]


def share(lengths: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Which of a step's texts a worker encodes: every `world`-th in order of falling length, so that all have equally much to do.

    What two workers have differs by less than the longest text; the order of the result is that of the lengths.
    """
    return np.argsort(-lengths, kind="stable")[rank::world]


def gathered_rows(lengths: np.ndarray, world: int) -> np.ndarray:
    """Where the workers' shares have each text when they stand one after the other, each filled up to the longest. int64 [texts]."""
    order, places = np.argsort(-lengths, kind="stable"), np.arange(len(lengths))
    rows = np.empty(len(lengths), np.int64)
    rows[order] = places % world * -(-len(lengths) // world) + places // world
    return rows


def most_chunks(lengths: np.ndarray, world: int, budget: Budget) -> int:
    """How many chunks a step's texts make for the worker that has most."""
    return max(len(plan_chunks(lengths[share(lengths, rank, world)], budget)) for rank in range(world))


def most_predicted(lengths: np.ndarray, counts: np.ndarray, world: int) -> int:
    """How many tokens are predicted by the worker that predicts most.

    Args:
        lengths: Of a step's texts.
        counts: Of each, the tokens that are predicted.
        world: Workers.
    """
    return max(int(counts[share(lengths, rank, world)].sum()) for rank in range(world))


def make_chunks(texts: Sequence[np.ndarray], planned: Sequence[np.ndarray], at_least: int = 0, prompts: np.ndarray | None = None) -> Chunks:
    """Chunks of token sequences (int arrays) as `plan_chunks` planned them, to be read back in the order given.

    Where they are fewer than `at_least`, single tokens that are not read back make up the rest: under ZeRO 3 a layer's weights come
    together whenever all workers call it, so all must call it as often. `prompts`, int [texts], says how many first tokens of each are of
    what goes before it; none where None.
    """
    before = np.zeros(len(texts), np.int64) if prompts is None else prompts.astype(np.int64)
    lengths = np.asarray([len(text) for text in texts], np.int64)
    vocabulary, inverse = np.unique(np.concatenate(texts), return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    chunks = []
    for rows in planned:
        width = int(lengths[rows].max())
        tokens, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
        for place, row in enumerate(rows):
            tokens[place, : lengths[row]] = inverse[starts[row] : starts[row + 1]]
            mask[place, : lengths[row]] = 1
        begins = np.concatenate([[0], np.cumsum(lengths[rows])]).astype(np.int32)
        chunks.append(Chunk(*map(torch.from_numpy, (tokens, mask, np.flatnonzero(mask), begins, before[rows]))))
    one = torch.ones((1, 1), dtype=torch.int64)
    filler = Chunk(one - 1, one, torch.zeros(1, dtype=torch.int64), torch.arange(2, dtype=torch.int32), torch.zeros(1, dtype=torch.int64))
    chunks += [filler] * (at_least - len(chunks))
    order = np.empty(len(texts), np.int64)
    order[np.concatenate(planned)] = np.arange(len(texts))
    padded = sum(chunk.tokens.numel() for chunk in chunks)
    return Chunks(torch.from_numpy(vocabulary.astype(np.int64)), chunks, torch.from_numpy(order), int(lengths.sum()), padded)
