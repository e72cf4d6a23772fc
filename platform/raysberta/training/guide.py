"""A second opinion on negatives: the mining encoder's vectors of the examples' texts (GISTEmbed, arXiv 2402.16829)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.errors import InputError
from raysberta.mining.facts import ExamplesFacts
from raysberta.prefixes import Prefixes
from raysberta.storage.artifacts import Artifact


@dataclass(frozen=True)
class Guide:
    """Vectors by text."""

    prefixes: Prefixes
    """What stands before a text in `rows`: the mining encoder's."""
    rows: Mapping[str, int]
    """A text with its prefix to its row."""
    vectors: np.ndarray
    """float16 [texts, H], L2-normalised."""


def guide_of(artifacts: Sequence[Artifact]) -> Guide:
    """The guide of examples: the encoder that mined their negatives. Examples without mined negatives have none.

    Raises:
        InputError: none has vectors, one was mined without keeping them, or several encoders mined, whose vectors cannot be compared.
    """
    told = {artifact.manifest.id: artifact.told(ExamplesFacts) for artifact in artifacts}
    mined = [artifact for artifact in artifacts if told[artifact.manifest.id].encoder]
    bare = [artifact.manifest.id for artifact in mined if artifact.rows("examples") and not artifact.rows("vectors")]
    if bare or not mined:
        raise InputError(
            f"guide: {', '.join(bare) or 'the examples'} keep no vectors; right would be mine: {{keep_vectors: true}} in the examples"
        )
    encoders = {told[artifact.manifest.id].encoder for artifact in mined}
    if len(encoders) > 1:
        raise InputError(f"guide: the examples were mined by {' and '.join(sorted(encoders))}; right would be one encoder, or guide: false")
    prefixes = Prefixes(**told[mined[0].manifest.id].prefixes)
    return make_guide([artifact.table("vectors") for artifact in mined], prefixes)


def make_guide(tables: Sequence[pa.Table], prefixes: Prefixes) -> Guide:
    """Read tables of vectors.

    Args:
        tables: Columns `key` and `vector`; empty where nothing was mined.
        prefixes: What stands before the texts in `key`.
    """
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return Guide(prefixes, {}, np.zeros((0, 1), np.float16))
    table = pa.concat_tables(filled).combine_chunks()
    vectors = pc.list_flatten(table["vector"]).to_numpy().reshape(table.num_rows, -1)
    return Guide(prefixes, {key: row for row, key in enumerate(table["key"].to_pylist())}, vectors)
