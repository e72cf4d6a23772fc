"""What is published."""

from raysberta.graph import EncoderRef, Language, NodeRef, ScoresRef, Section

VERSION: int = 9
"""Of the results; bumped when the same settings and inputs give another result."""


class Publishing(Section):
    """The model folder, card and report."""

    model_name: str = "raysberta"
    """Name in the card and the mteb metadata."""
    license: str = "mit"
    """Licence in the card."""
    description: str = ""
    """A sentence about the model for the card."""
    beside: tuple[EncoderRef, ...] = ()
    """Models that are published beside the final one, such as a smaller one taught by it: each as `model_<name>` with its own card."""


class Release(Section):
    """The node `release`: the final model with its card, and the report on all nodes of the recipe."""

    recipe: str
    """Its name."""
    languages: tuple[Language, ...]
    final: EncoderRef
    """The model that is published."""
    base: EncoderRef
    """The model that it is compared with."""
    scores: tuple[ScoresRef, ...]
    """In the order of the table."""
    nodes: tuple[NodeRef, ...]
    """Everything that the report tells of, in the order of the graph."""
    names: tuple[str, ...] = ()
    """Their names: the report tells them, so that here, unlike elsewhere, they decide what is made."""
    about: Publishing
