"""An encoder and its search as mteb wants them, over anything that turns prefixed texts into vectors.

mteb drops prompt names it does not know without a word, and a score without its prefix is off by points. So the prefix is looked
up here under the names that mteb itself derives from a task, and a task without one is an error.

A corpus is searched as it comes, some texts at a time: no more of it is held than those and the best found so far.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import get_prompt_name
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from raysberta.errors import InputError
from raysberta.prefixes import Prefixes

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts with their prefix to L2-normalised float32 vectors [n, d]."""
SLICE = 16_384
"""Texts of a corpus whose vectors are held at once: 64 MiB at 1,024 dimensions."""
SCORES = 1 << 24
"""Products held at once: 64 MiB."""
FOUND = 20_000_000
"""Results of a task that mteb may be given, one for each query and text found: some 60 bytes each in its dictionaries."""
VECTORS_MIB = 1792
"""Vectors that mteb may be given at once: it holds all of a task that is no search."""


class Remembered:
    """An embedding function that embeds each distinct text once in its life, as far as `keep` vectors reach."""

    def __init__(self, embed: Embed, keep: int = 50_000) -> None:
        self.embed, self.keep = embed, keep
        self.vectors: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """As the function itself."""
        missing = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        fresh = dict(zip(missing, self.embed(missing), strict=True)) if missing else {}
        found = np.stack([fresh[text] if text in fresh else self.vectors[text] for text in texts])
        if len(self.vectors) + len(fresh) <= self.keep:
            self.vectors.update(fresh)
        return found


class PrefixedEncoder:
    """mteb's protocols of an encoder and of a search."""

    def __init__(self, embed: Embed, prefixes: Prefixes, name: str, revision: str, overrides: Mapping[str, str] | None = None) -> None:
        """Wrap an embedding function.

        Args:
            embed: The function.
            prefixes: What the model was trained with.
            name: How results name the model, `owner/name`.
            revision: Of the model.
            overrides: Prefixes of single tasks by mteb name, which come before those of the task types.
        """
        self.embed = embed
        self.prompts = {**prefixes.mteb_prompts(), **(overrides or {})}
        self.corpus: Dataset | None = None
        self.mteb_model_meta = ModelMeta.create_empty({"name": name, "revision": revision, "similarity_fn_name": ScoringFunction.COSINE})

    def encode(
        self, inputs: Iterable[dict[str, Any]], *, task_metadata: TaskMetadata, prompt_type: PromptType | None = None, **_: Any
    ) -> np.ndarray:
        """Vectors of all texts of a data loader, float32 [n, d], each with the prefix of its task and side.

        Raises:
            KeyError: there is no prefix for the task.
            InputError: the vectors take more than VECTORS_MIB.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        vectors = self._vectors(texts, task_metadata, prompt_type)
        if vectors.nbytes > VECTORS_MIB << 20:
            said = f"{len(texts)} texts are {vectors.nbytes >> 20} MiB of vectors, and mteb holds all of a task at once"
            raise InputError(f"{task_metadata.name}: {said}; right would be at most {VECTORS_MIB}")
        return vectors

    def index(self, corpus: Dataset, **_: Any) -> None:
        """Take the texts that the next search is among; nothing is embedded before."""
        self.corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Cosines of the best texts of the corpus with each query, or of those that `top_ranked` names for it.

        Args:
            queries: Columns id and text, perhaps instruction.
            task_metadata: Says which prefixes are right.
            top_k: How many texts a query.
            top_ranked: For each query the ids of texts to rank.

        Returns:
            Query id to text id to cosine.

        Raises:
            InputError: queries are conversations, or more results are asked for than FOUND.
        """
        assert self.corpus is not None, "mteb indexes before it searches"
        ids, texts = list(queries["id"]), _query_texts(queries, task_metadata.name)
        if len(ids) * top_k > FOUND and top_ranked is None:
            said = f"{len(ids)} queries, and mteb holds {top_k} results of each"
            raise InputError(f"{task_metadata.name}: {said}; right would be at most {FOUND // top_k}")
        asked = self._vectors(texts, task_metadata, PromptType.query)
        if top_ranked is not None:
            return self._ranked(ids, asked, top_ranked, top_k, task_metadata)
        scores, rows = self._nearest(asked, top_k, task_metadata)
        distinct, places = np.unique(rows, return_inverse=True)
        names = list(self.corpus.select_columns(["id"]).select(distinct)["id"])
        found = zip(ids, scores.tolist(), places.reshape(rows.shape).tolist(), strict=True)
        return {query: {names[place]: score for place, score in zip(best, near, strict=True)} for query, near, best in found}

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Cosines, float32 [n, m]; the vectors are normalised."""
        return np.asarray(embeddings1) @ np.asarray(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Cosines row by row, float32 [n]."""
        return (np.asarray(embeddings1) * np.asarray(embeddings2)).sum(-1)

    def _vectors(self, texts: Sequence[str], task: TaskMetadata, side: PromptType | None) -> np.ndarray:
        name = get_prompt_name(self.prompts, task, side)
        if name is None:
            raise KeyError(f"no prefix for {task.name} of type {task.type}")
        prefix = self.prompts[name]
        return self.embed([prefix + text for text in texts])

    def _nearest(self, asked: np.ndarray, count: int, task: TaskMetadata) -> tuple[np.ndarray, np.ndarray]:
        """Cosines float32 [q, k] and rows int64 [q, k] of the nearest texts, in no order."""
        best = Best(len(asked), count)
        for first, part in _slices(self.corpus):
            best.add(asked, self._vectors(_document_texts(part), task, PromptType.document), first)
        return best.scores, best.rows

    def _ranked(
        self, ids: Sequence[str], asked: np.ndarray, ranked: Mapping[str, Sequence[str]], count: int, task: TaskMetadata
    ) -> dict[str, dict[str, float]]:
        """Cosines of the texts named for each query; of the corpus no other text is embedded."""
        wanted: dict[str, list[int]] = defaultdict(list)
        for number, query in enumerate(ids):
            for text in ranked.get(query, ()):
                wanted[text].append(number)
        found: dict[str, dict[str, float]] = {query: {} for query in ids}
        for _, part in _slices(self.corpus):
            rows = [row for row, name in enumerate(part["id"]) if name in wanted]
            if not rows:
                continue
            chosen = {column: [values[row] for row in rows] for column, values in part.items()}
            for name, vector in zip(chosen["id"], self._vectors(_document_texts(chosen), task, PromptType.document), strict=True):
                for number, score in zip(wanted[name], (asked[wanted[name]] @ vector).tolist(), strict=True):
                    found[ids[number]][name] = score
        return {query: dict(sorted(near.items(), key=lambda item: -item[1])[:count]) for query, near in found.items()}


