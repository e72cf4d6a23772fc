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


class Repeats(Facts):
    """Training rows that share words with what models are scored on."""

    texts: int = 0
    """With a held-out document, or a query or scored text of an evaluation set: they are dropped."""
    passages: int = 0
    """With nothing but passages that a benchmark searches: they are dropped where `decontaminate_passages` says so."""
    passages_dropped: bool = False


class CorpusFacts(Facts):
    """Of the node `corpus`."""

    sources: dict[str, SourceCounts]
    repeats: Repeats = Repeats()
