"""A new piece's row as a mixture of the rows of old pieces that stand where it does in translations.

Remy et al. 2024 (arXiv 2408.04303, trans-tokenization): pieces of translations are aligned by statistics alone, and a new piece takes over
the rows of those that it translates. The alignment is IBM model 1 (Brown et al. 1993): each piece of one side comes from a piece of the
other, and which come from which is learned by expectation maximisation. Both sides are cut by the new vocabulary, and either may hold new
pieces; what counts is how often a new piece is expected to stand for an old one.

Memory: some 40 bytes for each two pieces that meet in a translation, of AT_MOST with PIECES pieces a side: under 4 GiB where all are
that long, a gigabyte where they have 25.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from raysberta.vocabulary.initialise import Found, Origin

AT_MOST = 40_000
"""Translations that are read."""
PIECES = 48
"""Of a side at most."""
ROUNDS = 6
"""Of expectation maximisation."""
NEAREST = 10
"""Old pieces of a mixture."""
PRIOR = 5.0
"""Occurrences that what else is known of a piece counts for."""
LEAST = 0.5
"""Of what a new piece stands for must be old pieces: else it stands on the side of the language that the base knows."""


def aligned_pieces(tokenizer: PreTrainedTokenizerFast, translations: Iterable[tuple[Sequence[str], Sequence[str]]]) -> sparse.csr_matrix:
    """How often a piece (row) is expected to stand for another (column) in translations, both ways together: float64 [pieces, pieces].

    Args:
        tokenizer: Of the new vocabulary.
        translations: Batches of both sides, AT_MOST altogether.
    """
    first: list[list[int]] = []
    second: list[list[int]] = []
    for batch in translations:
        for side, texts in zip((first, second), batch, strict=True):
            encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
            side += [encoding.ids[:PIECES] for encoding in encodings]
    found: sparse.csr_matrix = expected(first, second, len(tokenizer)) + expected(second, first, len(tokenizer))
    return found


def expected(sides: Sequence[Sequence[int]], others: Sequence[Sequence[int]], size: int) -> sparse.csr_matrix:
    """Expected counts float64 [size, size] of IBM model 1: of each piece (row) of `sides` coming from each piece (column) of `others`.

    Args:
        sides: Pieces of each translation.
        others: Pieces of the other side of each.
        size: Of the vocabulary.
    """
    both = [(np.asarray(side, np.int64), np.asarray(other, np.int64)) for side, other in zip(sides, others, strict=True) if side and other]
    if not both:
        return sparse.csr_matrix((size, size))
    pairs = np.concatenate([(side[:, None] * size + other[None, :]).ravel() for side, other in both])
    place = np.concatenate([np.full(len(side), len(other), np.int32) for side, other in both])  # pieces that each piece may come from
    meeting, which = np.unique(pairs, return_inverse=True)
    which = which.astype(np.int32)
    del pairs
    begin = np.concatenate([[0], np.cumsum(place[:-1], dtype=np.int64)])
    of, known = meeting % size, np.ones(len(meeting))
    for _ in range(ROUNDS):
        likely = known[which]
        likely /= np.repeat(np.add.reduceat(likely, begin), place)
        counts = np.bincount(which, likely, len(meeting))
        known = counts / np.bincount(of, counts, size)[of]  # the probability of the one piece, given the other
    found: sparse.csr_matrix = sparse.csr_matrix((counts, (meeting // size, of)), shape=(size, size))
    return found


def translated(counts: sparse.csr_matrix, origins: Sequence[Origin], old: Tensor, before: Found) -> Found:
    """Rows for the new pieces that stand in translations, or that something else has a row for.

    A row is the mean of the rows of the NEAREST old pieces, weighed by the expected counts, and of what else is known of the piece, as if
    that had stood there PRIOR times.

    Args:
        counts: Of the new vocabulary, see `aligned_pieces`.
        origins: Where each of its pieces comes from.
        old: The rows there were [V, H].
        before: What else is known: new pieces and their rows.
    """
    kept = np.asarray([isinstance(origin, int) for origin in origins])
    row_of = np.asarray([origin if isinstance(origin, int) else -1 for origin in origins])
    known = dict(zip(before[0], before[1], strict=True))
    rows: dict[int, Tensor] = {}
    for piece in np.flatnonzero(~kept).tolist():
        begin, end = counts.indptr[piece : piece + 2]
        pieces, weights = counts.indices[begin:end], counts.data[begin:end]
        there = kept[pieces]
        if weights[there].sum() > LEAST * weights.sum():
            best = np.lexsort((pieces[there], -weights[there]))[:NEAREST]
            shares = torch.from_numpy(weights[there][best]).to(old.dtype)
            mixed = (shares / shares.sum()) @ old[torch.from_numpy(row_of[pieces[there][best]])]
            often = float(weights.sum())
            rows[piece] = (often * mixed + PRIOR * known[piece]) / (often + PRIOR) if piece in known else mixed
        elif piece in known:
            rows[piece] = known[piece]
    return list(rows), torch.stack(list(rows.values())) if rows else old.new_zeros(0, old.shape[1])
