"""Greedy backward removal of layers: at each step the layer goes whose absence leaves the vectors most like the whole model's.

Likeness is the mean cosine of vectors less their mean: unrelated texts of an encoder may lie at a cosine far above 0 (0.79 of
256 texts in multilingual-E5-small), and what all vectors share says nothing. Each vector is compared with the whole model's of the same
text, not with that of the step before, so that errors do not add up unseen.

A model of m layers has m candidates at a step. All share the states before the layer they leave out, so the states that go into each
layer are kept for a batch, and a candidate runs the layers behind it alone: m + (m - 1) / 2 * m calls of a layer instead of m * (m - 1).
Memory holds the states of one batch, (m + 1) * max(BATCH_TOKENS, longest text) * width numbers, and of every text a vector a candidate.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.pool import pool
from raysberta.models.settings import Pooling
from raysberta.pruning.facts import Removal
from raysberta.pruning.layers import fits, layers_of

BATCH_TOKENS = 4096
"""Greatest tokens of a batch, padding included, where no single text is longer."""
TOLERANCE = 1e-4
"""Greatest difference of a coordinate of normalised float32 vectors between two ways to compute them."""


@dataclass(frozen=True)
class Batch:
    """Texts side by side: ids and mask, int64 [B, T], padding on the right."""

    tokens: Tensor
    mask: Tensor


@dataclass
class _Run:
    """How the layers behave during one forward."""

    kept: Sequence[int]
    """Those that are computed; others hand on what they are given."""
    at: int | None = None
    """A layer that hands on `state` instead."""
    state: Tensor | None = None
    inputs: dict[int, Tensor] = field(default_factory=dict)
    """What went into each layer that was computed."""


class Stack:
    """An encoder whose layers can be left out. From then on the model answers by it alone."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling) -> None:
        """Take over the layers of a model.

        Args:
            model: In eval mode.
            pooling: From its states to a vector.

        Raises:
            InputError: the layers are not found.
        """
        self.model, self.pooling = model, pooling
        self.layers = layers_of(model)[1]
        self.all = range(len(self.layers))
        self.tuples = False  # whether a layer returns its states within a tuple: known once one has run
        self._run = _Run(self.all)
        for number, layer in enumerate(self.layers):
            layer.forward = partial(self._layer, number, layer.forward)

    @torch.inference_mode()
    def vectors(self, batch: Batch, kept: Sequence[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """L2-normalised vectors [B, H] by the kept layers, and the states [B, T, H] that went into each of them."""
        run = _Run(kept)
        return self._forward(batch, run), run.inputs

    @torch.inference_mode()
    def vectors_from(self, batch: Batch, kept: Sequence[int], without: int, state: Tensor) -> Tensor:
        """The same without one of them, by the states that went into it: only the layers behind it are computed."""
        return self._forward(batch, _Run([layer for layer in kept if layer > without], without, state))

    def _forward(self, batch: Batch, run: _Run) -> Tensor:
        self._run = run
        hidden = self.model(input_ids=batch.tokens, attention_mask=batch.mask).last_hidden_state
        return F.normalize(pool(hidden, batch.mask, self.pooling), dim=-1)

    def _layer(self, number: int, forward: Callable[..., Any], states: Tensor, *others: Any, **more: Any) -> Any:
        """What a layer's forward became: the model calls it with whatever it calls its layers with."""
        run = self._run
        if number in run.kept:
            run.inputs[number] = states
            given = forward(states, *others, **more)
            self.tuples = isinstance(given, tuple)
            return given
        states = run.state if number == run.at and run.state is not None else states
        return (states, None) if self.tuples else states


def batches(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_tokens: int, device: str = "cpu") -> list[Batch]:
    """Texts by length, then content, in batches of up to BATCH_TOKENS; their order is that of all vectors that are compared."""
    ids = tokenizer(list(texts), truncation=True, max_length=max_tokens, return_attention_mask=False, return_token_type_ids=False)
    rows: list[list[list[int]]] = [[]]
    for row in sorted(ids["input_ids"], key=lambda row: (len(row), row)):
        if rows[-1] and len(row) * (len(rows[-1]) + 1) > BATCH_TOKENS:
            rows.append([])
        rows[-1].append(row)
    return [_padded(each, tokenizer.pad_token_id or 0, device) for each in rows]


def removals(stack: Stack, given: Sequence[Batch], keep: int) -> Iterator[Removal]:
    """Drop layers one by one until `keep` are left; of equally good ones the first.

    Raises:
        InputError: the model's layers cannot be run apart from one another, or no layer can be dropped.
    """
    check_apart(stack, given[0])
    whole, kept = vectors(stack, given, stack.all), list(stack.all)
    while len(kept) > keep:
        removal = _removal(stack, given, kept, whole)
        kept.remove(removal.layer)
        yield removal


def vectors(stack: Stack, given: Sequence[Batch], kept: Sequence[int]) -> Tensor:
    """L2-normalised vectors [texts, H] of all batches by the kept layers."""
    return torch.cat([stack.vectors(batch, kept)[0] for batch in given])


def similarity(found: Tensor, whole: Tensor) -> float:
    """The mean over texts of the cosine of two models' vectors [texts, H], the mean vector of each model subtracted; in float64."""
    centred = [each.double() - each.double().mean(0) for each in (found, whole)]
    return float(F.cosine_similarity(centred[0], centred[1]).mean())


def check_apart(stack: Stack, batch: Batch) -> None:
    """See that the layers behind any one give the model's vectors when its states are put there.

    Raises:
        InputError: they do not: something beside the states goes from layer to layer.
    """
    few = Batch(batch.tokens[:4], batch.mask[:4])
    expected, inputs = stack.vectors(few, stack.all)
    for layer in stack.all[1:]:
        found = stack.vectors_from(few, stack.all, layer - 1, inputs[layer])
        if not torch.allclose(found, expected, atol=TOLERANCE):
            kind = stack.model.config.model_type
            raise InputError(f"from: the layers of a model of type {kind} do not run apart; right would be bert, xlm-roberta or modernbert")


def _removal(stack: Stack, given: Sequence[Batch], kept: Sequence[int], whole: Tensor) -> Removal:
    """One step: every candidate's similarity, and the layer that goes."""
    candidates = [layer for layer in kept if fits(stack.layers, [other for other in kept if other != layer])]
    if not candidates:
        raise InputError(f"keep: none of the layers {list(kept)} can take another's place; right would be keep: {len(kept)}")
    found: dict[int, list[Tensor]] = {layer: [] for layer in candidates}
    for batch in given:
        _, inputs = stack.vectors(batch, kept)
        for layer in candidates:
            found[layer].append(stack.vectors_from(batch, kept, layer, inputs[layer]))
    similarities = {layer: similarity(torch.cat(parts), whole) for layer, parts in found.items()}
    return Removal(layer=max(similarities, key=similarities.__getitem__), similarities=similarities)


def _padded(rows: Sequence[Sequence[int]], padding: int, device: str) -> Batch:
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return Batch(tokens, mask)
