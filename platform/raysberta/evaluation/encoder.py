"""An encoder as mteb wants it, over anything that turns prefixed texts into vectors.

mteb drops prompt names it does not know without a word, and a score without its prefix is off by points. So the prefix is looked
up here under the names that mteb itself derives from a task, and a task without one is an error.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import get_prompt_name
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from raysberta.prefixes import Prefixes

Embed = Callable[[Sequence[str]], np.ndarray]


class PrefixedEncoder:
    """mteb's encoder protocol. Embeds each distinct prefixed text once in its life, as far as `keep` vectors reach."""

    def __init__(
        self, embed: Embed, prefixes: Prefixes, name: str, revision: str, overrides: dict[str, str] | None = None, keep: int = 50_000
    ) -> None:
        """Wrap an embedding function.

        Args:
            embed: Texts with their prefix to L2-normalised float32 vectors [n, d].
            prefixes: What the model was trained with.
            name: How results name the model, `owner/name`.
            revision: Of the model.
            overrides: Prefixes of single tasks by mteb name, which come before those of the task types.
            keep: Vectors kept to be given again.
        """
        self.embed = embed
        self.prompts = {**prefixes.mteb_prompts(), **(overrides or {})}
        self.keep = keep
        self.vectors: dict[str, np.ndarray] = {}
        self.mteb_model_meta = ModelMeta.create_empty({"name": name, "revision": revision, "similarity_fn_name": ScoringFunction.COSINE})

    def encode(
        self, inputs: Iterable[dict[str, Any]], *, task_metadata: TaskMetadata, prompt_type: PromptType | None = None, **_: Any
    ) -> np.ndarray:
        """Vectors of all texts of a data loader, float32 [n, d], each with the prefix of its task and side.

        Raises:
            KeyError: there is no prefix for the task.
        """
        name = get_prompt_name(self.prompts, task_metadata, prompt_type)
        if name is None:
            raise KeyError(f"no prefix for {task_metadata.name} of type {task_metadata.type}")
        texts = [self.prompts[name] + text for batch in inputs for text in batch["text"]]
        missing = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        fresh = dict(zip(missing, self.embed(missing), strict=True)) if missing else {}
        found = np.stack([fresh[text] if text in fresh else self.vectors[text] for text in texts])
        if len(self.vectors) + len(fresh) <= self.keep:
            self.vectors.update(fresh)
        return found

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Cosines, float32 [n, m]; the vectors are normalised."""
        return np.asarray(embeddings1) @ np.asarray(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Cosines row by row, float32 [n]."""
        return (np.asarray(embeddings1) * np.asarray(embeddings2)).sum(-1)
