"""References to folders: packages, paths and what is refused, with real models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from raysberta.artifacts import Artifact, Store
from raysberta.encoder.fetch import check_models, digests, fetch, model_folder, model_identity, references
from raysberta.encoder.head import load_head
from raysberta.encoder.load import load_encoder, load_tokenizer
from raysberta.encoder.stage import fetch_models
from raysberta.errors import InputError
from raysberta.recipe import Recipe
from raysberta.retrieval.embed import Embedder


def a_recipe(**parts: object) -> Recipe:
    return Recipe.model_validate({"name": "test", "sources": {"words": {"kind": "wiki_ru_wordnet"}}, **parts})


def commit(draft: object, store: Store, stage: str) -> Artifact:
    return store.commit(draft, stage, "abc", {}, {}, 1, 0.0)  # type: ignore[arg-type]


def test_stage_stores_a_shared_reference_once(tmp_path: Path, small_folder: Path) -> None:
    store = Store(str(tmp_path))
    draft = store.draft("models", "abc")
    reference = f"path:{small_folder}"
    fetch_models(a_recipe(encoder={"base": reference}, mining={"encoder": reference}), {}, draft)
    models = commit(draft, store, "models")
    assert models.manifest.metrics["roles"] == {"encoder": "encoder", "miner": "encoder"}
    assert model_folder(models, "miner") == model_folder(models, "encoder")
    assert models.manifest.metrics["files"]["encoder"] == digests(model_folder(models, "encoder"))
    assert not [file for file in models.manifest.files if file.path.startswith("miner")]
    with pytest.raises(InputError, match="no model for 'llm'"):
        model_folder(models, "llm")


def test_truncated_encoder_is_another_folder(tmp_path: Path, small_folder: Path) -> None:
    store = Store(str(tmp_path))
    draft = store.draft("models", "abc")
    reference = f"path:{small_folder}"
    fetch_models(a_recipe(encoder={"base": reference, "layers": 2}, mining={"encoder": reference}), {}, draft)
    models = commit(draft, store, "models")
    cut, whole = load_encoder(model_folder(models, "encoder")), load_encoder(model_folder(models, "miner"))
    assert (cut.config.num_hidden_layers, whole.config.num_hidden_layers) == (2, 3)
    for name, tensor in cut.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])


def test_path_is_stored_as_encoder_with_its_head_beside_it(tmp_path: Path, small_folder: Path) -> None:
    fetch(f"path:{small_folder}", tmp_path / "model")
    head, original = (load_head(folder, load_encoder(folder)).state_dict() for folder in (tmp_path / "model", small_folder))
    assert len(head) == 5 and all(torch.equal(value, original[name]) for name, value in head.items())
    names = load_file(tmp_path / "model" / "model.safetensors")
    assert not [name for name in names if name.startswith(("bert.", "cls."))]
    assert {tensor.dtype for tensor in names.values() if tensor.is_floating_point()} == {torch.float32}
    texts = ["search_query: борщ", "clustering: a list of words"]
    ours = Embedder(tmp_path / "model", "mean", 64, "fp32", device="cpu").encode(texts)
    theirs = Embedder(small_folder, "mean", 64, "fp32", device="cpu").encode(texts)
    assert np.array_equal(ours, theirs)


def test_a_copy_does_not_follow_its_original(tmp_path: Path, small_folder: Path) -> None:
    original = shutil.copytree(small_folder, tmp_path / "original")
    fetch(f"path:{original}", tmp_path / "copy", "generator")
    before = digests(tmp_path / "copy")
    (original / "model.safetensors").write_bytes(b"saved over in place")
    assert digests(tmp_path / "copy") == before


def test_a_donor_needs_no_weights(tmp_path: Path, small_folder: Path) -> None:
    source = shutil.copytree(small_folder, tmp_path / "source", ignore=shutil.ignore_patterns("*.safetensors"))
    fetch(f"path:{source}", tmp_path / "donor", "tokenizer")
    assert load_tokenizer(tmp_path / "donor").get_vocab() == load_tokenizer(small_folder).get_vocab()


def test_a_donor_is_a_whole_model_only_where_its_rows_are_read(tmp_path: Path, small_folder: Path) -> None:
    source = shutil.copytree(small_folder, tmp_path / "source", ignore=shutil.ignore_patterns("*.safetensors"))
    vocabulary = {"extend_from": f"path:{source}"}
    check_models(a_recipe(encoder={"vocabulary": vocabulary}))
    whole = a_recipe(encoder={"vocabulary": {**vocabulary, "initialisation": "procrustes"}})
    assert references(whole)["donor_encoder"] == f"path:{source}" and "donor" not in references(whole)
    assert model_identity(whole).keys() != model_identity(a_recipe(encoder={"vocabulary": vocabulary})).keys()
    with pytest.raises(InputError, match="safetensors is missing"):
        check_models(whole)


def test_what_is_missing_is_named(tmp_path: Path, small_folder: Path) -> None:
    broken = shutil.copytree(small_folder, tmp_path / "broken")
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"safetensors is missing.*pickles"):
        check_models(a_recipe(encoder={"base": f"path:{broken}"}))
    with pytest.raises(InputError, match=r"path:/nowhere: no such folder"):
        check_models(a_recipe(mining={"encoder": "path:/nowhere"}))
    config = small_folder / "config.json"
    remote = shutil.copytree(small_folder, tmp_path / "remote")
    (remote / "config.json").write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(InputError, match="remote code"):
        fetch(f"path:{remote}", tmp_path / "refused")
    check_models(a_recipe(encoder={"base": f"path:{small_folder}"}))


def test_hub_without_network_names_the_job(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"jobs/fetch_models\.py"):
        fetch("hub:nobody/nothing@0123456789abcdef0123456789abcdef01234567", tmp_path / "hub")


def test_identity_follows_a_changed_path(tmp_path: Path, small_folder: Path) -> None:
    folder = shutil.copytree(small_folder, tmp_path / "model")
    recipe = a_recipe(encoder={"base": f"path:{folder}"})
    before = model_identity(recipe)
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    after = model_identity(recipe)
    assert before["encoder"] != after["encoder"] and before["miner"] == after["miner"] == "0.3.0"


def test_the_packaged_llm_answers(smollm_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm_folder)
    assert model.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(smollm_folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
