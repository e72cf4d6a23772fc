"""The parts of states as modules of sentence-transformers, under the import paths that modules.json names.

Whoever has this package installed loads such a folder with `SentenceTransformer(folder, trust_remote_code=True)`: that library wants to
be told before it imports a class that is not its own. The folder holds no code.
"""

from pathlib import Path
from typing import Any, Self

from sentence_transformers.base.modules import Module
from torch import Tensor

from raysberta.models.folder import Kind, Part
from raysberta.models.model import StatesPart, load_part, save_part


class _OfStates(Module):
    """A part between the transformer and the pooling."""

    kind: Kind

    def __init__(self, part: StatesPart) -> None:
        super().__init__()
        self.part = part

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """The features with other states and their mask."""
        states, mask = self.part(features["token_embeddings"], features["attention_mask"])
        return {**features, "token_embeddings": states, "attention_mask": mask}

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> Self:
        """The part of a model's folder, here or on a hub."""
        hub = {name: options.get(name) for name in ("token", "cache_folder", "revision", "local_files_only")}
        place = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **hub)  # type: ignore[arg-type]
        return cls(load_part(Part(cls.kind, Path(str(place)))))  # type: ignore[arg-type]

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the part as this project does."""
        save_part(self.part, Path(output_path))

    def get_embedding_dimension(self) -> int:
        """Width of its states."""
        return self.part.width


class Connector(_OfStates):
    """See models/parts.py."""

    kind = "Connector"


class Decoder(_OfStates):
    """See models/parts.py."""

    kind = "Decoder"


class LatentAttention(_OfStates):
    """See models/parts.py."""

    kind = "LatentAttention"
