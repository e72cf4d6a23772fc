"""What happens to an encoder's vocabulary."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import EXECUTION, PLACE, DocumentsRef, EncoderRef, Language, Natural, PairsRef, Positive, Section, Share, VocabularyRef
from raysberta.prefixes import NamedPrefixes

VERSION: int = 6
"""Of the results; bumped when the same settings and inputs give another result."""


class Wechsel(Section):
    """What WECHSEL compares pieces by: static word vectors of two languages, and a dictionary that ties them together."""

    source: Language
    """Two-letter code of the language that the base knows."""
    target: Language
    """Two-letter code of the language of the new pieces."""
    dictionary: Annotated[str, EXECUTION, PLACE]
    """A file with a source and a target word a line, parted by a tab or blanks: more pairs than the vectors have dimensions."""
    source_vectors: Annotated[str | None, EXECUTION, PLACE] = None
    """A file of word vectors in word2vec's text format (fastText's .vec); learned from the training texts of the language where null."""
    target_vectors: Annotated[str | None, EXECUTION, PLACE] = None
    """The same of the target language."""


class Vocabulary(Section):
    """A phase that fits the vocabulary to the training texts: adopt, trim, learn, in this order."""

    kind: Literal["vocabulary"]
    from_: EncoderRef = Field(alias="from")
    """The model whose vocabulary it is: an entry of `models`, or another phase."""
    pairs: tuple[PairsRef, ...] = (PairsRef("natural"),)
    """The texts: both sides of the training pairs."""
    documents: DocumentsRef | None = None
    """`corpus`: training documents are texts to trim by and learn from too; null: the pairs alone."""
    prefixes: NamedPrefixes | None = None
    """Prefixes that a later phase will teach: the texts are read with them, and their pieces stay; null: the model's own alone."""
    trim: bool = False
    """Drop pieces: those that the texts never use or, with `size`, all but the most probable."""
    size: Positive | None = None
    """Trim to exactly this many pieces, before any are learned: special tokens, letters, digits and signs of the texts' scripts, then the
    most probable pieces; null: to those that the texts use."""
    smoothing: Share = 0.0
    """With `size`, how far the tokenizer's own probabilities count beside the texts: p(piece) = (1 - smoothing) * its share of the
    texts' tokens + smoothing * the tokenizer's own probability among pieces of the texts' scripts (for BPE 1 / rank of the merge, made
    to sum to 1). 0: own probabilities decide only among pieces that the texts use as often, such as all that they never use; 1: they
    alone decide."""
    learn: Natural = 0
    """Learn this many new pieces from the corpus."""
    extend_from: VocabularyRef | None = None
    """Merge the vocabulary of this model's tokenizer into the model's (the paper: RoBERTa-large into ruRoBERTa)."""
    initialisation: Literal["mean_of_pieces", "gaussian", "focus", "wechsel", "alike", "translated", "procrustes"] = "mean_of_pieces"
    """How new embedding rows start: mean of the old pieces that spell them, N(mean, std) of the old rows, mixtures of pieces that
    stand in like places of the corpus (FOCUS), mixtures of pieces that mean the like in another language: by word vectors (WECHSEL, needs
    `wechsel`), by an encoder of both languages (needs `alike_by`), or by what stands for them in `translations`
    (trans-tokenization; what `alike_by` finds counts as well, the less the more often a piece occurs); or the rows of `extend_from`, which
    must then be a whole model, turned into the base's space (orthogonal Procrustes). Pieces that the last five have nothing for start as
    the mean. The report compares those that are possible by their masked loss, which sees little of what they mean."""
    wechsel: Wechsel | None = None
    """Files and languages for `initialisation: wechsel`; where it is another, WECHSEL is compared with it."""
    alike_by: EncoderRef | None = None
    """The encoder for `initialisation: alike`, which reads both languages, and beside translations; elsewhere the two are compared."""

    translations: tuple[str, ...] = ("*/translation",)
    """For `initialisation: translated`: which pairs are translations, as `source/kind`, `*` standing for anything."""

    @model_validator(mode="after")
    def _trims_to_its_size(self) -> Self:
        if self.size is not None and not self.trim:
            raise ValueError("size: is what trimming leaves; right would be trim: true with it")
        return self

    @model_validator(mode="after")
    def _has_what_the_initialisation_reads(self) -> Self:
        if self.initialisation == "wechsel" and self.wechsel is None:
            raise ValueError("initialisation: wechsel needs wechsel: {source: .., target: .., dictionary: ..}")
        if self.initialisation == "alike" and self.alike_by is None:
            raise ValueError("initialisation: alike needs alike_by: <name of an encoder that reads the language of the new pieces>")
        if self.initialisation == "procrustes" and self.extend_from is None:
            raise ValueError("initialisation: procrustes turns the rows of another model; right would be extend_from: <name of a model>")
        return self
