"""Which rows make which batch: pure planning, a function of the seed and the step alone.

A device batch comes from one source. A step is `device_batches` of them whatever the number of workers, who share its texts. Within
an epoch each source's batches are spread evenly, in proportion to rows times weight (stratified mini-batches, proportional sampling:
ru-en-RoSBERTa, arXiv 2408.12503), so any stretch of steps holds the mixture. An epoch is planned once, when its first step is asked for,
and all epochs have as many batches as the first: a step is found by its number, and resuming plans no epoch but its own and the first.

Memory: 16 bytes a row, and while a source is planned 40 of each of its rows.
"""

import logging
from array import array
from collections.abc import Mapping
from typing import Literal

import numpy as np

from raysberta.errors import InputError
from raysberta.storage.on_disk import joined, spans
from raysberta.training.arrays import ranked
from raysberta.training.examples import Examples

log = logging.getLogger(__name__)

Sampling = Literal["stratified", "step_source", "mixed"]
AT_ONCE = 1 << 16
"""Rows that are dealt to batches at once."""


class ContrastivePlan:
    """The batches of contrastive training."""

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        device_batches: int,
        weights: Mapping[str, float],
        seed: int,
        sampling: Sampling = "stratified",
        size_exponent: float = 1.0,
    ) -> None:
        """Check the sources.

        A source with fewer rows than a batch, or too few distinct texts to fill one, gives one smaller batch an epoch, and a
        warning says so: a handful of synthetic pairs should not end a run. One without two rows that differ gives none.

        Args:
            examples: What to plan.
            batch_size: Queries of a device batch.
            device_batches: Device batches of a step.
            weights: Factor on the number of batches of a `source/kind`; 1 where absent, 0 leaves it out.
            seed: Of all shuffling.
            sampling: `stratified`: device batches of one source each, of several sources a step. `step_source`: all device batches of
                a step of the same source. `mixed`: rows of any source in any batch.
            size_exponent: Batches of a source grow with its rows to this power.

        Raises:
            InputError: a weight names no source, or nothing is left to train on.
        """
        for name in weights:
            if name not in examples.sources:
                raise InputError(f"source_weights: no examples of {name!r}; there are {', '.join(examples.sources)}")
        self.examples = examples
        self.batch_size = batch_size
        self.device_batches = device_batches
        self.seed = seed
        self.unit = device_batches if sampling == "step_source" else 1
        self.rows = [np.flatnonzero(examples.source == number) for number in range(len(examples.sources))]
        most = max(map(len, self.rows))
        factors = [(len(rows) / most) ** (size_exponent - 1) for rows in self.rows]
        self.weights = [factor * weights.get(name, 1.0) for factor, name in zip(factors, examples.sources, strict=True)]
        names = examples.sources
        if sampling == "mixed":
            names, self.rows, self.weights = ("all sources",), [np.arange(len(examples))], [1.0]
        self._wanted: dict[int, int] = {}
        self._planned = 0, self._plan(0)
        self.batches = len(self._planned[1])
        """Device batches of every epoch."""
        if not self.batches:
            raise InputError("no source has two rows that differ, or rows for one step; right would be more pairs, or other source_weights")
        for name, weight, rows in zip(names, self.weights, self.rows, strict=True):
            if weight and self.unit > 1 and len(rows) < batch_size * self.unit:
                log.warning("%s has %d rows, fewer than a step of one source: it is left out", name, len(rows))
            elif weight and len(rows) < batch_size:
                log.warning("%s has %d rows, fewer than a batch of %d: it gives smaller batches", name, len(rows), batch_size)

    def epoch(self, number: int) -> list[np.ndarray]:
        """The device batches of an epoch in order, each an int64 array of rows. That of the last epoch asked for is kept."""
        if self._planned[0] != number:
            self._planned = number, self._plan(number)
        return self._planned[1]

    def steps(self, epochs: float) -> int:
        """Steps that make so many epochs; at least one."""
        whole = int(epochs)
        return max(1, (self.batches * whole + int(self.batches * (epochs - whole))) // self.device_batches)

    def step(self, number: int) -> list[np.ndarray]:
        """The device batches of a step."""
        first = number * self.device_batches
        places = (divmod(index, self.batches) for index in range(first, first + self.device_batches))
        return [self.epoch(epoch)[place] for epoch, place in places]

    def _plan(self, epoch: int) -> list[np.ndarray]:
        placed: list[tuple[float, list[np.ndarray]]] = []
        for source, weight in enumerate(self.weights):
            batches = self._source(source, weight, epoch)
            units = [batches[start : start + self.unit] for start in range(0, len(batches) - self.unit + 1, self.unit)]
            jitter = np.random.default_rng((self.seed, epoch, source, 1)).random(len(units))
            placed += [((number + jitter[number]) / len(units), unit) for number, unit in enumerate(units)]
        return [batch for _, unit in sorted(placed, key=lambda item: item[0]) for batch in unit]

    def _source(self, source: int, weight: float, epoch: int) -> list[np.ndarray]:
        """A source's batches of an epoch: passes over its rows, until they are as many as in the first, of `weight` passes."""
        if weight == 0:
            return []
        found: list[np.ndarray] = []
        passes = 0
        while len(found) < self._wanted.get(source, 1):
            once = self._pass(source, epoch, passes) or self._pass(source, 0, 0)  # of very few rows some orders make no batch of two
            if not once:
                return []
            self._wanted.setdefault(source, max(1, round(len(once) * weight)))
            found += once
            passes += 1
        return found[: self._wanted[source]]

    def _pass(self, source: int, epoch: int, number: int) -> list[np.ndarray]:
        examples = self.examples
        order = np.random.default_rng((self.seed, epoch, source, 0, number)).permutation(self.rows[source])
        return fill(order, examples.raw[examples.query[order]], examples.raw[examples.positive[order]], self.batch_size)


def fill(rows: np.ndarray, queries: np.ndarray, positives: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut rows into batches of `size` in which no text occurs twice; a row that would repeat one goes into a later batch.

    Args:
        rows: int64 [n], in the order to take them.
        queries: [n] the text of each row's query.
        positives: [n] the text of each row's positive.
        size: Rows of a batch.

    Returns:
        The full batches; where there is none, the fullest one if it has two rows. Rows left over wait for another epoch.
    """
    sizes: list[int] = []
    placed = np.empty(len(rows), np.int32)
    texts, _, number = ranked(joined((queries, positives), np.int32))
    free, first_open = array("i", bytes(4 * len(texts))), 0
    for some in spans(len(rows), AT_ONCE):
        places = []
        for query, positive in zip(number[: len(rows)][some].tolist(), number[len(rows) :][some].tolist(), strict=True):
            place = max(first_open, free[query], free[positive])
            while place < len(sizes) and sizes[place] == size:
                place += 1
            while place >= len(sizes):
                sizes.append(0)
            places.append(place)
            sizes[place] += 1
            free[query] = free[positive] = place + 1
            while first_open < len(sizes) and sizes[first_open] == size:
                first_open += 1
        placed[some] = places
    batches = np.split(rows[np.argsort(placed, kind="stable")].astype(np.int64), np.cumsum(sizes)[:-1])
    full = [batch for batch in batches if len(batch) == size]
    if full or not len(rows):
        return full
    fullest = max(batches, key=len)
    return [fullest] if len(fullest) > 1 else []


class TextPlan:
    """The batches of training on single texts, masked or embedded: every text once an epoch.

    An epoch's order is drawn once, and kept: 8 bytes a text.
    """

    def __init__(self, texts: int, batch_size: int, seed: int) -> None:
        self.texts = texts
        self.batch_size = min(batch_size, texts)
        self.seed = seed
        self._drawn = -1, np.zeros(0, np.int64)

    def steps(self, epochs: float) -> int:
        """Steps that make so many epochs; at least one."""
        return max(1, int(epochs * (self.texts // self.batch_size)))

    def step(self, number: int) -> np.ndarray:
        """The texts of a step, int64, over all workers."""
        epoch, place = divmod(number, self.texts // self.batch_size)
        if self._drawn[0] != epoch:
            self._drawn = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.texts)
        return self._drawn[1][place * self.batch_size : (place + 1) * self.batch_size]
