"""What is minimised: InfoNCE over a relations matrix; CoSENT, AnglE and distillation where a teacher scored the pairs.

Relations of a query (row) to a document (column): +1 it answers the query, 0 it is left out, -1 it is a negative. What would be
a false negative is 0: the same text, another answer to the same query, a text of the same group (a word's senses, a class).
"""

from collections.abc import Callable

import numpy as np
import torch

from raysberta.training.arrays import within
from raysberta.training.examples import Examples

Similarity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def info_nce(
    queries: torch.Tensor,
    documents: torch.Tensor,
    relations: torch.Tensor,
    temperature: float,
    margin: float = 0.0,
    among: torch.Tensor | None = None,
    hard: torch.Tensor | None = None,
    hardness: float = 0.0,
) -> torch.Tensor:
    """Mean over all positives of -log softmax of the positive against the negatives of its query.

    With `among`, the improved loss of GTE (arXiv 2308.03281, equation 4), which Qwen3-Embedding (arXiv 2506.05176) masks alike:
    the denominator also holds the query against other queries, and the positive against other queries and other positives.

    Args:
        queries: [B, H], L2-normalised.
        documents: [N, H], L2-normalised.
        relations: int8 [B, N] of +1, 0, -1. Other positives of a query do not stand in a positive's denominator.
        temperature: Divides the cosines.
        margin: Taken off the cosine of each positive (additive margin, arXiv 1902.08564).
        among: int8 [B, B], -1 where a query is a negative of another and 0 elsewhere: adds the same-tower terms.
        hard: bool [B, N]: the query's own hard negatives, where these are weighted.
        hardness: Each of them stands exp(hardness * its cosine) times in the denominator; no gradient goes through that weight
            (EmbeddingGemma, arXiv 2509.20354).

    Returns:
        Scalar, float32 (float64 for float64 input). A query without a negative adds a loss of 0.

    Raises:
        ValueError: a query has no positive.
    """
    if not bool((relations > 0).any(1).all()):
        raise ValueError("a query has no positive document")
    wide = torch.promote_types(queries.dtype, torch.float32)
    queries, documents = queries.to(wide), documents.to(wide)
    never = torch.finfo(wide).min / 4  # finite, so that a row without negatives has a zero gradient and not NaN
    row, column = torch.nonzero(relations > 0, as_tuple=True)
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries @ documents.T / temperature
        weighted = scores if hard is None else scores + hardness * temperature * scores.detach() * hard
        outside = torch.logsumexp(weighted.masked_fill(relations >= 0, never), dim=1)[row]
        if among is not None:
            positives = documents[column]
            others = (relations[row] < 0) & (relations > 0).any(0)
            same = [
                (queries @ queries.T / temperature).masked_fill(among >= 0, never)[row],
                (positives @ queries.T / temperature).masked_fill(among[row] >= 0, never),
                (positives @ documents.T / temperature).masked_fill(~others, never),
            ]
            outside = torch.logsumexp(torch.cat([outside[:, None], *same], dim=1), dim=1)
    short = outside - scores[row, column] + margin / temperature
    return torch.logaddexp(short, torch.zeros_like(short)).mean()


def spread(vectors: torch.Tensor) -> torch.Tensor:
    """Mean squared cosine of two different ones of some vectors, the spread-out term of EmbeddingGemma (arXiv 2509.20354).

    Args:
        vectors: [n, H], L2-normalised, of distinct texts.

    Returns:
        Scalar; 0 of fewer than two.
    """
    count = len(vectors)
    with torch.autocast(vectors.device.type, enabled=False):
        squares = (vectors @ vectors.T).square()
    apart = squares.sum() - squares.diagonal().sum()
    return apart / max(1, count * (count - 1))


def cosent(
    queries: torch.Tensor, documents: torch.Tensor, scores: torch.Tensor, temperature: float, similarity: Similarity | None = None
) -> torch.Tensor:
    """CoSENT: log(1 + sum of exp((cosine of the worse pair - cosine of the better pair) / temperature)) over all pairs of scored pairs.

    Only the order of the scores counts. (Su 2022, kexue.fm/archives/8847.) With `angle` as similarity it is the angle objective of AnglE.

    Args:
        queries: [B, H], L2-normalised.
        documents: [N, H], L2-normalised.
        scores: [B, N], NaN where a pair has none.
        temperature: Divides the differences.
        similarity: Of vectors to vectors, row by row; the cosine where None.

    Returns:
        Scalar; 0 where no two scores differ.
    """
    row, column = torch.nonzero(torch.isfinite(scores), as_tuple=True)
    wide = torch.promote_types(queries.dtype, torch.float32)
    left, right = queries[row].to(wide), documents[column].to(wide)
    cosines = (similarity(left, right) if similarity else (left * right).sum(1)) / temperature
    known = scores[row, column]
    better, worse = torch.nonzero(known[:, None] > known[None, :], as_tuple=True)
    return torch.logsumexp(torch.cat([cosines.new_zeros(1), cosines[worse] - cosines[better]]), dim=0)


