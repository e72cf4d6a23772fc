"""The published folder, from the real multilingual-e5-small: loads, carries its prompts, gives the encoder's own vectors."""

import json
import os
import shutil
from pathlib import Path

import mteb
import numpy as np
import pytest
import torch
from mteb.mocks.mock_tasks import MockMultilingualClusteringFastTask, MockRetrievalTask, MockSTSTask
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from raysberta.models import head
from raysberta.models.describe import Description, describe, write_description
from raysberta.prefixes import NOMIC
from raysberta.publishing.export import export
from raysberta.retrieval.embed import Embedder

TASKS = (
    (MockRetrievalTask(), {"search_query: ", "search_document: "}),
    (MockSTSTask(), {"classification: "}),
    (MockMultilingualClusteringFastTask(), {"clustering: "}),
)
TEXTS = ["замок", "устройство, которое запирает дверь", "Sort an array in place."]


@pytest.fixture(scope="module")
def trained(e5_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads other prefixes than it came with, and has a head for masked words beside it."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    shutil.copytree(e5_folder, folder, copy_function=copied)
    write_description(folder, Description("mean", NOMIC, 512))
    save_file({"dense.bias": torch.zeros(384)}, folder / head.FILE)
    return folder


def copied(source: str, target: str) -> None:
    """Weights as a link, what is rewritten as a copy."""
    (os.link if source.endswith(".safetensors") else shutil.copyfile)(source, target)


@pytest.fixture(scope="module")
def published(trained: Path, module_path: Path) -> Path:
    folder = module_path / "model"
    found = export(trained, folder)
    assert found.dimension == 384 and found.max_tokens == 512 and 0 <= found.difference <= 1e-5
    assert found.parameters > 100_000_000
    return folder


@pytest.fixture(scope="module")
def loaded(published: Path) -> SentenceTransformer:
    return SentenceTransformer(str(published), device="cpu")


def test_prompts_are_those_of_the_encoder_with_its_prefixes(loaded: SentenceTransformer, trained: Path) -> None:
    own = Embedder(trained, precision="fp32", device="cpu")
    for name in ("search_query", "search_document", "classification", "clustering"):
        prefix = f"{name}: "
        theirs = loaded.encode(TEXTS, prompt_name=name)
        assert np.abs(theirs - own.encode([prefix + text for text in TEXTS])).max() < 1e-5
        assert np.allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)
    assert np.abs(loaded.encode_query(TEXTS) - own.encode(["search_query: " + text for text in TEXTS])).max() < 1e-5
    assert np.abs(loaded.encode_document(TEXTS) - own.encode(["search_document: " + text for text in TEXTS])).max() < 1e-5
    assert loaded.similarity_fn_name == "cosine" and loaded.max_seq_length == 512


def test_mteb_finds_the_prompts_of_the_loaded_model(loaded: SentenceTransformer) -> None:
    seen: list[str] = []
    tokenize = loaded[0].preprocess

    def recording(inputs: list[str], *args: object, **kwargs: object) -> dict:
        prompt = kwargs.get("prompt") or ""
        seen.extend(f"{prompt}{text}" for text in inputs)
        return tokenize(inputs, *args, **kwargs)

    loaded[0].preprocess = recording
    try:
        for task, prefixes in TASKS:
            seen.clear()
            mteb.evaluate(loaded, task, cache=None, co2_tracker=False, show_progress_bar=False)
            assert seen and {prefix for prefix in prefixes if any(text.startswith(prefix) for text in seen)} == prefixes
            assert all(any(text.startswith(prefix) for prefix in prefixes) for text in seen)
    finally:
        loaded[0].preprocess = tokenize


def test_no_file_asks_for_code_or_holds_pickles_or_is_of_no_use(published: Path) -> None:
    names = {file.name for file in published.rglob("*") if file.is_file()}
    assert {"modules.json", "config_sentence_transformers.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".py"))]
    assert "auto_map" not in json.loads((published / "config.json").read_text(encoding="utf-8"))
    assert head.FILE not in names


def test_the_published_folder_describes_itself_as_the_model_did(published: Path, trained: Path) -> None:
    assert describe(published) == describe(trained) == Description("mean", NOMIC, 512)


def test_a_model_that_does_not_agree_is_not_published(trained: Path, tmp_path: Path) -> None:
    """A folder that sentence-transformers reads otherwise than this project is found by the comparison, and so is a lost prompt."""
    for number, (name, change, message) in enumerate(
        (
            ("modules.json", None, "differs by"),
            ("config_sentence_transformers.json", {"prompts": NOMIC.named_prompts()}, "did not come back from the folder: Retrieval-query"),
        )
    ):
        folder = tmp_path / f"broken-{number}"
        shutil.copytree(trained, folder, copy_function=copied)
        file = folder / name
        told = json.loads(file.read_text(encoding="utf-8"))
        # without its normalisation the vectors that sentence-transformers gives are longer than 1
        file.write_text(json.dumps(told[:2] if change is None else {**told, **change}), encoding="utf-8")
        with pytest.raises(RuntimeError, match=message):
            export(folder, tmp_path / f"published-{number}")
