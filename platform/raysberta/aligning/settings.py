"""Alignment: an encoder and a connector learn to speak to a decoder that stays as it is."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import ExamplesRef, GeneratorRef, Positive, Section, Share
from raysberta.training.settings import Prepared, Training

VERSION: int = 1
"""Of the results; bumped when the same settings and inputs give another result."""


class Align(Training):
    """The first stage of LUSIFER (arXiv 2501.00874): the decoder of a model of parts, frozen, with its language-model head, writes texts
    from the states that it is given, and what gives them learns from its loss: the encoder, whole or by adapters, and the connector.

    A positive is reconstructed from its own states, or written after its query (completion). Of the tokens that come before the one to be
    written the decoder does not see half. It never sees a later one, while the states that it is given see one another as they do when
    vectors are made. (The authors' code lets all see all, so that a quarter of what is to be written can be copied.)
    """

    kind: Literal["align"]
    decoder: GeneratorRef
    """The generator whose decoder the model was composed of: its tokenizer and its language-model head are read."""
    examples: tuple[ExamplesRef, ...] = Field(min_length=1)
    """What it learns from: queries and positives of entries of `examples`. A few are set apart, to measure on."""
    reconstruction: Share = 0.5
    """Share of the rows whose positive is reconstructed; of the others it is written after the query."""
    mask_probability: Annotated[float, Field(ge=0.0, lt=1.0, strict=True)] = 0.5
    """Share of the tokens written so far that the decoder does not see: what stood there it has to be told by the states."""
    batch_size: Positive = 256
    """Rows a step, over all workers."""
    max_tokens: Positive = 512
    """Longer texts are cut, by the encoder's tokens."""
    written_tokens: Positive = 512
    """Longer texts are not written to their end, by the decoder's tokens."""

    @model_validator(mode="after")
    def _there_are_no_trials(self) -> Self:
        if self.search is not None:
            raise ValueError("search: there are no trials of an alignment; right would be null")
        return self


class AlignPhase(Section):
    """A node of kind `align`."""

    phase: Align
    given: Prepared = Prepared()
