"""How far a student agrees with its teacher: cosines of their vectors, of centred vectors, and of the order they put pairs of texts in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raysberta.retrieval.embed import Embedder
from raysberta.training.facts import Agreement, Fidelity


def fidelity(before: Path, after: Path, texts: Sequence[str], teacher: np.ndarray, max_tokens: int) -> Fidelity:
    """Compare a model before and after with the teacher.

    Args:
        before: Model folder that training began with.
        after: Model folder that it made.
        texts: At least two, with the student's prefixes before them.
        teacher: float [texts, D]: its vectors of the same texts.
        max_tokens: Longer texts are cut.
    """
    first, last = (agreement(Embedder(folder, max_tokens).encode(texts), teacher) for folder in (before, after))
    return Fidelity(texts=len(texts), before=first, after=last)


def agreement(student: np.ndarray, teacher: np.ndarray) -> Agreement:
    """Of vectors float [n, d] and [n, D] of the same texts, n at least 2, neither side constant. In float64; memory is n * n numbers."""
    student, teacher = _unit(student.astype(np.float64)), _unit(teacher.astype(np.float64))
    cosine = centred = None
    if student.shape[1] == teacher.shape[1]:
        cosine = _rounded((student * teacher).sum(1).mean())
        moved, aim = (_unit(vectors - vectors.mean(0)) for vectors in (student, teacher))
        centred = _rounded((moved * aim).sum(1).mean())
    upper = np.triu_indices(len(student), 1)
    left, right = (_ranks((vectors @ vectors.T)[upper]) for vectors in (student, teacher))
    return Agreement(cosine=cosine, centred=centred, ranks=_rounded(np.corrcoef(left, right)[0, 1]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Of equal values the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return found


def _rounded(value: float) -> float:
    return round(float(value), 5)
