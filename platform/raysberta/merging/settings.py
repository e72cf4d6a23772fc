"""Merges of models."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import (
    ChoiceRef,
    EncoderRef,
    ExamplesRef,
    Natural,
    NaturalNumber,
    Positive,
    PositiveNumber,
    Section,
    Share,
)
from raysberta.tuning.settings import Search

VERSION: int = 2
"""Of the results; bumped when the same settings and inputs give another result."""

Method = Literal["slerp", "linear"]
Scope = Literal["encoder_layers", "all"]


class Greedy(Section):
    """A greedy soup (arXiv 2203.05482): models in falling order of their own dev scores, each kept where the merge of all kept, alike in
    weight, then scores no less on dev halves of the recipe's own tasks."""

    kind: Literal["greedy"]
    tasks: tuple[str, ...] = ()
    """Names of tasks whose dev halves are read; all of the recipe's own where empty. Public test tasks are refused."""
    general_weight: Share = 0.5
    """What decides is (1 - w) x the mean of the own tasks + w x that of the general ones, among the tasks read."""


class Learned(Section):
    """Self Positioning (arXiv 2410.15035): weights and `norm` by gradients of InfoNCE on a few examples; the models stay as they are.
    Memory: one more than the models' number, and two for the merge and its gradient, all in fp32."""

    kind: Literal["learned"]
    examples: ExamplesRef
    """An entry of `examples`; the loss is InfoNCE with their hard negatives and those of the batch."""
    probe: Positive = 512
    """Examples to learn from, chosen by hash of their id (the paper: 32,000)."""
    steps: Positive = 30
    """Steps of Adam."""
    learning_rate: PositiveNumber = 0.05
    """Constant rate: weights begin alike, `norm` as the phase has it."""
    norm_penalty: NaturalNumber = 0.01
    """What is minimised is the loss plus this times `norm` (the paper: best mostly below 0.05)."""
    batch_size: Positive = 64
    """Queries a step, all of one `source/kind`."""
    negatives: Natural = 7
    """Hard negatives a query at most."""
    temperature: PositiveNumber = 0.02
    """Of the softmax."""
    max_tokens: Positive = 128
    """Longer texts are cut."""


Choose = Annotated[Greedy | Learned, Field(discriminator="kind")]


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
    start: EncoderRef | None = None
    """The model that all of them were trained from. Where given, what is merged is how they differ from it, each as one long vector, and
    the merge is added to it: linear is the weighted mean of the differences, slerp goes along the arcs between them, each next model
    against the mean weight of those before it (Self Positioning)."""
    norm: NaturalNumber = 1.0
    """Factor on the merged difference from `start`."""
    choose: Choose | None = None
    """Choose the weights of all models: `kind: greedy` by dev scores, `kind: learned` by gradient, `norm` too; none where null."""
    search: Search | None = None
    """Find `weight`, `norm`, or single weights as `weights.0`, by scores on dev halves; none where null."""

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

    @model_validator(mode="after")
    def _differences_need_a_start(self) -> Self:
        if self.start is None and self.norm != 1:
            raise ValueError("norm: is of differences from a start; right would be start: <the model that all were trained from>")
        if self.start is None and isinstance(self.choose, Learned):
            raise ValueError("choose: learned moves away from a start; right would be start: <the model that all were trained from>")
        if self.start in self.of:
            raise ValueError(f"of.{self.of.index(self.start)}: is the start, which differs from itself by nothing; right would be others")
        return self

    @model_validator(mode="after")
    def _weights_are_chosen_once(self) -> Self:
        for name, given in (("weight", self.weight is not None), ("weights", bool(self.weights)), ("search", self.search is not None)):
            if self.choose is not None and given:
                raise ValueError(f"choose and {name}: both would say the weights; right would be one of them")
        return self

    @property
    def from_(self) -> EncoderRef:
        """The model that it goes on from, as other phases name theirs: the first."""
        return self.of[0]

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
