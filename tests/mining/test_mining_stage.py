"""Mining with the real encoder through Ray: text that a reader would call a hard negative, kept supplied ones, reproducible output."""

import time
from pathlib import Path

import pyarrow as pa
import pytest

from raysberta.artifacts import Artifact, Store
from raysberta.mining import stage
from raysberta.recipe import Recipe
from raysberta.schema import PAIR, text_id

ANIMALS = ["кошка", "собака", "лошадь", "корова", "овца", "коза", "волк", "лиса", "медведь", "заяц", "мышь", "крыса"]
TOOLS = ["молоток", "пила", "топор", "отвёртка", "рубанок", "стамеска", "дрель", "клещи", "напильник", "долото", "лопата", "грабли"]


def pairs(source: str = "words") -> pa.Table:
    rows = []
    for kind, words in (("животное", ANIMALS), ("инструмент", TOOLS)):
        for word in words:
            positive = f"{word} — это {kind}, о котором знает каждый ребёнок"
            rows.append(
                {
                    "pair_id": text_id(source, word), "doc_id": text_id(word), "group": word, "split": "train", "source": source,
                    "kind": "term_definition", "task": "retrieval", "language": "ru", "query": word, "positive": positive,
                    "negatives": ["данный источником"] if word == "кошка" else [],
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PAIR)


def committed(store: Store, name: str, table: pa.Table | None = None, folder: Path | None = None) -> Artifact:
    draft = store.draft(name, "f")
    if table is not None:
        draft.write_table("pairs", table)
    if folder is not None:
        with draft.folder("miner") as target:
            for file in folder.iterdir():
                (target / file.name).symlink_to(file)
        draft.metrics["roles"] = {"miner": "miner", "encoder": "miner"}
    return store.commit(draft, name, "f", {}, {}, 42, time.time())


def recipe(**mining: object) -> Recipe:
    sources = {"words": {"kind": "wiki_ru_wordnet"}, "given": {"kind": "dataset", "path": "none", "task": "retrieval", "mine": False}}
    settings = {"rank_from": 1, "rank_to": 9, "negatives": 4, "max_tokens": 32, **mining}
    return Recipe.model_validate({"name": "t", "sources": sources, "mining": settings})


def mined(store: Store, models: Artifact, table: pa.Table, **settings: object) -> Artifact:
    inputs = {"models": models, "pairs": committed(store, "pairs", table)}
    draft = store.draft("mining", "f")
    stage.run(recipe(**settings), inputs, draft)
    return store.commit(draft, "mining", "f", {}, {}, 42, time.time())


@pytest.mark.usefixtures("ray_local")
def test_hard_negatives_of_real_words(tmp_path: Path, e5_folder: Path) -> None:
    store = Store(str(tmp_path))
    models = committed(store, "models", folder=e5_folder)
    artifact = mined(store, models, pairs())
    rows = {row["query"]: row for row in artifact.table("examples").to_pylist()}
    assert len(rows) == 24
    assert rows["кошка"]["negatives"][0] == "данный источником"
    assert rows["кошка"]["negative_ranks"][0] == -1
    assert all(len(row["negatives"]) == 4 for row in rows.values())
    assert all(row["positive"] not in row["negatives"] for row in rows.values())
    assert all(row["positive_score"] > 0.7 for row in rows.values())
    same_kind = sum("животное" in text for word in ANIMALS for text in rows[word]["negatives"])
    assert same_kind > len(ANIMALS) * 4 * 0.6, "negatives near the top are of the same kind far above the half that chance gives"
    metrics = artifact.manifest.metrics
    assert sum(metrics["histograms"]["negative_rank"]["counts"]) == metrics["negatives"] - 1
    assert metrics["pools"] == {"words/term_definition": {"texts": 24, "window": [1, 9]}}
    table = artifact.table("examples")  # read now: the next attempt at the same fingerprint removes this one
    again = mined(store, models, pairs().take(list(reversed(range(24)))))
    assert again.table("examples").equals(table), "the order of the input changes nothing"


@pytest.mark.usefixtures("ray_local")
def test_a_set_that_is_not_mined_gets_random_texts_because_the_recipe_says_so(tmp_path: Path, e5_folder: Path) -> None:
    store = Store(str(tmp_path))
    models = committed(store, "models", folder=e5_folder)
    rows = mined(store, models, pairs("given")).table("examples").to_pylist()
    assert all(len(row["negatives"]) == 4 and row["positive"] not in row["negatives"] for row in rows)
    assert {rank for row in rows for rank in row["negative_ranks"]} == {-1}


@pytest.mark.usefixtures("ray_local")
def test_nothing_to_mine(tmp_path: Path, e5_folder: Path) -> None:
    store = Store(str(tmp_path))
    models = committed(store, "models", folder=e5_folder)
    assert mined(store, models, PAIR.empty_table()).table("examples").num_rows == 0
