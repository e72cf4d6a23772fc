"""Two models that differ in what they know, and held-out data that tells them apart."""

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import torch
from pydantic import TypeAdapter
from searches import HOW, TASKS, MakeTrials, MakeWork, commit_folder

from raysberta.evaluation import task_folder
from raysberta.evaluation.facts import TasksFacts
from raysberta.graph import TasksRef
from raysberta.models.describe import describe, write_description
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.schema import DOCUMENT, EXAMPLE, PAIR, text_id
from raysberta.storage.artifacts import Artifact, Store
from raysberta.tuning.node import SearchTrials
from raysberta.tuning.trials import Trials
from raysberta.vocabulary.initialise import table
from raysberta.vocabulary.revise import apply, revise
from raysberta.vocabulary.settings import Vocabulary
from raysberta.work import Work
from small_models import english, russian, small_folder, unigram  # noqa: F401 - fixtures


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
def good(tmp_path_factory: pytest.TempPathFactory, e5_folder: Path, pairs: pa.Table) -> Path:
    """The lower layers of mE5-small with a small vocabulary: enough to match words."""
    folder = tmp_path_factory.mktemp("good")
    model, tokenizer = load_encoder(e5_folder, layers=3), load_tokenizer(e5_folder)
    texts = [prefix + text for prefix in ("query: ", "passage: ") for name in ("query", "positive") for text in pairs[name].to_pylist()]
    trim = Vocabulary.model_validate({"kind": "vocabulary", "from": "e5", "trim": True})
    revision = revise(tokenizer, [texts], trim)
    apply(model, revision, trim, seed=1)
    save(model, revision.tokenizer, folder)
    write_description(folder, describe(e5_folder))
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
    write_description(folder, describe(good))
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


@pytest.fixture
def inputs(store: Store, good: Path, spoiled: Path, pairs: pa.Table, examples: pa.Table, tmp_path: Path) -> Mapping[str, Artifact]:
    held_out = tmp_path / "held-out"
    index = task_folder.write(held_out, TASKS, pads.dataset(pairs), pads.dataset(DOCUMENT.empty_table()), seed=42)
    found = {
        "base": commit_folder(store, "base", good),
        "spoiled": commit_folder(store, "spoiled", spoiled),
        "tasks": commit_folder(store, "tasks", held_out, task_folder.FOLDER, TasksFacts(tasks=index.tasks)),
    }
    tables = {"mined": ("examples", examples.slice(0, 60)), "written": ("examples", examples.slice(60)), "natural": ("pairs", pairs)}
    for kind, (name, rows) in tables.items():
        draft = store.draft(kind, "f")
        draft.write_table(name, rows)
        found[kind] = store.commit(draft, kind, "f", {}, {}, 1, 0.0)
    return found


@pytest.fixture
def work(store: Store, inputs: Mapping[str, Artifact], tmp_path: Path) -> MakeWork:
    """A search to run: of the phase, with what it tries."""

    def make(phase: Mapping[str, Any], over: Mapping[str, Any], seed: int = 42, **search: Any) -> Work[SearchTrials]:
        asked = TypeAdapter(SearchTrials).validate_python(
            {"phase": {**phase, "search": {"over": over, "tasks": ("Home",), **search}}, "tasks": TasksRef("tasks"), "how": HOW}
        )
        return Work(asked, inputs, store.draft("search", text_id(repr(asked))), seed=seed, node=f"search_{tmp_path.name}")

    return make


@pytest.fixture
def trials(work: MakeWork) -> MakeTrials:
    return lambda *phase, **search: Trials(work(*phase, **search), ("Home",))
