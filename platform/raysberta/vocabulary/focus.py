"""FOCUS: a new piece's row as a mixture of the rows of kept pieces that stand in like places of the corpus.

Dobler and de Melo 2023 (arXiv 2305.14481): similarities come from auxiliary vectors of the new vocabulary's pieces, learned on the
corpus; weights are their sparsemax, so a few pieces count and the rest not at all. The paper's auxiliary vectors are fastText's; these
are the truncated singular vectors of the positive pointwise mutual information of neighbours, which skip-gram factorises implicitly
(Levy and Goldberg 2014): no further library, and the same vectors on every run.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from raysberta.vocabulary.initialise import Found, Origin

DIMENSIONS = 100
WINDOW = 5
SMOOTHING = 0.75
BLOCK = 256
SUPPORT = 256
"""Scores that are sorted at first: few of a row get a weight."""


def auxiliary(tokenizer: PreTrainedTokenizerFast, batches: Iterable[Sequence[str]], seed: int) -> Tensor:
    """Vectors float32 [pieces, up to DIMENSIONS] of unit length; 0 for pieces that no text holds.

    Args:
        tokenizer: Of the new vocabulary.
        batches: Texts of the corpus, read once.
        seed: Of the decomposition.
    """
    from sklearn.utils.extmath import randomized_svd  # takes a second, and most vocabularies do without it

    size = len(tokenizer)
    together = sparse.csr_matrix((size, size), dtype=np.int64)
    for texts in batches:
        together = together + _neighbours(tokenizer, texts, size)
    information = _positive_information(together + together.T)
    rank = min(DIMENSIONS, size - 1)
    left, values, _ = randomized_svd(information, n_components=rank, random_state=seed)
    vectors = torch.from_numpy(np.asarray(left * np.sqrt(values), np.float32))
    seen = torch.from_numpy(np.diff(information.indptr) > 0)
    return F.normalize(vectors, dim=-1) * seen[:, None]


def _neighbours(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], size: int) -> sparse.csr_matrix:
    """How often a piece follows another within WINDOW, nearer ones counting more, as in word2vec; whole numbers sum alike in any order."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [np.asarray(encoding.ids, np.int64) for encoding in encodings]
    pieces = np.concatenate([np.zeros(0, np.int64), *ids])
    text = np.repeat(np.arange(len(ids)), [len(row) for row in ids])
    rows, columns, counts = [], [], []
    for apart in range(1, WINDOW + 1):
        within = text[apart:] == text[:-apart]
        rows.append(pieces[:-apart][within])
        columns.append(pieces[apart:][within])
        counts.append(np.full(len(rows[-1]), WINDOW - apart + 1, np.int64))
    places = np.concatenate(rows), np.concatenate(columns)
    return sparse.coo_matrix((np.concatenate(counts), places), shape=(size, size)).tocsr()


def _positive_information(together: sparse.csr_matrix) -> sparse.csr_matrix:
    """Positive pointwise mutual information, the neighbour's frequency smoothed."""
    entries = together.tocoo()
    totals = np.asarray(together.sum(1)).ravel()
    smoothed = totals**SMOOTHING
    smoothed /= max(smoothed.sum(), 1e-300)
    information = np.log(entries.data / (totals[entries.row] * smoothed[entries.col]))
    kept = information > 0
    values = information[kept].astype(np.float32)
    return sparse.csr_matrix((values, (entries.row[kept], entries.col[kept])), shape=together.shape)


def focus(vectors: Tensor, origins: Sequence[Origin], old: Tensor) -> Found:
    """Rows for the new pieces that the corpus holds.

    Args:
        vectors: The auxiliary vectors of the new vocabulary [len(origins), D].
        origins: Where each piece comes from.
        old: The rows there were [V, H].
    """
    there = vectors.any(1).tolist()
    kept = {place: origin for place, origin in enumerate(origins) if isinstance(origin, int) and there[place]}
    new = [place for place, origin in enumerate(origins) if not isinstance(origin, int) and there[place]] if kept else []
    return new, mixtures(vectors, new, list(kept), old[list(kept.values())])


def mixtures(vectors: Tensor, new: Sequence[int], kept: Sequence[int], old: Tensor) -> Tensor:
    """Rows [len(new), H] for new pieces: the rows of the kept ones, weighed by the sparsemax of their similarities.

    Args:
        vectors: The auxiliary vectors [pieces, D], all different from 0 where they are asked for.
        new: Ids of the new pieces.
        kept: Ids of kept pieces.
        old: Rows of the kept pieces [len(kept), H].
    """
    known = vectors[list(kept)]
    found = [sparsemax(vectors[list(new[start : start + BLOCK])] @ known.T).to(old.dtype) @ old for start in range(0, len(new), BLOCK)]
    return torch.cat(found) if found else old.new_zeros(0, old.shape[1])


def sparsemax(scores: Tensor, most: int = SUPPORT) -> Tensor:
    """The Euclidean projection of each row of [n, m] onto the probability simplex (Martins and Astudillo 2016, arXiv 1602.02068).

    The `most` highest scores of a row are looked at first, and all of them where so many get a weight.
    """
    falling = scores.topk(min(most, scores.shape[1]), dim=1).values
    sums = falling.cumsum(1) - 1
    counts = torch.arange(1, falling.shape[1] + 1, device=scores.device, dtype=scores.dtype)
    support = (counts * falling > sums).sum(1, keepdim=True)
    if most < scores.shape[1] and (support == most).any():
        return sparsemax(scores, scores.shape[1])
    threshold = sums.gather(1, support - 1) / support
    return (scores - threshold).clamp(min=0)
