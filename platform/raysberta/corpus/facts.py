"""What the manifest of the documents says."""

from raysberta.work import Facts


class SourceCounts(Facts):
    """Documents of one source."""

    read: int
    kept: int
    dropped: dict[str, int]
    """By reason."""
    bytes_in: int
    """UTF-8 bytes of what was read."""
    bytes_out: int
    """Of what was kept."""
    splits: dict[str, int]
    """Kept documents by split."""
    languages: dict[str, int]
    """Kept documents by language."""
    masked: dict[str, int]
    """Personal data that was replaced, by kind."""


class CorpusFacts(Facts):
    """Of the node `corpus`."""

    sources: dict[str, SourceCounts]
