"""Embedding rows of a changed vocabulary: old rows bit for bit, new rows from old ones."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.head import MlmHead

Initialisation = Literal["mean_of_pieces", "gaussian", "focus", "wechsel", "alike", "translated", "procrustes"]
Origin = int | tuple[int, ...]
"""Of a piece: the old id that it had, or the old ids that spell it (empty where none do)."""
Found = tuple[list[int], Tensor]
"""Ids of new pieces, and the rows [ids, H] that an initialisation found for them."""


def rows(
    old: Tensor, origins: Sequence[Origin], how: Initialisation, seed: int, found: Mapping[Initialisation, Found] | None = None
) -> Tensor:
    """The rows [len(origins), H] of a new vocabulary, in the dtype of `old` [V, H].

    Args:
        old: The rows there were.
        origins: Where each piece comes from.
        how: New rows are drawn from N(mean, std) of the kept rows, per dimension; or they are what `how` found, and where it found
            nothing the mean of the old rows that spell the piece (drawn where none do).
        seed: Of the draws.
        found: What `focus`, `wechsel` (for `alike` too), `translated` and `donated` gave.
    """
    kept = [origin for origin in origins if isinstance(origin, int)]
    new = torch.empty(len(origins), old.shape[1], dtype=old.dtype)
    new[[place for place, origin in enumerate(origins) if isinstance(origin, int)]] = old[kept]
    mean, std = old[kept].mean(0), old[kept].std(0)
    generator = torch.Generator().manual_seed(seed)
    for place, origin in enumerate(origins):
        if isinstance(origin, int):
            continue
        drawn = mean + std * torch.randn(old.shape[1], generator=generator, dtype=old.dtype)
        new[place] = old[list(origin)].mean(0) if origin and how != "gaussian" else drawn
    if found and how in found:
        places, better = found[how]
        new[places] = better.to(old.dtype)
    return new


def resize(head: MlmHead, origins: Sequence[Origin], seed: int) -> None:
    """Fit a head to a changed vocabulary: an old piece keeps its bias, a new one gets the mean of those of the pieces that spell it."""
    head.bias = nn.Parameter(rows(head.bias.detach()[:, None], origins, "mean_of_pieces", seed)[:, 0])


def table(model: PreTrainedModel) -> Tensor:
    """The word embeddings [V, H] of a model, detached."""
    return cast(nn.Embedding, model.get_input_embeddings()).weight.detach()


def install(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, words: Tensor) -> None:
    """Give the model the rows [len(tokenizer) or more, H] as its word embeddings, and its config the tokenizer's ids.

    Raises:
        InputError: the model counts positions from the padding id, and that would move.
    """
    config = model.config
    if config.model_type in ("roberta", "xlm-roberta", "camembert") and config.pad_token_id != tokenizer.pad_token_id:
        raise InputError(
            f"padding would move from id {config.pad_token_id} to {tokenizer.pad_token_id}, "
            f"and {config.model_type} counts positions from it; right would be a tokenizer whose special tokens come first"
        )
    model.set_input_embeddings(nn.Embedding.from_pretrained(words, freeze=False, padding_idx=tokenizer.pad_token_id))
    config.vocab_size = words.shape[0]
    for name in ("pad", "bos", "eos", "cls", "sep", "mask"):
        if getattr(config, f"{name}_token_id", None) is not None:
            setattr(config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
