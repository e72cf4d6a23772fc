"""Which layers of an encoder are kept, and what they are chosen by."""

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import EncoderRef, Natural, PairsRef, Positive, SampleSize, Section

VERSION: int = 1
"""Of the results; bumped when the same settings and inputs give another result."""


class Prune(Section):
    """A phase that keeps some layers of an encoder, by measured effect. Nothing is trained: distilling afterwards is another phase."""

    kind: Literal["prune"]
    from_: EncoderRef = Field(alias="from")
    """The model whose layers they are: an entry of `models`, or another phase."""
    keep: Positive | None = None
    """How many layers are kept. One after the other is dropped, each time that whose absence leaves the vectors most like the whole
    model's, by the mean cosine of vectors less their mean."""
    layers: tuple[Natural, ...] = ()
    """Which layers are kept instead, counted from 0, rising."""
    pairs: tuple[PairsRef, ...] = (PairsRef("natural"),)
    """What is measured on: texts of the training pairs. With `layers` it may be empty; then nothing is measured."""
    texts: SampleSize = 512
    """How many of them, of all languages equally many."""
    max_tokens: Positive = 128
    """Longer texts are cut while measuring; the model's own length stays as it is."""

    @model_validator(mode="after")
    def _one_way_to_say_layers(self) -> Self:
        if (self.keep is None) == (not self.layers):
            raise ValueError("keep and layers: right would be one of them, keep: 6 or layers: [0, 1, 2, 9, 10, 11]")
        if any(one >= next_one for one, next_one in pairwise(self.layers)):
            raise ValueError(f"layers: {list(self.layers)} do not rise; right would be {sorted(set(self.layers))}")
        if self.keep is not None and not self.pairs:
            raise ValueError("pairs: none to measure on; right would be pairs: [natural], or layers instead of keep")
        return self
