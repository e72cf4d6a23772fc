"""A small model of an encoder, a connector and a decoder, and texts for both."""

from pathlib import Path

import pyarrow as pa
import pytest

from decoders import generator  # noqa: F401 - a fixture
from raysberta.composing.compose import composed, write
from raysberta.composing.settings import Compose
from raysberta.models.load import load_tokenizer
from raysberta.prefixes import NONE
from raysberta.schema import EXAMPLE
from raysberta.training.arrays import Tokens, tokens_of
from raysberta.training.examples import Examples, prepare_tables
from raysberta.training.survey import Held, distinct, pieces, reading_of
from small_models import described, english, russian, small_folder, unigram  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def joined(small_folder: Path, generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """An encoder, a connector with its token, and a decoder that sees both ways."""
    described(small_folder)
    settings = Compose(kind="compose", encoder="base", decoder="llm", connector={}, attention="bidirectional")
    folder = tmp_path_factory.mktemp("joined")
    write(composed(settings, small_folder, generator, seed=7), folder, None)
    return folder


@pytest.fixture(scope="session")
def table(english: list[str]) -> pa.Table:  # noqa: F811
    """Sixty pairs of real sentences: a query, and a longer text that goes with it."""
    texts = list(dict.fromkeys(text for text in english if 3 < len(text.split()) < 9))[:120]
    made = []
    for number, (query, positive) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        row = {
            "source": "intents",
            "kind": "same",
            "task": "retrieval",
            "query": query,
            "positive": f"{query}, {positive}",
            "negatives": [],
        }
        row |= {"pair_id": f"{number:016x}", "doc_id": f"d{number}", "group": f"g{number // 2}", "split": "train", "language": "en"}
        made.append(row | {"positive_score": None, "negative_scores": [], "negative_ranks": []})
    return pa.Table.from_pylist(made, schema=EXAMPLE)


@pytest.fixture(scope="session")
def examples(table: pa.Table, joined: Path) -> Examples:
    """By the encoder's tokens."""
    return prepare_tables([table], load_tokenizer(joined), NONE, 24, 24, 0)


@pytest.fixture(scope="session")
def written(table: pa.Table, generator: Path) -> Tokens:  # noqa: F811
    """The same sequences by the decoder's tokens."""
    unit, reading = Held(table), reading_of({"query": 40, "document": 40}, NONE)
    keys = distinct(unit, reading)
    found = {}
    for piece in pieces(unit, reading, keys, load_tokenizer(generator)):
        ends = piece.lengths.cumsum()
        found |= {int(key): piece.values[end - length : end] for key, end, length in zip(piece.keys, ends, piece.lengths, strict=True)}
    return tokens_of(found[int(key)] for key in keys)
