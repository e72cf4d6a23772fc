"""What the manifest of a prune phase says."""

from raysberta.work import Facts


class Removal(Facts):
    """One layer dropped, and what every candidate would have cost."""

    layer: int
    """The one that was dropped, by its number in the whole model, from 0."""
    similarities: dict[int, float]
    """Of each layer that could have been dropped at this step: the mean centred cosine of the vectors without it with the whole model's."""


class PruneFacts(Facts):
    """Of a node of kind `prune`."""

    kept: list[int]
    """Layers, by their numbers in the whole model, from 0."""
    layers_before: int
    removals: list[Removal]
    """In order; empty where the recipe names the layers."""
    texts: int
    """Measured on; 0 where nothing was measured."""
    similarity: float | None
    """Mean centred cosine of the vectors with the whole model's; None where nothing was measured."""
    first_layers: float | None
    """The same of the first layers, as many as are kept."""
    parameters_before: int
    parameters_after: int

    def tried(self) -> list[int]:
        """The layers that could have been dropped at some step, rising."""
        return sorted({layer for removal in self.removals for layer in removal.similarities})