def angle(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """How far apart the complex vectors are whose real and imaginary parts are a vector's halves, AnglE's equation 6: float [n].

    It does not flatten where the cosine does (Li and Li 2023, arXiv 2309.12871).

    Args:
        left: [n, H] of even H, L2-normalised.
        right: [n, H], L2-normalised.
    """
    (a, b), (c, d) = left.chunk(2, dim=1), right.chunk(2, dim=1)
    return ((a * c + b * d) + (b * c - a * d)).sum(1).abs()


def distillation(
    queries: torch.Tensor, documents: torch.Tensor, scores: torch.Tensor, temperature: float, teacher_temperature: float
) -> torch.Tensor:
    """Mean over queries of the cross entropy from the teacher's softmax over a query's scored documents to the student's.

    Args:
        queries: [B, H], L2-normalised.
        documents: [N, H], L2-normalised.
        scores: The teacher's, [B, N], NaN where a pair has none; queries without any are left out.
        temperature: Divides the student's cosines.
        teacher_temperature: Divides the teacher's scores.

    Returns:
        Scalar; 0 where nothing is scored.
    """
    wide = torch.promote_types(queries.dtype, torch.float32)
    there = torch.isfinite(scores)
    never = torch.finfo(wide).min / 4
    with torch.autocast(queries.device.type, enabled=False):
        student = (queries.to(wide) @ documents.to(wide).T / temperature).masked_fill(~there, never).log_softmax(1)
    teacher = (scores.to(wide) / teacher_temperature).masked_fill(~there, never).softmax(1)
    entropies = -(teacher * student).masked_fill(~there, 0.0).sum(1)
    return entropies.sum() / there.any(1).sum().clamp(min=1)


def documents_of(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """The distinct documents (sequences) of a batch: the rows' positives in row order, then their negatives. int64 [N]."""
    positives = examples.positive[rows]
    negatives = np.concatenate([examples.negatives[row] for row in rows]) if len(rows) else np.zeros(0, np.int32)
    return np.asarray(list(dict.fromkeys(np.concatenate([positives, negatives]).tolist())), np.int64)


def relations_of(examples: Examples, rows: np.ndarray, documents: np.ndarray, guide_margin: float | None = None) -> np.ndarray:
    """Relations int8 [rows, documents] of a batch whose queries are the rows' own.

    Args:
        examples: The prepared examples.
        rows: Of the batch.
        documents: Sequences.
        guide_margin: Documents whose cosine to the query by the guide is above the positive's less this are left out; none where None.
    """
    texts = examples.raw[documents]
    relations = np.full((len(rows), len(documents)), -1, np.int8)
    groups = [examples.groups[text] for text in texts]
    column = np.repeat(np.arange(len(documents)), [len(of_text) for of_text in groups])
    own, flat = examples.group[rows], np.concatenate(groups)
    near = np.flatnonzero(within(flat, np.unique(own)))  # a text may be of very many groups
    same, place_of = np.nonzero(own[:, None] == flat[near][None, :])
    relations[same, column[near[place_of]]] = 0
    for place, query in enumerate(examples.raw[examples.query[rows]]):
        relations[place, within(texts, examples.friends[query])] = 0
    if guide_margin is not None:
        relations[_closer(examples, rows, documents, guide_margin)] = 0
    relations[examples.positive[rows][:, None] == documents[None, :]] = 1
    return relations


def _closer(examples: Examples, rows: np.ndarray, documents: np.ndarray, margin: float) -> np.ndarray:
    """Which documents the guide finds too close to a query, bool [rows, documents]: never where it knows one of the three texts not."""
    queries, positives, others = (
        examples.guide[sequences].astype(np.float32) for sequences in (examples.query[rows], examples.positive[rows], documents)
    )
    least = (queries * positives).sum(1, keepdims=True) - margin
    known = queries.any(1)[:, None] & positives.any(1)[:, None] & others.any(1)[None, :]
    found: np.ndarray = known & (queries @ others.T > least)
    return found


def among_queries(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Relations int8 [rows, rows] of a batch's queries to each other: -1, or 0 where they are the same, answers, or of one group."""
    return np.minimum(relations_of(examples, rows, examples.query[rows]), 0)


def hard_of(examples: Examples, rows: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Which documents are a row's own hard negatives, bool [rows, documents]."""
    column = {document: place for place, document in enumerate(documents.tolist())}
    found = np.zeros((len(rows), len(documents)), bool)
    for place, row in enumerate(rows):
        found[place, [column[document] for document in examples.negatives[row].tolist()]] = True
    return found


def scores_of(examples: Examples, rows: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """The teacher's scores float32 [rows, documents] of each row's own positive and negatives; NaN elsewhere."""
    column = {document: place for place, document in enumerate(documents.tolist())}
    scores = np.full((len(rows), len(documents)), np.nan, np.float32)
    for place, row in enumerate(rows):
        own = slice(examples.negatives.offsets[row], examples.negatives.offsets[row + 1])
        scores[place, [column[document] for document in examples.negatives.values[own].tolist()]] = examples.negative_score[own]
        scores[place, column[int(examples.positive[row])]] = examples.positive_score[row]
    return scores
