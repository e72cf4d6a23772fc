"""Mining with the real encoder through Ray: text that a reader would call a hard negative, kept supplied ones, reproducible output."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from raysberta.artifacts import Artifact, Store
from raysberta.mining import stage
from raysberta.mining.judge import CrossEncoder
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


def committed(store: Store, name: str, table: pa.Table | None = None, folder: Path | None = None, cross: Path | None = None) -> Artifact:
    draft = store.draft(name, "f")
    if table is not None:
        draft.write_table("pairs", table)
    for role, source in (("miner", folder), ("cross_encoder", cross)):
        if source is not None:
            with draft.folder(role) as target:
                for file in source.iterdir():
                    (target / file.name).symlink_to(file)
            draft.metrics.setdefault("roles", {})[role] = role
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
    artifact = mined(store, models, pairs(), keep_vectors=True)
    vectors = {row["key"]: np.array(row["vector"], np.float32) for row in artifact.table("vectors").to_pylist()}
    rows = {row["query"]: row for row in artifact.table("examples").to_pylist()}
    assert len(rows) == 24
    assert rows["кошка"]["negatives"][0] == "данный источником"
    assert rows["кошка"]["negative_ranks"][0] == -1
    assert all(len(row["negatives"]) == 4 for row in rows.values())
    for word, row in rows.items():
        assert vectors[f"query: {word}"] @ vectors[f"passage: {row['positive']}"] == pytest.approx(row["positive_score"], abs=2e-3)
    assert len(vectors) == 48 and "passage: данный источником" not in vectors
    assert all(row["positive"] not in row["negatives"] for row in rows.values())
    assert all(row["positive_score"] > 0.7 for row in rows.values())
    same_kind = sum("животное" in text for word in ANIMALS for text in rows[word]["negatives"])
    assert same_kind > len(ANIMALS) * 4 * 0.6, "negatives near the top are of the same kind far above the half that chance gives"
    metrics = artifact.manifest.metrics
    assert sum(metrics["histograms"]["negative_rank"]["counts"]) == metrics["negatives"] - 1
    assert metrics["embedding"] == {"embedded": 48, "reused": 0, "bad_vectors": 0}
    assert set(metrics["histograms"]) == {"positive_score", "negative_score", "negative_rank", "margin"}
    assert metrics["pools"] == {"words/term_definition": {"texts": 24, "window": [1, 9], "search": {"method": "exact"}}}
    table = artifact.table("examples")  # read now: the next attempt at the same fingerprint removes this one
    again = mined(store, models, pairs().take(list(reversed(range(24)))))
    assert again.manifest.metrics["embedding"] == {"embedded": 0, "reused": 48, "bad_vectors": 0}
    same = repr(again.table("examples").to_pylist()) == repr(table.to_pylist())  # as text: one score is NaN
    assert same, "the order of the input changes nothing"


@pytest.mark.usefixtures("ray_local")
def test_a_set_that_is_not_mined_gets_random_texts_because_the_recipe_says_so(tmp_path: Path, e5_folder: Path) -> None:
    store = Store(str(tmp_path))
    models = committed(store, "models", folder=e5_folder)
    rows = mined(store, models, pairs("given")).table("examples").to_pylist()
    assert all(len(row["negatives"]) == 4 and row["positive"] not in row["negatives"] for row in rows)
    assert {rank for row in rows for rank in row["negative_ranks"]} == {-1}


def test_empty_sides_and_repeated_ids_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = pairs().to_pylist()
    rows += [rows[0], {**rows[1], "pair_id": "empty", "query": "  "}, {**rows[2], "pair_id": "none", "positive": ""}]
    draft = Store(str(tmp_path)).draft("mining", "f")
    assert stage._sound(pa.Table.from_pylist(rows, schema=PAIR), draft).equals(pairs())
    assert draft.dropped == {"duplicate_id": 1, "empty_text": 2}


@pytest.mark.usefixtures("ray_local")
def test_a_real_cross_encoder_estimates_false_negatives_and_limits(tmp_path: Path, e5_folder: Path) -> None:
    folder = tmp_path / "cross"
    tiny_cross_encoder(e5_folder, folder)
    store = Store(str(tmp_path))
    models = committed(store, "models", folder=e5_folder, cross=folder)
    rules = {"cross_encoder": f"path:{folder}", "cross_encoder_for": "limits", "margin_to_positive": 0.0}
    limited = mined(store, models, pairs(), **rules)
    estimated = limited.manifest.metrics["false_negatives"]
    assert estimated["share"] == 0.0, "what scores above the positive was barred"
    assert estimated["examples"] == 24
    assert limited.manifest.metrics["skipped"]["within_the_margin"] > 0


def tiny_cross_encoder(encoder: Path, folder: Path) -> None:
    """A sequence classifier of random weights over the real tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1
    )
    model = BertForSequenceClassification(config)
    model.classifier.weight.data.normal_(0, 5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_the_cross_encoder_scores_as_transformers_does(tmp_path: Path, e5_folder: Path) -> None:
    tiny_cross_encoder(e5_folder, tmp_path)
    judge = CrossEncoder(tmp_path, 24, device="cpu")
    queries, texts = [f"вопрос {n}" for n in range(30)], ["ответ " * (1 + n % 11) for n in range(30)]
    model, tokenizer = BertForSequenceClassification.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        alone = [
            model(**tokenizer(query, text, truncation=True, max_length=24, return_tensors="pt")).logits[0, 0].item()
            for query, text in zip(queries, texts, strict=True)
        ]
    np.testing.assert_allclose(judge.score(queries, texts), alone, atol=1e-4)
    assert judge.score([], []).shape == (0,)


@pytest.mark.usefixtures("ray_local")
def test_nothing_to_mine(tmp_path: Path, e5_folder: Path) -> None:
    store = Store(str(tmp_path))
    models = committed(store, "models", folder=e5_folder)
    assert mined(store, models, PAIR.empty_table()).table("examples").num_rows == 0
