"""Length in tokens of a model's tokenizer, many texts at once. Reads tokenizer.json alone: no model library is loaded, no weights come."""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from raysberta.errors import InputError
from raysberta.storage.artifacts import Artifact

FILE = "model/tokenizer.json"
"""In the artifact of a model."""
CHARACTERS_PER_TOKEN = 24
"""No text has fewer tokens than its characters by this: longer ones are cut before counting."""
BATCH = 1024
SPECIAL = 8
"""Tokens that a post-processor or a pre-tokenizer puts around a text, at most."""


def counted_by(inputs: Mapping[str, Artifact], name: str | None, key: str) -> Artifact | None:
    """The model whose tokenizer counts, or None where none is asked for.

    Args:
        inputs: Of the stage.
        name: The model's, as the recipe gives it.
        key: The recipe's key, for the message.

    Raises:
        InputError: the model has no tokenizer.json.
    """
    if name is None:
        return None
    model = inputs[name]
    if all(file.path != FILE for file in model.manifest.files):
        raise InputError(f"{key}: {name} has no tokenizer.json; right would be a model with a fast tokenizer")
    return model


@cache
def tokenizer(file: Path) -> Tokenizer:
    """The tokenizer that a tokenizer.json describes, without cutting and padding.

    Raises:
        InputError: it is not there.
    """
    if not file.is_file():
        raise InputError(f"{file}: there is no such tokenizer.json; right would be that of a model with a fast tokenizer")
    loaded = Tokenizer.from_file(str(file))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def surely_within(text: str, most: int) -> bool:
    """Whether a text has at most so many tokens, special ones with it, without cutting it: each of the others has a byte of its own.

    A normaliser may take away or compose; one that takes compatibility characters apart (NFKC) finds none.
    """
    return (
        len(text) + SPECIAL <= most
        and len(text.encode("utf-8", "surrogatepass")) + SPECIAL <= most
        and unicodedata.is_normalized("NFKC", text)
    )


def token_counts(texts: Sequence[str], file: Path, most: int | None = None, special: bool = False) -> np.ndarray:
    """Tokens of each text, int64 [n].

    Args:
        texts: Any number of them; they are counted some at a time.
        file: A tokenizer.json.
        most: Counts are exact up to it, above it at least one more; exact whatever they are where None.
        special: Whether to count the tokens that the tokenizer's post-processor adds to a text.
    """
    longest = None if most is None else CHARACTERS_PER_TOKEN * (most + 1)
    counts: list[int] = []
    for start in range(0, len(texts), BATCH):
        batch = [text[:longest] for text in texts[start : start + BATCH]]
        counts.extend(len(encoding) for encoding in tokenizer(file).encode_batch_fast(batch, add_special_tokens=special))
    found = np.array(counts, dtype=np.int64)
    if most is None or longest is None:
        return found
    shortened = np.array([len(text) > longest for text in texts], dtype=bool)
    return np.where(shortened, np.maximum(found, most + 1), found)
