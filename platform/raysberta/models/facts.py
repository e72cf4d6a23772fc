"""What the manifest of a fetched model says."""

from raysberta.work import Facts


class ModelFacts(Facts):
    """Of a node of kind `model`."""

    origin: str
    """As the recipe names it, credentials left out."""
    files: dict[str, str]
    """SHA-256 of every file of the folder, by name."""
    parameters: int | None
    """Of an encoder; None for what is stored as it comes."""
