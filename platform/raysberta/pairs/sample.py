"""The few texts that a phase measures a model on: sides of training pairs as the model reads them."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from raysberta.errors import InputError
from raysberta.prefixes import Prefixes
from raysberta.storage.artifacts import Artifact
from raysberta.storage.scan import scan

TRAIN = pads.field("split") == "train"
COLUMNS = ["pair_id", "language", "task", "query", "positive"]
BATCH = 4096
"""Most pairs that are read at once."""


def measured_on(
    inputs: Mapping[str, Artifact], names: Sequence[str], prefixes: Prefixes, most: int, right: str = "other pairs"
) -> list[str]:
    """`chosen_texts` of the inputs of these names; `right` is what the message proposes.

    Raises:
        InputError: there are fewer than two: of a single text nothing is left once the mean is taken away.
    """
    texts = chosen_texts([inputs[name].dataset("pairs") for name in names], prefixes, most)
    if len(texts) < 2:
        there = f"{len(texts)} training text{'' if len(texts) == 1 else 's'}"
        raise InputError(f"pairs: {there} in {', '.join(names)}, 2 or more are needed; right would be {right}")
    return texts


def chosen_texts(pairs: Sequence[pads.Dataset], prefixes: Prefixes, most: int) -> list[str]:
    """Distinct texts of training pairs, each with its prefix: of all languages equally many while they last, queries and positives in turn.

    Which pairs follows from their ids alone, so it depends neither on order nor on layout.

    Args:
        pairs: Tables of pairs.
        prefixes: What the model reads before a text.
        most: So many texts, or all where there are fewer; memory holds as many pairs of each language.
    """
    languages = [rows.to_pylist() for _, rows in sorted(_lowest(pairs, most).items())]
    found: dict[str, None] = {}
    for turn in (0, 1):
        for number in range(most):
            for row in (rows[number] for rows in languages if number < len(rows)):
                side, column = ("document", "positive") if (number + turn) % 2 else ("query", "query")
                found[prefixes.of(row["task"], side) + row[column]] = None  # type: ignore[arg-type]
    return list(found)[:most]


def _lowest(pairs: Sequence[pads.Dataset], most: int) -> dict[str, pa.Table]:
    """By language up to `most` training pairs, in the order of the latter halves of their ids: where limits kept the pairs of lowest ids
    of a kind, those are still evenly spread.
    """
    found: dict[str, pa.Table] = {}
    for batch in (batch for table in pairs for batch in scan(table, COLUMNS, TRAIN, BATCH)):
        rows = pa.Table.from_batches([batch])
        rows = rows.append_column("order", pc.binary_join_element_wise(pc.utf8_slice_codeunits(rows["pair_id"], 8), rows["pair_id"], ""))
        for language in rows["language"].unique().to_pylist():
            more = rows.filter(pc.equal(rows["language"], language))
            seen = pa.concat_tables([found[language], more]) if language in found else more
            found[language] = seen.take(pc.select_k_unstable(seen, min(most, len(seen)), [("order", "ascending")]))
    return {language: rows.sort_by("order") for language, rows in found.items()}
