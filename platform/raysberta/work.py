"""What a stage is given, and what it gives back: its own settings, its inputs, where it runs, and a draft to write into.

A stage is a function from `Work` to its facts. It sees no recipe: what is not in its settings or its inputs it cannot read, so whatever
it reads is part of its fingerprint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from raysberta.graph import Positive, PositiveNumber, Section
from raysberta.storage.artifacts import Artifact, Draft

Settings = TypeVar("Settings", bound=Section, covariant=True)


class Workers(Section):
    """Where a node is made. Not identity: changing it reuses what is there."""

    workers: Positive = 1
    """Processes or actors."""
    cpus: PositiveNumber = 1.0
    """Cores of each."""
    gpus: Annotated[float, Field(ge=0.0, strict=True)] = 0.0
    """GPUs of each."""
    search_memory_mib: Annotated[int, Field(ge=128, strict=True)] = 1024
    """Memory of each worker that searches vectors, for vectors and results, however many passages there are."""


class Facts(BaseModel):
    """What a manifest says of its stage, beyond rows and files; each room has its own classes of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Work(Generic[Settings]):
    """One node to make. Picklable."""

    settings: Settings
    inputs: Mapping[str, Artifact]
    """By the names that the settings' references hold."""
    draft: Draft
    workers: Workers = field(default_factory=Workers)
    seed: int = 42
    node: str = ""
    """The node's name in the recipe, for messages and logs; it decides nothing."""
