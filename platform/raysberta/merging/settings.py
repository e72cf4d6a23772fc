"""Merges of models."""

from typing import Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import ChoiceRef, EncoderRef, NaturalNumber, Section, Share
from raysberta.tuning.settings import Search

VERSION: int = 2
"""Of the results; bumped when the same settings and inputs give another result."""

Method = Literal["slerp", "linear"]
Scope = Literal["encoder_layers", "all"]


class Merge(Section):
    """A phase that merges models of one architecture, tensor by tensor. Tokenizer, pooling and prompts are those of the first."""

    kind: Literal["merge"]
    of: tuple[EncoderRef, ...] = Field(min_length=2)
    """The models: entries of `models`, or other phases."""
    method: Method = "slerp"
    """slerp: along the arc between two models, of more than two one after the other; linear: the weighted mean."""
    weight: Share | None = None
    """Of two models: the weight of the second, the first has the rest."""
    weights: tuple[NaturalNumber, ...] = ()
    """Of each model; only what they are to one another counts. All alike where neither these nor `weight` are given."""
    scope: Scope = "all"
    """Which tensors are merged: those of the encoder's layers (the rest is the first model's, so vocabularies may differ), or all."""
    search: Search | None = None
    """Find `weight`, or single weights as `weights.0`, by scores on dev halves; none where null."""

    @model_validator(mode="after")
    def _one_way_to_say_weights(self) -> Self:
        if self.weight is not None and len(self.of) != 2:
            raise ValueError(f"weight: is for two models, there are {len(self.of)}; right would be weights: one for each")
        if self.weight is not None and self.weights:
            raise ValueError("weight and weights: right would be one of them")
        if self.weights and len(self.weights) != len(self.of):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.of)} models; right would be one for each")
        if self.weights and not sum(self.weights) > 0:
            raise ValueError("weights: all are 0; right would be at least one above")
        return self

    def shares(self) -> tuple[float, ...]:
        """The weight of each model, in all 1."""
        if self.weight is not None:
            return 1 - self.weight, self.weight
        weights = self.weights or (1.0,) * len(self.of)
        return tuple(weight / sum(weights) for weight in weights)


class MergePhase(Section):
    """A node of kind `merge`."""

    phase: Merge
    choice: ChoiceRef | None = None
    """The search whose best values it takes."""
