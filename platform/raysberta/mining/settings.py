"""Examples: which pairs, with which negatives, with whose scores."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import (
    CrossEncoderRef,
    EncoderRef,
    Language,
    Natural,
    NaturalNumber,
    Number,
    PairsRef,
    Positive,
    PositiveNumber,
    ScorerRef,
    Section,
)

VERSION: int = 6
"""Of the results; bumped when the same settings and inputs give another result."""


class Mining(Section):
    """Hard negatives by dense retrieval."""

    by: EncoderRef
    """The encoder that ranks: an entry of `models`, or a phase; with its own prefixes and pooling."""
    max_tokens: Positive = 128
    """Longer texts are cut."""
    ranks: tuple[Natural, Positive] = (20, 100)
    """The window: its first rank, counted from 0, and the first rank after it."""
    slicing: Literal["flag_embedding", "sentence_transformers"] = "flag_embedding"
    """What ranks count: all candidates, the positives among them (FlagEmbedding, the paper), or only those that no rule bars
    (sentence-transformers)."""
    max_share_of_positive: PositiveNumber | None = None
    """Drop candidates that score above this share of the positive's score (TopK-PercPos: 0.95), negative or not; off where null."""
    margin_to_positive: NaturalNumber | None = None
    """Drop candidates that do not score this much below the positive (TopK-MarginPos: 0.05); off where null."""
    max_score: Number | None = None
    """Drop candidates that score above this (TopK-Abs: 0.7); off where null."""
    min_score: Number | None = None
    """Drop candidates that score below this: too easy; off where null."""
    max_similarity_to_positive: PositiveNumber | None = None
    """Drop candidates whose cosine to a positive is above this: near-duplicates of it; off where null."""
    language: Literal["any", "same", "other"] = "any"
    """Of the negatives: any, that of the positive, or any but that."""
    sampling: Literal["random", "top"] = "random"
    """How to choose inside the window; random is seeded by the pair's id."""
    too_few: Literal["keep", "top_up", "drop"] = "keep"
    """A pair that gets fewer than `negatives`: kept with fewer, topped up with texts of its pool that no rule bars (drawn by the pair's id
    and counted), or dropped."""
    search: Literal["exact", "ivf", "hnsw"] = "exact"
    """How candidates are found: by looking at all passages, or by indexes of 262,144 passages each."""
    recall: Annotated[float, Field(gt=0.0, le=1.0, strict=True)] = 0.98
    """Share of the best candidates that ivf and hnsw are tuned to find; what was measured stands in the manifest."""
    keep_vectors: bool = False
    """Write the vectors of the examples' texts beside them; a contrastive phase with `guide` reads them."""
    cross_encoder: CrossEncoderRef | None = None
    """Scores pairs of query and text: a sequence classifier with one output; none where null."""
    cross_encoder_for: Literal["estimate", "limits"] = "estimate"
    """Estimate the share of false negatives on a sample, or let score limits and `sampling: top` read its scores instead of cosines."""
    cross_encoder_sample: Positive = 500
    """Examples of the estimate, chosen by hash of their id."""
    cross_encoder_tokens: Positive = 256
    """Longer pairs are cut."""
    promoted: Natural = 0
    """Relabelling (RLHN, arXiv 2505.16967): candidates that the cross-encoder scores at least as high as every positive of the query are no
    negatives of it, and so many of them, the best first, become positives, each in an example of its own. Off where 0. It looks at the
    window alone, and so at the best ones where `ranks` begins at 0."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.ranks[1] <= self.ranks[0]:
            raise ValueError(f"ranks: {self.ranks[1]} is not after {self.ranks[0]}")
        if self.cross_encoder_for == "limits" and self.cross_encoder is None:
            raise ValueError("cross_encoder_for: limits without a cross_encoder; right would be cross_encoder: <name of a model>")
        if self.promoted and self.cross_encoder_for != "limits":
            raise ValueError("promoted: nothing judges the candidates; right would be a cross_encoder and cross_encoder_for: limits")
        return self


class Examples(Section):
    """Pairs with what a loss needs: hard negatives, and scores of a teacher."""

    pairs: tuple[PairsRef, ...] = (PairsRef("natural"),)
    """Where the pairs come from: `natural`, or entries of `written`."""
    only: tuple[str, ...] = ()
    """Of which sources and kinds, as `source/kind`, `*` standing for anything; of all where empty."""
    languages: tuple[Language, ...] = ()
    """Only pairs whose query is in one of these; in any where empty."""
    negatives: Natural = 7
    """How many a pair gets at most; those that a source supplies come first and count."""
    candidates: tuple[PairsRef, ...] = ()
    """Further pairs whose passages may become negatives of retrieval pairs in their language; a pair's own source and kind always may."""
    passages: Literal["positives", "positives_and_negatives"] = "positives_and_negatives"
    """Which texts of a pair may become negatives of others: its positive, or also the negatives that it brings (FlagEmbedding)."""
    mine: Mining | None = None
    """Hard negatives by search; where null, supplied ones are filled up with texts of the same source and kind, drawn by the pair's id."""
    teacher: ScorerRef | None = None
    """Scores query with positive and with each negative, for objectives that learn from scores: an encoder by cosine with its own prefixes,
    a cross-encoder by its output. The mining encoder's cosines where null."""
    teacher_tokens: Positive = 256
    """Longer texts, or pairs of them for a cross-encoder, are cut for the teacher."""
