"""How pairs are made of documents and data sets, and which of them stay."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from raysberta.data_sets.settings import DatasetSource
from raysberta.graph import EXECUTION, PLACE, DocumentsRef, EncoderRef, Natural, Positive, Section, VocabularyRef
from raysberta.schema import Task

VERSION: int = 4
"""Of the results; bumped when the same settings and inputs give another result."""


class Alike(Section):
    """Pairs whose sides an encoder finds unlike go: translations that are none."""

    by: EncoderRef
    """The encoder. It reads both sides as queries of paraphrases, with its own prefix for these."""
    least: dict[str, Annotated[float, Field(strict=True, ge=-1.0, le=1.0)]] = Field(min_length=1)
    """Least cosine of both sides, keyed `source/kind`; pairs of others are not looked at."""
    max_tokens: Positive = 128
    """Longer texts are cut for it."""


class Pairs(Section):
    """Documents and data sets to pairs."""

    per_source: Positive | None = None
    """Keep at most this many training pairs of each source and kind, by hash of their id; all where null."""
    limits: dict[str, Natural] = Field(default={})
    """The same for single ones, keyed `source/kind`."""
    min_characters: Positive = 3
    """Least length of either side."""
    max_characters: Positive = 2000
    """Longer positives are cut at a sentence end before this."""
    max_tokens: Positive | None = None
    """Drop pairs with a side of more tokens of `tokenizer` (the paper: 500); never where null."""
    tokenizer: VocabularyRef | None = None
    """A model of the recipe whose tokenizer counts them."""
    alike: Alike | None = None
    """Drop pairs of some sources whose sides are unlike."""

    @model_validator(mode="after")
    def _counted_by_something(self) -> Self:
        if self.max_tokens is not None and self.tokenizer is None:
            raise ValueError("max_tokens: no tokenizer counts them; right would be tokenizer: <name of a model>")
        return self


class NaturalPairs(Section):
    """The node `natural`: documents and data sets to pairs."""

    documents: DocumentsRef
    """The documents."""
    kinds: dict[str, dict[str, Task]]
    """By source of documents: which kinds of pairs to make, each with its task."""
    data_sets: dict[str, DatasetSource]
    """By name."""
    rules: Pairs
    """Which stay."""
    evaluation_sets: Annotated[tuple[str, ...], EXECUTION, PLACE] = ()
    """Files of evaluation sets that no pair of a data set may repeat; identity has their names, sizes and dates instead."""
    decontaminate_ngram: Natural = 13
    """Words in a row that count as a repeat; 0 turns it off."""
    decontaminate_passages: bool = False
    """Whether passages that a benchmark searches count too."""

    @property
    def names(self) -> list[str]:
        """Every `source/kind` that there may be, sorted."""
        own = [f"{name}/{kind}" for name, kinds in self.kinds.items() for kind in kinds]
        return sorted([*own, *(f"{name}/{source.pair_kind}" for name, source in self.data_sets.items())])
