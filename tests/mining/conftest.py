"""Real words with their descriptions as pairs, and models as artifacts."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mined_words import Commit, Made, pairs_of_words
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from raysberta.mining import stage
from raysberta.mining.settings import Examples
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work, Workers


@pytest.fixture(scope="session")
def words() -> pa.Table:
    """24 pairs of one source and kind; one supplies a negative."""
    return pairs_of_words()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A folder of artifacts."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def commit(store: Store) -> Commit:
    """Commit pairs, in one file or some, or a folder as a model."""

    def committed(name: str, pairs: pa.Table | None = None, model: Path | None = None, files: int = 1) -> Artifact:
        draft = store.draft(name, "f")
        if pairs is not None:
            fs, folder = draft.path("pairs")
            step = -(-len(pairs) // files) or 1
            for start in range(0, max(1, len(pairs)), step):
                some = pairs.slice(start, step)
                pq.write_table(some, f"{folder}/part-{start:05d}.parquet", filesystem=fs, row_group_size=max(1, step // 2))
        if model is not None:
            with draft.folder("model") as target:
                for file in model.iterdir():
                    (target / file.name).symlink_to(file)
        return store.commit(draft, name, "f", {}, {}, 42, time.time())

    return committed


@pytest.fixture
def make(store: Store) -> Made:
    """Make an artifact of examples from settings and what they name."""

    def made(settings: dict, workers: Workers | None = None, name: str = "examples", **inputs: Artifact) -> Artifact:
        parsed = Examples.model_validate({"negatives": 4, **settings})
        draft, started = store.draft(name, "f"), time.time()
        facts = stage.run(Work(parsed, inputs, draft, workers or Workers(), 42, "mined"))
        return store.commit(draft, name, "f", {}, {}, 42, started, facts)

    return made


@pytest.fixture(scope="session")
def cross_folder(e5_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence classifier of random weights over the real tokenizer."""
    folder = tmp_path_factory.mktemp("cross")
    tokenizer = AutoTokenizer.from_pretrained(e5_folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1
    )
    model = BertForSequenceClassification(config)
    model.classifier.weight.data.normal_(0, 5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
