"""A donor's own embedding rows for the pieces taken over from it, turned into the base's space.

Two embedding tables trained apart agree, as far as they agree at all, up to a rotation. It is fitted on the pieces that both
vocabularies hold: orthogonal Procrustes (Schonemann 1966), semi-orthogonal where the widths differ.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.vocabulary.initialise import Found, Origin


def rotation(source: Tensor, target: Tensor) -> Tensor:
    """The matrix [A, B] with orthonormal columns or rows, whichever are fewer, that brings source [n, A] nearest to target [n, B].

    Nearest in the sum of squares where A <= B; where A > B it is the one of greatest agreement, the sum of inner products.
    """
    left, _, right = torch.linalg.svd(source.T @ target, full_matrices=False)
    return left @ right


def turned(given: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Rows [m, A] of the source's space in the target's [m, B], by anchors source [n, A] and target [n, B].

    Centred first: what all rows of a table share would outweigh what tells them apart. Scaled by the anchors' spread in the target
    over their spread after turning, so that new rows vary as old ones do; the factor of least squares would shrink them towards the
    mean the worse the fit is.
    """
    given, source, target = given.double(), source.double(), target.double()
    centre, goal = source.mean(0), target.mean(0)
    turn = rotation(source - centre, target - goal)
    scale = (target - goal).norm() / ((source - centre) @ turn).norm().clamp(min=1e-12)
    return (given - centre) @ turn * scale + goal


def donated(
    texts: Sequence[str],
    origins: Sequence[Origin],
    tokenizer: PreTrainedTokenizerFast,
    old: Tensor,
    donor: PreTrainedTokenizerFast,
    theirs: Tensor,
) -> Found:
    """Rows for the new pieces that the donor has too.

    Args:
        texts: The new vocabulary's pieces by id.
        origins: Where each comes from.
        tokenizer: The base's, before.
        old: Its rows [V, H].
        donor: The donor's tokenizer.
        theirs: Its rows [W, D].

    Raises:
        InputError: base and donor share too few pieces for the map to be determined.
    """
    place_of = donor.get_vocab()
    anchors = [(place_of[text], number) for text, number in tokenizer.get_vocab().items() if text in place_of and _is_text(text, tokenizer)]
    width = min(old.shape[1], theirs.shape[1])
    if len(anchors) <= width:
        raise InputError(
            f"initialisation: procrustes has {len(anchors)} anchors, pieces of text that base and donor share; "
            f"right would be more than the {width} dimensions of the map, or mean_of_pieces"
        )
    source, target = (list(ids) for ids in zip(*sorted(anchors), strict=True))
    new = [place for place, origin in enumerate(origins) if not isinstance(origin, int) and texts[place] in place_of]
    return new, turned(theirs[[place_of[texts[place]] for place in new]], theirs[source], old[target])


def _is_text(piece: str, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a piece is text in its own right: no special token, and of byte-level BPE neither a control byte nor part of a character.

    A byte that stands in half of all Cyrillic letters for one model stands in rare signs for the other.
    """
    text = tokenizer.convert_tokens_to_string([piece])
    return piece not in tokenizer.all_special_tokens and text.isprintable() and "\ufffd" not in text