class Best:
    """The k greatest products of each query with all vectors so far. Memory: [q, 2k] and SCORES products."""

    def __init__(self, queries: int, count: int) -> None:
        self.count = count
        self.scores = np.zeros((queries, 0), np.float32)
        self.rows = np.zeros((queries, 0), np.int64)

    def add(self, queries: np.ndarray, vectors: np.ndarray, first: int) -> None:
        """Take in vectors [n, d], whose rows begin at `first`."""
        step = max(1, SCORES // max(1, len(vectors)))
        parts = [self._kept(slice(start, start + step), queries, vectors, first) for start in range(0, len(queries), step)]
        if parts:
            self.scores, self.rows = (np.concatenate(each) for each in zip(*parts, strict=True))

    def _kept(self, part: slice, queries: np.ndarray, vectors: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        fresh, rows = _greatest(torch.from_numpy(queries[part]) @ torch.from_numpy(vectors).T, self.count)
        scores = torch.cat([torch.from_numpy(self.scores[part]), fresh], dim=1)
        both = torch.cat([torch.from_numpy(self.rows[part]), rows + first], dim=1)
        kept, places = _greatest(scores, self.count)
        return kept.numpy(), both.gather(1, places).numpy()


def _greatest(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = torch.topk(scores, min(count, scores.shape[1]), dim=1, sorted=False)
    return found.values, found.indices


def _slices(corpus: Dataset | None) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """The corpus by columns, SLICE texts at a time, each with the row that it begins at."""
    assert corpus is not None
    columns = corpus.select_columns([name for name in ("id", "title", "text") if name in corpus.column_names])
    for first in range(0, len(columns), SLICE):
        yield first, columns[first : first + SLICE]


def _document_texts(part: Mapping[str, Sequence[Any]]) -> list[str]:
    """Title and text as mteb joins them."""
    titles = part.get("title") or [""] * len(part["text"])
    return [(f"{title} {text}" if title else text).strip() for title, text in zip(titles, part["text"], strict=True)]


def _query_texts(queries: Dataset, task: str) -> list[str]:
    """Query and instruction as mteb joins them."""
    texts = list(queries["text"])
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{task}: its queries are conversations; right would be a task whose queries are texts")
    if "instruction" not in queries.column_names:
        return texts
    said = zip(texts, queries["instruction"], strict=True)
    return [text if instruction is None else f"{text} {instruction}" for text, instruction in said]
