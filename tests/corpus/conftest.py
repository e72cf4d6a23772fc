"""A small real tokenizer, and the artifact of a model that holds it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from raysberta.storage.artifacts import Artifact, Store

SENTENCES = [
    "Река течёт через город и впадает в холодное северное море.",
    "The function returns the number of elements along the given axis.",
    "Словарь объясняет значение каждого слова на примерах из книг.",
]


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture()
def small_model(tokenizer_file: Path) -> Callable[[Store], Artifact]:
    def commit(store: Store) -> Artifact:
        draft = store.draft("model", "m")
        with draft.folder("model") as folder:
            shutil.copy(tokenizer_file, folder / "tokenizer.json")
        return store.commit(draft, "model", "m", {}, {}, 1, 0.0)

    return commit
