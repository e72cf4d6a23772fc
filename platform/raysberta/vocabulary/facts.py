"""What the manifest of a vocabulary phase says."""

from raysberta.work import Facts


class Fertility(Facts):
    """How a tokenizer cuts the texts of one language."""

    fertility: float
    """Tokens a word."""
    unknown: float
    """Share of unknown tokens."""


class HeldOut(Facts):
    """How dev texts of one language, which no piece was chosen by, are cut before and after."""

    tokens: int
    """Before, without special tokens."""
    changed: float
    """Share of them that the new tokenizer cuts otherwise: it has no token of the same characters there."""
    fertility_before: float
    """Tokens a word."""
    fertility_after: float


class Neighbours(Facts):
    """A new piece, and the old ones whose embeddings are nearest to where it starts."""

    piece: str
    nearest: list[str]


class FirstLoss(Facts):
    """The masked loss before any training, by how new rows start."""

    chosen: str
    texts: int
    head: bool
    """Whether the model brings a head for masked words."""
    losses: dict[str, float]


class VocabularyFacts(Facts):
    """Of a node of kind `vocabulary`."""

    pieces: dict[str, int]
    """before, adopted, adopted_unreachable, trimmed, learned, after."""
    parameters_before: int
    parameters_after: int
    tokens_before: dict[str, Fertility]
    """By language."""
    tokens_after: dict[str, Fertility]
    held_out: dict[str, HeldOut]
    """By language; of those without dev texts none."""
    new_pieces: list[Neighbours]
    first_loss: FirstLoss | None
