"""Real words with their descriptions as pairs, and what an artifact of examples says of itself."""

from collections.abc import Callable

import pyarrow as pa

from raysberta.mining.facts import ExamplesFacts
from raysberta.schema import PAIR, text_id
from raysberta.storage.artifacts import Artifact

ANIMALS = ["кошка", "собака", "лошадь", "корова", "овца", "коза", "волк", "лиса", "медведь", "заяц", "мышь", "крыса"]
TOOLS = ["молоток", "пила", "топор", "отвёртка", "рубанок", "стамеска", "дрель", "клещи", "напильник", "долото", "лопата", "грабли"]

Commit = Callable[..., Artifact]
Made = Callable[..., Artifact]


def pairs_of_words() -> pa.Table:
    """24 pairs of one source and kind; one supplies a negative."""
    rows = []
    for kind, some in (("животное", ANIMALS), ("инструмент", TOOLS)):
        for word in some:
            positive = f"{word} — это {kind}, о котором знает каждый ребёнок"
            rows.append(
                {
                    "pair_id": text_id("words", word), "doc_id": text_id(word), "group": word, "split": "train", "source": "words",
                    "kind": "term_definition", "task": "retrieval", "language": "ru", "query": word, "positive": positive,
                    "negatives": ["данный источником"] if word == "кошка" else [],
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PAIR)


def told(artifact: Artifact) -> ExamplesFacts:
    return artifact.told(ExamplesFacts)
