"""What the manifest of examples says."""

from typing import Any

from raysberta.work import Facts


class PoolFacts(Facts):
    """The candidates of one source and kind."""

    texts: int
    window: tuple[int, int]
    """First rank and the one after the last; (0, 0) where nothing is mined."""
    search: dict[str, Any] | None
    """Method and, where it is approximate, the recall that was measured."""


class Histogram(Facts):
    """Counts between edges."""

    edges: list[float]
    counts: list[int]


class FalseNegatives(Facts):
    """The share of mined negatives that a cross-encoder scores at least as high as the positive."""

    share: float
    negatives: int
    examples: int


class StorageFacts(Facts):
    """What was asked of storage; on a local disk each file once by each process."""

    requests: int
    bytes_read: int
    bytes_written: int


class ExamplesFacts(Facts):
    """Of a node of kind `examples`."""

    examples: dict[str, int]
    """By `source/kind`."""
    pools: dict[str, PoolFacts]
    negatives: int
    examples_with_fewer_negatives: int
    topped_up: int
    promoted: int
    """Examples whose positive was a candidate until the cross-encoder judged it."""
    suspects: int
    """Positives that their own query does not rank within the window."""
    negatives_above_the_positive: int
    looked_at: int
    skipped: dict[str, int]
    """Candidates that may not be negatives, by reason."""
    histograms: dict[str, Histogram]
    embedded: int
    reused: int
    """Vectors that were there already."""
    bad_vectors: int
    false_negatives: FalseNegatives | None
    teacher: str
    """The model whose scores the examples hold, by the name that the recipe gives it; "" where none."""
    prefixes: dict[str, str]
    """What the mining encoder reads before a text (the fields of Prefixes), as stands before each key of the table `vectors`; {} where
    nothing was mined."""
    encoder: str
    """Id of the mining encoder's artifact: vectors of two encoders cannot be compared. "" where nothing was mined."""
    storage: StorageFacts
