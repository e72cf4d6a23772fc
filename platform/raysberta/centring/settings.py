"""How much of their mean is taken away from vectors, and what it is the mean of."""

from typing import Literal

from pydantic import Field

from raysberta.graph import EncoderRef, PairsRef, Positive, SampleSize, Section, Share

VERSION: int = 1
"""Of the results; bumped when the same settings and inputs give another result."""


class Centre(Section):
    """A phase that takes a share of the mean vector away from each vector (all but the top, arXiv 1702.01417), in a layer after the
    pooling. Nothing is trained. Before it unrelated texts of multilingual-e5-small lie at a mean cosine of 0.8."""

    kind: Literal["centre"]
    from_: EncoderRef = Field(alias="from")
    """The model whose vectors they are: an entry of `models`, or another phase."""
    share: Share = 0.8
    """Of the mean that is taken away. All of it loses in retrieval what less of it leaves (docs/decisions.md)."""
    pairs: tuple[PairsRef, ...] = Field(default=(PairsRef("natural"),), min_length=1)
    """What the mean is of: texts of the training pairs, each as the model reads it."""
    texts: SampleSize = 1024
    """How many of them, of all languages equally many."""
    max_tokens: Positive = 128
    """Longer texts are cut for the mean; the model's own length stays as it is."""
