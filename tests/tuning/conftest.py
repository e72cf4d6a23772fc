"""Two models that differ in what they know, and held-out data that tells them apart."""

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import torch

from raysberta.artifacts import Artifact, Store
from raysberta.encoder.initialise import table
from raysberta.encoder.load import load_encoder, load_tokenizer, save
from raysberta.encoder.vocabulary import apply, revise
from raysberta.evaluation import benchmark
from raysberta.recipe import Recipe, Vocabulary
from raysberta.schema import DOCUMENT, EXAMPLE, PAIR, text_id


def sentences() -> list[tuple[str, str]]:
    """Russian sentences that share their intent, from the package home-assistant-intents: pairs of neighbours."""
    data = json.loads((files("home_assistant_intents") / "data" / "ru.json").read_text(encoding="utf-8"))
    found: list[tuple[str, str]] = []
    for intent in data["intents"].values():
        texts = [" ".join(re.sub(r"[\[\]()|{}<>_:]+", " ", text).split()) for part in intent["data"] for text in part["sentences"]]
        distinct = list(dict.fromkeys(texts))
        found += list(zip(distinct[::2], distinct[1::2], strict=False))
    return found


def a_pair(number: int, split: str, query: str, positive: str) -> dict[str, object]:
    key = text_id(str(number))
    given = {"pair_id": key, "doc_id": key, "group": key, "split": split, "source": "home", "kind": "heading_section", "task": "retrieval"}
    return {**given, "language": "ru", "query": query, "positive": positive, "negatives": []}


@pytest.fixture(scope="session")
def pairs() -> pa.Table:
    rows = [a_pair(number, ("train", "dev", "train", "test")[number % 4], *pair) for number, pair in enumerate(sentences()[:160])]
    return pa.Table.from_pylist(rows, PAIR)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tuning-test",
            "sources": {"home": {"kind": "files", "path": "unused"}},
            "prefixes": {"retrieval_query": "query: ", "retrieval_document": "passage: "},
            "contrastive": {
                "batch_size": 8,
                "negatives": 1,
                "query_tokens": 24,
                "document_tokens": 24,
                "warmup_steps": 1,
                "learning_rate": 1e-4,
            },
            "tuning": {
                "temperature": {"values": [0.05, 0.02], "steps": 2},
                "merge": {"values": [1.0, 0.0], "default": 0.1},
                "tasks": ["Home"],
            },
            "evaluation": {
                "max_tokens": 24,
                "tasks": {
                    "Home": {
                        "type": "Retrieval",
                        "source": "home",
                        "pair": "heading_section",
                        "language": "ru",
                        "queries": 40,
                        "documents": 80,
                    }
                },
            },
            "resources": {"tuning": {"cpus": 1}},
        }
    )


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, e5_folder: Path, pairs: pa.Table) -> Path:
    """The lower layers of mE5-small with a small vocabulary: enough to match words."""
    folder = tmp_path_factory.mktemp("good")
    model, tokenizer = load_encoder(e5_folder, layers=3), load_tokenizer(e5_folder)
    texts = [prefix + text for prefix in ("query: ", "passage: ") for name in ("query", "positive") for text in pairs[name].to_pylist()]
    revision = revise(tokenizer, [texts], Vocabulary(trim=True))
    apply(model, revision, Vocabulary(trim=True), seed=1)
    save(model, revision.tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def spoiled(tmp_path_factory: pytest.TempPathFactory, good: Path) -> Path:
    """The same, blind: every word has the same embedding, so a text is known by its length alone."""
    folder = tmp_path_factory.mktemp("spoiled")
    model = load_encoder(good)
    with torch.no_grad():
        words = table(model)
        words[:] = words.mean(0)
    save(model, load_tokenizer(good), folder)
    return folder


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, pairs: pa.Table) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark.write(folder, recipe.evaluation.tasks, pads.dataset(pairs), pads.dataset(DOCUMENT.empty_table()), seed=42)
    return folder


@pytest.fixture(scope="session")
def examples(pairs: pa.Table) -> pa.Table:
    train = [row for row in pairs.to_pylist() if row["split"] == "train"]
    others = {"positive_score": 0.9, "negative_scores": [0.5], "negative_ranks": [20]}
    return pa.Table.from_pylist(
        [{**row, **others, "negatives": [train[number - 3]["positive"]]} for number, row in enumerate(train)], EXAMPLE
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def commit_folder(store: Store, stage: str, source: Path, name: str = "model") -> Artifact:
    draft = store.draft(stage, "f")
    with draft.folder(name) as folder:
        for file in source.rglob("*"):
            if file.is_file():
                target = folder / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    return store.commit(draft, stage, "f", {}, {}, 1, 0.0)


@pytest.fixture
def inputs(store: Store, good: Path, spoiled: Path, held_out: Path, examples: pa.Table) -> Mapping[str, Artifact]:
    tables = {"mining": examples.slice(0, 60), "mining_synthetic": examples.slice(60)}
    found = {
        "mlm_merged": commit_folder(store, "mlm_merged", good),
        "contrastive": commit_folder(store, "contrastive", spoiled),
        "benchmark": commit_folder(store, "benchmark", held_out, benchmark.FOLDER),
    }
    for name, rows in tables.items():
        draft = store.draft(name, "f")
        draft.write_table("examples", rows)
        found[name] = store.commit(draft, name, "f", {}, {}, 1, 0.0)
    return found
