"""The stage through a real Ray: documents in several files and a data set to one sorted table, the same however the input lies."""

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.artifacts import Artifact, Draft, Store
from raysberta.errors import InputError
from raysberta.pairs import stage
from raysberta.recipe import Recipe
from raysberta.schema import DOCUMENT, PAIR, REJECTED_PAIR, split_of, text_id

pytestmark = pytest.mark.usefixtures("ray_local")


def documents() -> list[dict]:
    rows = []
    for number in range(120):
        title, split = f"слово{number}", split_of(f"слово{number}", 0.1, 0.1)
        usage = [{"heading": "usage", "text": f"В этом примере стоит слово{number}, как и положено."}]
        shared = {"group": title, "split": split, "language": "ru"}
        text = f"Определение под номером {number}, довольно ясное."
        rows.append(
            {**shared, "doc_id": text_id("d", title), "source": "dictionary", "title": title, "text": text, "label": "", "sections": usage}
        )
        rows.append(
            {
                **shared,
                "doc_id": text_id("i", title),
                "source": "intents",
                "title": "",
                "text": f"включи лампу {number}",
                "label": f"on{number % 3}",
            }
        )
    return rows


def corpus(store: Store, rows: list[dict], files: int) -> Artifact:
    draft = store.draft("corpus", f"{files}")
    fs, path = draft.path("documents")
    table = pa.Table.from_pylist(rows, DOCUMENT)
    size = -(-table.num_rows // files)
    for number in range(files):
        pq.write_table(table.slice(number * size, size), f"{path}/part-{number:05}.parquet", filesystem=fs)
    draft.rows_out = table.num_rows
    return store.commit(draft, "corpus", f"{files}", {}, {}, 42, time.time())


def recipe(folder: Path, **pairs: object) -> Recipe:
    with (folder / "given.jsonl").open("w") as stream:
        for number in range(10):
            stream.write(json.dumps({"query": f"Кто написал книгу номер {number}?", "positive": f"Её написал автор {number}."}) + "\n")
        stream.write(json.dumps({"query": f"слово{held_out()}", "positive": "То, что встречается и в проверке."}) + "\n")
    sources = {
        "dictionary": {"kind": "wiki_ru_wordnet"},
        "intents": {"kind": "home_assistant_intents"},
        "given": {"kind": "dataset", "path": str(folder / "*.jsonl"), "task": "retrieval"},
    }
    return Recipe.model_validate({"name": "t", "sources": sources, "pairs": pairs})


def held_out() -> int:
    return next(number for number in range(120) if split_of(f"слово{number}", 0.1, 0.1) == "test")


def ran(store: Store, settings: Recipe, files: int = 1) -> tuple[Draft, Artifact]:
    draft = store.draft("pairs", f"{files}")
    stage.run(settings, {"corpus": corpus(store, documents(), files)}, draft)
    return draft, store.commit(draft, "pairs", f"{files}", {}, {}, 42, time.time())


def test_pairs_of_documents_labels_and_data_sets(tmp_path: Path):
    draft, artifact = ran(Store(str(tmp_path / "store")), recipe(tmp_path, limits={"dictionary/definition_usage": 20}))
    pairs, rejected = artifact.table("pairs"), artifact.table("rejected")
    assert pairs.schema.equals(PAIR)
    assert rejected.schema.equals(REJECTED_PAIR)
    ids = pairs["pair_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids) == draft.rows_out
    metrics = draft.metrics["pairs"]
    assert metrics["dictionary/term_definition"]["train"] > 80
    assert metrics["dictionary/definition_usage"]["train"] == 20
    assert metrics["intents/same_label"]["train"] > 80
    assert metrics["given/dataset"] == {"train": 10, "dev": 0, "test": 0}
    assert sum(sum(split.values()) for split in metrics.values()) == draft.rows_out
    assert rejected.filter(pa.compute.equal(rejected["source"], "given"))["reason"].to_pylist() == ["in_evaluation"]
    assert draft.rows_in == draft.rows_out + sum(draft.dropped.values())
    train, test = (pairs.filter(pa.compute.equal(pairs["split"], split)) for split in ("train", "test"))
    assert not set(train["query"].to_pylist()) & set(test["query"].to_pylist())


def test_the_layout_of_the_input_does_not_matter(tmp_path: Path):
    store, settings = Store(str(tmp_path / "store")), recipe(tmp_path)
    assert ran(store, settings, 1)[1].table("pairs").equals(ran(store, settings, 5)[1].table("pairs"))


def test_pairs_of_data_sets_that_repeat_an_evaluation_set_go(tmp_path: Path):
    sets = tmp_path / "evaluation.parquet"
    texts = ["кто написал книгу номер 3", "Её написал автор 7!", "совсем другой вопрос о книгах"]
    pq.write_table(pa.table({"item": ["Books#a", "Books#b", "Books#c"], "text": texts}), sets)
    settings = recipe(tmp_path)
    settings = settings.model_copy(update={"corpus": settings.corpus.model_copy(update={"evaluation_sets": (str(sets),)})})
    draft, artifact = ran(Store(str(tmp_path / "store")), settings)
    assert draft.metrics["pairs"]["given/dataset"]["train"] == 8
    rejected = {row["pair_id"]: row for row in artifact.table("rejected").to_pylist()}
    joined = {rejected[row["pair_id"]]["query"]: row["held_out"] for row in artifact.table("matches").to_pylist()}
    assert joined == {"Кто написал книгу номер 3?": "Books#a", "Кто написал книгу номер 7?": "Books#b"}
    assert {rejected[row["pair_id"]]["reason"] for row in artifact.table("matches").to_pylist()} == {"in_evaluation"}


def test_bad_rows_end_the_stage_with_their_line(tmp_path: Path):
    settings = recipe(tmp_path)
    (tmp_path / "worse.jsonl").write_text('{"query": "x"}\n')
    with pytest.raises(InputError, match=r"^sources\.given\.positive_field: .*worse\.jsonl line 1 has no 'positive'; there are query$"):
        ran(Store(str(tmp_path / "store")), settings)


def test_nothing_to_train_on_is_bad_input(tmp_path: Path):
    store = Store(str(tmp_path / "store"))
    settings = Recipe.model_validate({"name": "t", "sources": {"dictionary": {"kind": "wiki_ru_wordnet"}}})
    rows = [{**row, "split": "test"} for row in documents()]
    with pytest.raises(InputError, match="no training pair"):
        stage.run(settings, {"corpus": corpus(store, rows, 1)}, store.draft("pairs", "f"))
