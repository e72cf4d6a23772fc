"""What all workers of a mining run know: the parts, where their rows and passages lie, and whose vectors there are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from raysberta.mining.parts import Parts
from raysberta.mining.passages import Numbers
from raysberta.retrieval.tuned import Tuned
from raysberta.retrieval.vectors import Vectors
from raysberta.storage.location import join

Place = tuple[int, int]
"""A range of a part, by their numbers."""


class Reader(NamedTuple):
    """Who reads texts."""

    name: str
    """Of a model, among the inputs."""
    max_tokens: int
    """Longer texts are cut."""


class Chunk(NamedTuple):
    """Pairs to deal out: some row groups of a file."""

    node: str
    place: str
    groups: tuple[int, ...]


class Batch(NamedTuple):
    """Where dealt rows lie: a file, and the number of the record batch in it."""

    place: str
    number: int


@dataclass(frozen=True)
class Dealt:
    """Where the rows of each range are: of its pairs, and of its passages with all their repetitions."""

    pairs: Mapping[Place, tuple[Batch, ...]] = field(default_factory=dict)
    passages: Mapping[Place, tuple[Batch, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Grows from step to step; some hundred bytes for each range of 16,384 pairs or passages and each chunk that has rows of it.

    Ids are hashes, so every chunk has rows of every range: 5 MiB at 3.8 million pairs, 400 at ten times as many.
    """

    parts: Parts
    scratch: str = field(repr=False)
    """Folder or URI of what nobody needs once the examples are written."""
    languages: tuple[str, ...]
    """Of all pairs."""
    dealt: Dealt = field(default_factory=Dealt)
    numbers: Numbers = field(default_factory=lambda: Numbers((), 1))
    vectors: Mapping[Reader, Vectors] = field(default_factory=dict)
    """Of all passages, by the encoder that read them."""
    indexes: Mapping[int, tuple[Tuned, ...]] = field(default_factory=dict)
    """Of parts that are searched by them."""

    def passages(self, part: int, number: int) -> str:
        """Where the distinct passages of a range lie."""
        return join(self.scratch, f"passages-{part:04d}-{number:05d}.arrow")

    def index(self, part: int, number: int) -> str:
        """Where an index of a part's pool lies."""
        return join(self.scratch, f"index-{part:04d}-{number:05d}")

    def name(self, part: int, number: int) -> str:
        """Of the files that a range of pairs is written to."""
        return f"part-{part:04d}-{number:05d}.parquet"

    @property
    def ranges(self) -> list[Place]:
        """Every range of pairs."""
        return [(number, each) for number, part in enumerate(self.parts.every) for each in range(part.pair_ranges)]
