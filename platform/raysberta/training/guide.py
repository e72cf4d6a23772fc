"""A second opinion on negatives: the mining encoder's vectors of the examples' texts (GISTEmbed, arXiv 2402.16829)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.prefixes import Prefixes


@dataclass(frozen=True)
class Guide:
    """Vectors by text."""

    prefixes: Prefixes
    """What stands before a text in `rows`: the mining encoder's."""
    rows: Mapping[str, int]
    """A text with its prefix to its row."""
    vectors: np.ndarray
    """float16 [texts, H], L2-normalised."""


def make_guide(tables: Sequence[pa.Table], prefixes: Prefixes) -> Guide:
    """Read the tables `vectors` of the mining stages.

    Args:
        tables: Columns `key` and `vector`; empty where a stage mined nothing.
        prefixes: Of `mining`.
    """
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return Guide(prefixes, {}, np.zeros((0, 1), np.float16))
    table = pa.concat_tables(filled).combine_chunks()
    vectors = pc.list_flatten(table["vector"]).to_numpy().reshape(table.num_rows, -1)
    return Guide(prefixes, {key: row for row, key in enumerate(table["key"].to_pylist())}, vectors)
