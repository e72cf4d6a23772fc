"""Length in tokens of a model's tokenizer, many texts at once. Reads tokenizer.json alone: no model library is loaded in the workers."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from raysberta.errors import InputError

CHARACTERS_PER_TOKEN = 24
"""No text has fewer tokens than its characters by this: longer ones are cut before counting."""


@cache
def tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder, without cutting and padding.

    Raises:
        InputError: there is no tokenizer.json.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{folder}: no tokenizer.json there; right would be a model with a fast tokenizer")
    loaded = Tokenizer.from_file(str(file))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def token_counts(texts: Sequence[str], folder: Path, most: int) -> np.ndarray:
    """Tokens of each text without special ones, int64; exact up to `most`, above it at least `most` + 1."""
    cut = [text[: CHARACTERS_PER_TOKEN * (most + 1)] for text in texts]
    encoded = tokenizer(folder).encode_batch_fast(cut, add_special_tokens=False)
    counts = np.array([len(encoding) for encoding in encoded], dtype=np.int64)
    shortened = np.array([len(text) > CHARACTERS_PER_TOKEN * (most + 1) for text in texts], dtype=bool)
    return np.where(shortened, np.maximum(counts, most + 1), counts)
