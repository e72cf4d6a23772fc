"""What the manifest of written pairs says."""

from raysberta.work import Facts


class WrittenFacts(Facts):
    """Of a node of kind `written`."""

    engine: str
    """What wrote, with its version."""
    requested: int
    written: int
    kept: int
    dropped: dict[str, int]
    """By reason."""
    kinds: dict[str, dict[str, int]]
    """kept and dropped, by kind of pair."""
