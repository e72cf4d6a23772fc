"""What happens to an encoder's vocabulary."""

from typing import Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import EncoderRef, Language, Natural, PairsRef, Section, VocabularyRef
from raysberta.prefixes import NamedPrefixes

VERSION: int = 3
"""Of the results; bumped when the same settings and inputs give another result."""


class Wechsel(Section):
    """What WECHSEL compares pieces by: static word vectors of two languages, and a dictionary that ties them together."""

    source: Language
    """Two-letter code of the language that the base knows."""
    target: Language
    """Two-letter code of the language of the new pieces."""
    dictionary: str
    """A file with a source and a target word a line, parted by a tab or blanks: more pairs than the vectors have dimensions."""
    source_vectors: str | None = None
    """A file of word vectors in word2vec's text format (fastText's .vec); learned from the training texts of the language where null."""
    target_vectors: str | None = None
    """The same of the target language."""


class Vocabulary(Section):
    """A phase that fits the vocabulary to the training texts: adopt, trim, learn, in this order."""

    kind: Literal["vocabulary"]
    from_: EncoderRef = Field(alias="from")
    """The model whose vocabulary it is: an entry of `models`, or another phase."""
    pairs: tuple[PairsRef, ...] = (PairsRef("natural"),)
    """The texts: both sides of the training pairs."""
    prefixes: NamedPrefixes | None = None
    """Prefixes that a later phase will teach: the texts are read with them, and their pieces stay; null: the model's own alone."""
    trim: bool = False
    """Drop pieces that the corpus never uses."""
    learn: Natural = 0
    """Learn this many new pieces from the corpus."""
    extend_from: VocabularyRef | None = None
    """Merge the vocabulary of this model's tokenizer into the model's (the paper: RoBERTa-large into ruRoBERTa)."""
    initialisation: Literal["mean_of_pieces", "gaussian", "focus", "wechsel", "procrustes"] = "mean_of_pieces"
    """How new embedding rows start: mean of the old pieces that spell them, N(mean, std) of the old rows, mixtures of pieces that
    stand in like places of the corpus (FOCUS), mixtures of pieces that mean the like in another language (WECHSEL, needs `wechsel`), or
    the rows of `extend_from`, which must then be a whole model, turned into the base's space (orthogonal Procrustes). Pieces that
    the last three have nothing for start as the mean. The report compares those that are possible by their masked loss."""
    wechsel: Wechsel | None = None
    """Files and languages for `initialisation: wechsel`; where it is another, WECHSEL is compared with it."""

    @model_validator(mode="after")
    def _has_what_the_initialisation_reads(self) -> Self:
        if self.initialisation == "wechsel" and self.wechsel is None:
            raise ValueError("initialisation: wechsel needs wechsel: {source: .., target: .., dictionary: ..}")
        if self.initialisation == "procrustes" and self.extend_from is None:
            raise ValueError("initialisation: procrustes turns the rows of another model; right would be extend_from: <name of a model>")
        return self
