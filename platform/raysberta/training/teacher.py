"""The texts that a model learns from a teacher's vectors: each as the student reads it, and as the teacher does.

Both read a text as a side of its task, so each has its own prefix before it. The teacher's vectors are rows by number, read a step's at
a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.prefixes import Prefixes, Side
from raysberta.retrieval.mapped import Mapped
from raysberta.schema import text_id
from raysberta.training.examples import Ragged, ragged, tokenise
from raysberta.training.settings import Distance

Reading = tuple[str, str]
"""A text with the teacher's prefix before it, and with the student's."""
Rows = Mapped | np.ndarray
"""A teacher's vectors: gives float [n, D] for int64 [n] row numbers."""

COMPARED = 1000
"""Texts on which student and teacher are compared: half a million pairs of texts."""
CHARACTERS = 16
"""Of a document for each token of the limit: more than any tokenizer reads, and less than a book."""


@dataclass(frozen=True)
class Readers:
    """Who reads the texts."""

    teacher: Prefixes
    student: Prefixes

    def of_pairs(self, tables: Iterable[pa.Table | pa.RecordBatch]) -> Iterator[Reading]:
        """Both sides of pairs, with repetitions.

        Args:
            tables: Columns task, query, positive; and negatives, where these are read too.
        """
        for table in tables:
            for task in pc.unique(table["task"]).to_pylist():
                rows = table.filter(pc.equal(table["task"], task))
                documents = rows["positive"].to_pylist()
                if "negatives" in rows.schema.names:
                    documents += pc.list_flatten(rows["negatives"]).to_pylist()
                read: Mapping[Side, list[str]] = {"query": rows["query"].to_pylist(), "document": documents}
                for side, texts in read.items():
                    before = self.teacher.of(task, side), self.student.of(task, side)
                    yield from ((before[0] + text, before[1] + text) for text in texts)

    def of_documents(self, tables: Iterable[pa.Table | pa.RecordBatch], max_tokens: int) -> Iterator[Reading]:
        """The beginnings of documents, which are read as those of retrieval.

        Args:
            tables: A column text.
            max_tokens: How much of each is read at most.
        """
        before = self.teacher.of("retrieval", "document"), self.student.of("retrieval", "document")
        for table in tables:
            for text in pc.utf8_slice_codeunits(table["text"], 0, CHARACTERS * max_tokens).to_pylist():
                if text:
                    yield before[0] + text, before[1] + text


def some(readings: Iterable[Reading], most: int = COMPARED) -> list[Reading]:
    """As many distinct readings at most, those whose hash is least, so which ones owes nothing to their order."""
    return sorted(set(readings), key=lambda reading: text_id(*reading))[:most]


@dataclass(frozen=True)
class Lessons:
    """Texts ready to be learned."""

    tokens: Ragged
    """Token ids of each text as the student reads it, special tokens included."""
    row: np.ndarray
    """int64 [texts]: of the teacher's vectors."""

    def __len__(self) -> int:
        return len(self.row)


def make_lessons(readings: Iterable[Reading], ordered: Sequence[str], tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> Lessons:
    """Tokenise what the student reads; the order is that of the teacher's vectors.

    Args:
        readings: Distinct.
        ordered: What the teacher read, in the order of its vectors.
        tokenizer: The student's.
        max_tokens: Longer texts are cut.

    Raises:
        InputError: there is no text at all.
    """
    at = {text: row for row, text in enumerate(ordered)}
    found = sorted((at[teacher], student) for teacher, student in readings)
    if not found:
        raise InputError("there is no training text at all; right would be sources with pairs in their training split")
    tokens = ragged(tokenise(tokenizer, ((student, max_tokens) for _, student in found)))
    return Lessons(tokens, np.asarray([row for row, _ in found], np.int64))


def taught(vectors: Rows, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Rows of a teacher's vectors, L2-normalised float32 [n, D]; zeros where a vector is none."""
    return F.normalize(torch.from_numpy(np.asarray(vectors[rows], np.float32)), dim=-1).to(device)


def distances(student: torch.Tensor, teacher: torch.Tensor, loss: Distance) -> torch.Tensor:
    """How far each vector [n, D] is from the teacher's, both L2-normalised: float [n]; 1, without gradient, where the teacher's is zero."""
    teacher = teacher.to(student.dtype)
    if loss == "cosine":
        return 1 - (student * teacher).sum(1)
    there = teacher.any(1)
    return (student - teacher).square().sum(1) * there + ~there


class Projection(nn.Module):
    """A linear layer without bias from the student's dimension to the teacher's, and unit length again."""

    def __init__(self, width: int, wanted: int, seed: int) -> None:
        """Draw the weights [wanted, width] as N(0, 1 / wanted), which leaves cosines roughly as they are."""
        super().__init__()
        self.linear = nn.Linear(width, wanted, bias=False)
        nn.init.normal_(self.linear.weight, std=wanted**-0.5, generator=torch.Generator().manual_seed(seed))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """[n, width] to L2-normalised [n, wanted]."""
        return F.normalize(self.linear(vectors), dim=-1)


def projection(width: int, wanted: int, seed: int) -> Projection | None:
    """What stands between student and teacher; nothing where their vectors have one dimension."""
    return Projection(width, wanted, seed) if width != wanted else None
