"""A small real encoder and real sentences."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from variants import contrastive_settings, mlm_settings

from raysberta.models.describe import Description, write_description
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.prefixes import Prefixes
from raysberta.schema import EXAMPLE
from raysberta.training.arrays import Tokens, ragged
from raysberta.training.examples import Examples, prepare_tables
from raysberta.training.settings import Contrastive, Mlm
from raysberta.vocabulary.revise import apply, revise
from raysberta.vocabulary.settings import Vocabulary

THINGS = [
    "собака",
    "кошка",
    "дом",
    "река",
    "книга",
    "мост",
    "поезд",
    "яблоко",
    "дерево",
    "окно",
    "snow",
    "road",
    "bread",
    "stone",
    "lamp",
    "ship",
    "chair",
    "garden",
    "music",
    "letter",
]
PLACES = ["в саду", "у реки", "за домом", "на столе", "near the house", "in the town", "under the bridge", "by the sea"]


@pytest.fixture(autouse=True)
def one_thread():
    """Steps are compared bit for bit, and other tests run beside these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _numbers(
    rows: list[tuple[int, int, int]],
    negatives: list[list[int]] | None = None,
    friends: dict[int, list[int]] | None = None,
    groups: dict[int, list[int]] | None = None,
) -> Examples:
    source, query, positive = (np.asarray(column, np.int32) for column in zip(*rows, strict=True))
    nothing: list[list[int]] = [[] for _ in rows]
    texts = 1 + max(int(query.max()), int(positive.max()), *(max(row, default=0) for row in negatives or nothing))
    return Examples(
        tokens=Tokens(
            (np.zeros(texts, np.int32),),
            np.zeros(texts, np.int32),
            np.arange(texts),
            np.ones(texts, np.int32),
            0,
            np.zeros(texts, np.int32),
        ),
        raw=np.arange(texts, dtype=np.int32),
        sources=tuple(f"s{number}/k" for number in range(source.max() + 1)),
        source=source,
        query=query,
        positive=positive,
        negatives=ragged(negatives or nothing),
        friends=ragged((friends or {}).get(text, []) for text in range(texts)),
        group=np.arange(len(rows), dtype=np.int32),
        groups=ragged(sorted((groups or {}).get(text, [])) for text in range(texts)),
        ids=np.asarray([f"{number}".encode() for number in range(len(rows))]),
        positive_score=np.full(len(rows), 0.9, np.float32),
        negative_score=np.linspace(0.1, 0.5, sum(map(len, negatives or nothing)), dtype=np.float32),
    )


@pytest.fixture(scope="session")
def numbers():
    """Makes examples of rows (source, query, positive) whose texts are numbers; row n is of group n, `friends` and `groups` of texts."""
    return _numbers


@pytest.fixture(scope="session")
def table() -> pa.Table:
    """Examples of three sources: 160 questions, 80 paraphrases, 3 of a third."""
    rows = []
    for number, (thing, place) in enumerate((thing, place) for thing in THINGS for place in PLACES):
        other = THINGS[(THINGS.index(thing) + 3) % len(THINGS)]
        rows.append(("questions", "qa", "retrieval", f"где {thing} {place}?", f"{thing} {place}", [f"{other} {place}", f"{other}"]))
        if number % 2:
            rows.append(("twins", "same", "paraphrase", f"{place} {thing}", f"{thing}, {place}", []))
    rows += [("few", "same", "topic", f"{number} {number}", f"число {number}", [f"число {number + 10}"]) for number in range(3)]
    names = ("source", "kind", "task", "query", "positive", "negatives")
    made = [dict(zip(names, row, strict=True)) for row in rows]
    for number, row in enumerate(made):
        row |= {
            "pair_id": f"{number:016x}",
            "doc_id": f"doc{number // 4}",
            "group": f"group{number // 4}",
            "split": "train",
            "language": "ru",
        }
        scores = [0.5 + 0.01 * (number % 7) - 0.2 * place for place in range(len(row["negatives"]))]
        row |= {"positive_score": 0.8 + number % 5 / 50, "negative_scores": scores, "negative_ranks": [20] * len(row["negatives"])}
    return pa.Table.from_pylist(made, schema=EXAMPLE)


@pytest.fixture(scope="session")
def tiny(e5_folder: Path, table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two layers of multilingual-e5-small with the pieces that the sentences use."""
    folder = tmp_path_factory.mktemp("tiny")
    model, tokenizer = load_encoder(e5_folder, layers=2), load_tokenizer(e5_folder)
    texts = [*table["query"].to_pylist(), *table["positive"].to_pylist(), *Prefixes().named_prompts().values()]
    settings = Vocabulary(kind="vocabulary", from_="e5", trim=True)
    revision = revise(tokenizer, [texts], settings)
    apply(model, revision, settings, seed=0)
    save(model, revision.tokenizer, folder)
    write_description(folder, Description("mean", Prefixes(), 512))
    return folder


@pytest.fixture(scope="session")
def examples(table: pa.Table, tiny: Path) -> Examples:
    """The sentences, ready to train on."""
    return prepare_tables([table], load_tokenizer(tiny), Prefixes(), 16, 16, 2)


SHORT = {"learning_rate": 5e-4, "warmup_steps": 2, "precision": "fp32", "chunk_tokens": 96, "checkpoint_every": 3}


@pytest.fixture(scope="session")
def contrastive() -> Contrastive:
    """Settings for a run of a few steps."""
    return contrastive_settings(batch_size=8, device_batches=2, negatives=2, temperature=0.05, **SHORT)


@pytest.fixture(scope="session")
def mlm() -> Mlm:
    """Settings for a run of a few steps."""
    return mlm_settings(batch_size=32, max_tokens=16, **SHORT)
