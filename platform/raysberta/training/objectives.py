"""What is minimised: InfoNCE over a relations matrix, and the loss of masked tokens.

Relations of a query (row) to a document (column): +1 it answers the query, 0 it is left out, -1 it is a negative. What would be
a false negative is 0: the same text, another answer to the same query, a text of the same group (a word's senses, a class).
"""

import numpy as np
import torch

from raysberta.training.examples import Examples


def info_nce(queries: torch.Tensor, documents: torch.Tensor, relations: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean over all positives of -log softmax of the positive against the negatives of its query (RECIPE.md 5.2).

    Args:
        queries: [B, H], L2-normalised.
        documents: [N, H], L2-normalised.
        relations: int8 [B, N] of +1, 0, -1. Other positives of a query do not stand in a positive's denominator.
        temperature: Divides the cosines.

    Returns:
        Scalar, float32 (float64 for float64 input). A query without a negative adds a loss of 0.

    Raises:
        ValueError: a query has no positive.
    """
    if not bool((relations > 0).any(1).all()):
        raise ValueError("a query has no positive document")
    wide = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.to(wide) @ documents.to(wide).T / temperature
    # Finite, so that a row without negatives has a zero gradient and not NaN.
    outside = torch.logsumexp(scores.masked_fill(relations >= 0, torch.finfo(wide).min / 4), dim=1)
    row, column = torch.nonzero(relations > 0, as_tuple=True)
    margin = outside[row] - scores[row, column]
    return torch.logaddexp(margin, torch.zeros_like(margin)).mean()


def documents_of(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """The distinct documents (sequences) of a batch: the rows' positives in row order, then their negatives. int64 [N]."""
    positives = examples.positive[rows]
    negatives = np.concatenate([examples.negatives[row] for row in rows]) if len(rows) else np.zeros(0, np.int32)
    return np.asarray(list(dict.fromkeys(np.concatenate([positives, negatives]).tolist())), np.int64)


def relations_of(examples: Examples, rows: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Relations int8 [rows, documents] of a batch whose queries are the rows' own."""
    texts = examples.raw[documents]
    relations = np.full((len(rows), len(documents)), -1, np.int8)
    groups = [examples.groups[text] for text in texts]
    column = np.repeat(np.arange(len(documents)), [len(of_text) for of_text in groups])
    same, place_of = np.nonzero(examples.group[rows][:, None] == np.concatenate(groups)[None, :])
    relations[same, column[place_of]] = 0
    for place, row in enumerate(rows):
        relations[place, np.isin(texts, examples.friends[row])] = 0
    relations[examples.positive[rows][:, None] == documents[None, :]] = 1
    return relations
