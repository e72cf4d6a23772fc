"""Passages to write for, as the stage chooses them."""

import pyarrow as pa
import pyarrow.dataset as pads

from raysberta.schema import DOCUMENT
from raysberta.synthesis.requests import candidates, choose


def chosen_of(rows: list[dict], count: int, max_characters: int, seed: int = 1) -> pa.Table:
    """Of training documents in English, looked at all."""
    documents = pads.dataset(pa.Table.from_pylist([row | {"split": "train"} for row in rows], DOCUMENT))
    return choose(candidates(documents, "en", (), len(rows), max_characters, seed), count)
