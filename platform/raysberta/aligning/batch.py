"""A step of alignment as a worker sees it: texts for the encoder in chunks, and beside each chunk what the decoder is to write."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysberta.training.chunks import Budget, Chunks, make_chunks, most_chunks, most_predicted, plan_chunks, share


@dataclass(frozen=True)
class Lines:
    """What is written after the texts of a chunk; W is one less than the tokens of the longest."""

    read: Tensor
    """int64 [texts, W]: the tokens before the last one, as the decoder reads them: those that it is not to see are a placeholder."""
    there: Tensor
    """int64 [texts, W]: 1 for tokens, 0 for padding on the right."""
    seen: Tensor
    """int64 [texts, W]: 1 for tokens that later ones see."""
    places: Tensor
    """int64 [tokens]: in the flat [texts * (W + 1)], the states that tokens are written from."""

    def to(self, device: torch.device) -> "Lines":
        """The same on a device."""
        return Lines(*(part.to(device, non_blocking=True) for part in (self.read, self.there, self.seen, self.places)))


@dataclass(frozen=True)
class AlignBatch:
    """A worker's part of a step."""

    chunks: Chunks
    """What the encoder reads."""
    lines: list[Lines]
    """Of each chunk."""
    labels: Tensor
    """int64 [tokens]: what is to be written, chunk after chunk."""
    weights: Tensor
    """float32 [tokens]: workers / tokens of the whole step; 0 of what counts for nothing."""

    def to(self, device: torch.device) -> "AlignBatch":
        """The same on a device."""
        lines = [each.to(device) for each in self.lines]
        return AlignBatch(self.chunks.to(device), lines, self.labels.to(device), self.weights.to(device))


@dataclass(frozen=True)
class Row:
    """A row of a step."""

    text: np.ndarray
    """int [n]: what the encoder reads."""
    written: np.ndarray
    """int64 [m]: what the decoder is to write, m at least 1."""
    hidden: np.ndarray
    """bool [m]: which of it later tokens do not see."""

    @property
    def length(self) -> int:
        """Of both together: what the decoder reads."""
        return len(self.text) + len(self.written)


def rows_of(texts: Sequence[np.ndarray], written: Sequence[np.ndarray], mask_probability: float, draw: tuple[int, ...]) -> list[Row]:
    """Rows whose hidden tokens are drawn for all of a step at once, so that they owe nothing to workers.

    Args:
        texts: What the encoder reads, int [n] each.
        written: What the decoder is to write, int64 [m] each.
        mask_probability: Of a token to be hidden.
        draw: Seeds the draws.
    """
    lengths = [len(each) for each in written]
    hidden = np.random.default_rng(draw).random(sum(lengths)) < mask_probability
    parts = np.split(hidden, np.cumsum(lengths)[:-1])
    return [Row(*each) for each in zip(texts, written, parts, strict=True)]


def make_batch(rows: Sequence[Row], placeholder: int, budget: Budget, rank: int = 0, world: int = 1, even: bool = False) -> AlignBatch:
    """A worker's part of a step.

    Args:
        rows: Of the whole step.
        placeholder: The token that the decoder reads in place of a hidden one.
        budget: Of a chunk: the encoder's and the decoder's tokens together.
        rank: The worker; it takes every `world`-th row in order of length.
        world: Workers.
        even: All workers' parts have as many chunks and tokens to write, as ZeRO 3 needs it; what is added counts for nothing.
    """
    lengths = np.asarray([row.length for row in rows])
    counts = np.asarray([len(row.written) for row in rows])
    mine = [rows[place] for place in share(lengths, rank, world)]
    planned = plan_chunks(np.asarray([row.length for row in mine]), budget)
    chunks, tokens = (most_chunks(lengths, world, budget), most_predicted(lengths, counts, world)) if even else (0, 0)
    lines = [_lines([mine[place] for place in group], placeholder) for group in planned]
    none = torch.zeros((1, 0), dtype=torch.int64)
    lines += [Lines(none, none, none, none[0])] * (chunks - len(lines))
    labels = np.concatenate([mine[place].written for group in planned for place in group])
    added = max(0, tokens - len(labels))
    if added:  # more states of the last line, which count for nothing
        last = lines[-1]
        lines[-1] = Lines(last.read, last.there, last.seen, torch.cat([last.places, torch.zeros(added, dtype=torch.int64)]))
    weights = torch.cat([torch.full((len(labels),), world / int(counts.sum())), torch.zeros(added)])
    right = torch.from_numpy(np.concatenate([labels, np.zeros(added, np.int64)]))
    return AlignBatch(make_chunks([row.text for row in mine], planned, chunks), lines, right, weights)


def _lines(rows: Sequence[Row], placeholder: int) -> Lines:
    longest = max(len(row.written) for row in rows)
    read, there, seen = (np.zeros((len(rows), longest - 1), np.int64) for _ in range(3))
    for place, row in enumerate(rows):
        before = len(row.written) - 1
        read[place, :before] = np.where(row.hidden[:-1], placeholder, row.written[:-1])
        there[place, :before] = 1
        seen[place, :before] = ~row.hidden[:-1]
    places = np.concatenate([place * longest + np.arange(len(row.written)) for place, row in enumerate(rows)])
    return Lines(*(torch.from_numpy(part) for part in (read, there, seen, places)))
