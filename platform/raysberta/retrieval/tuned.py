"""How an index searches."""

from dataclasses import dataclass
from typing import Literal

Method = Literal["exact", "ivf", "hnsw"]


@dataclass(frozen=True)
class Tuned:
    """How an index searches, and what that was measured to find."""

    method: Method
    parameters: dict[str, int]
    """nlist and nprobe, or links, ef_construction and ef_search."""
    recall: float
    """At the k asked for, on the sample."""
    queries: int
    """Of the sample."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where it is searched."""
