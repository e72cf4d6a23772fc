"""Merges of model folders with real checkpoints."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from raysberta.artifacts import Store
from raysberta.encoder.load import load_encoder, load_tokenizer, save
from raysberta.errors import InputError
from raysberta.merging.merge import merge
from raysberta.merging.slerp import slerp
from raysberta.merging.stage import merge_after_mlm
from raysberta.recipe import Recipe

WORDS = ["<pad>", "<unk>", "a", "b", "c"]


def a_folder(folder: Path, seed: int, words: list[str] = WORDS, **changes: int) -> Path:
    torch.manual_seed(seed)
    config = BertConfig(
        **{
            "vocab_size": len(words),
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 32,
            **changes,
        }
    )
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    save(BertModel(config, add_pooling_layer=False).eval(), fast, folder)
    return folder


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    return a_folder(tmp_path / "newer", seed=1)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return a_folder(tmp_path / "older", seed=2)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_every_tensor_is_the_slerp_of_the_two(tmp_path: Path, newer: Path, older: Path) -> None:
    done = merge(newer, older, tmp_path / "merged", 0.1)
    ours, theirs, mixed = weights(newer), weights(older), weights(tmp_path / "merged")
    assert mixed.keys() == ours.keys() and done.merged == done.tensors == len(ours)
    for name, tensor in mixed.items():
        assert torch.equal(tensor, slerp(ours[name], theirs[name], 0.1)[0]), name
    assert 0 < done.linear < done.merged and done.least_cosine < 0.5  # biases and norms start alike, matrices do not
    assert load_tokenizer(tmp_path / "merged").get_vocab() == load_tokenizer(newer).get_vocab()


def test_scope_leaves_embeddings_alone(tmp_path: Path, newer: Path, older: Path) -> None:
    done = merge(newer, older, tmp_path / "merged", 0.25, "encoder_layers")
    ours, mixed = weights(newer), weights(tmp_path / "merged")
    for name, tensor in ours.items():
        if name.startswith("embeddings."):
            assert torch.equal(mixed[name], tensor)
        elif name.endswith("query.weight"):
            assert not torch.equal(mixed[name], tensor)
    assert done.copied == sum(name.startswith("embeddings.") for name in ours)
    assert done.merged == sum(".layer." in name for name in ours)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_ends_are_the_two_models(tmp_path: Path, newer: Path, older: Path, weight: float) -> None:
    merge(newer, older, tmp_path / "merged", weight)
    expected = weights(older if weight else newer)
    for name, tensor in weights(tmp_path / "merged").items():
        assert torch.allclose(tensor, expected[name], atol=1e-7), name


def test_integer_buffers_and_shards_are_kept(tmp_path: Path, newer: Path, older: Path) -> None:
    ours = weights(newer)
    names = sorted(ours)
    (newer / "model.safetensors").unlink()
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in parts.items():
        extra = {"embeddings.position_ids": torch.arange(32)} if file.startswith("model-00001") else {}
        save_file({**{name: ours[name] for name in part}, **extra}, newer / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (newer / "model.safetensors.index.json").write_text(json.dumps(index))
    done = merge(newer, older, tmp_path / "merged", 0.5)
    assert done.copied == 1 and done.merged == len(ours)
    assert torch.equal(load_file(tmp_path / "merged" / "model-00001-of-00002.safetensors")["embeddings.position_ids"], torch.arange(32))
    state = load_encoder(tmp_path / "merged").state_dict()
    for name, tensor in weights(older).items():
        assert torch.equal(state[name], slerp(ours[name], tensor, 0.5)[0])


def test_models_that_do_not_match_are_refused(tmp_path: Path, newer: Path, older: Path) -> None:
    deeper = a_folder(tmp_path / "deeper", 3, num_hidden_layers=3)
    with pytest.raises(InputError, match=r"num_hidden_layers is 2 .* and 3"):
        merge(newer, deeper, tmp_path / "merged", 0.1)
    renamed = a_folder(tmp_path / "renamed", 3, words=["<pad>", "<unk>", "a", "c", "b"])
    with pytest.raises(InputError, match="different vocabularies"):
        merge(newer, renamed, tmp_path / "merged", 0.1)
    wider = shutil.copytree(older, tmp_path / "wider")
    tensors = weights(wider)
    tensors["encoder.layer.1.output.dense.bias"] = torch.zeros(17)
    save_file(tensors, wider / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"encoder\.layer\.1\.output\.dense\.bias has shape \[16\]"):
        merge(newer, wider, tmp_path / "merged", 0.1)
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, wider / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"encoder\.layer\.1\.output\.dense\.bias of .* is missing"):
        merge(newer, wider, tmp_path / "merged", 0.1)
    with pytest.raises(InputError, match="cannot overwrite"):
        merge(newer, older, newer, 0.1)


def test_values_that_are_not_finite_are_found(tmp_path: Path, newer: Path, older: Path) -> None:
    tensors = weights(older)
    tensors["encoder.layer.0.output.dense.weight"][0, 0] = torch.inf
    save_file(tensors, older / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match=r"encoder\.layer\.0\.output\.dense\.weight .* not finite"):
        merge(newer, older, tmp_path / "merged", 0.5)


def test_stage_moves_layers_back(tmp_path: Path, newer: Path, older: Path) -> None:
    store = Store(str(tmp_path / "store"))
    inputs = {}
    for name, source in (("mlm", newer), ("vocabulary", older)):
        draft = store.draft(name, "f")
        with draft.folder("model") as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        inputs[name] = store.commit(draft, name, "f", {}, {}, 1, 0.0)
    recipe = Recipe.model_validate({"name": "test", "sources": {"words": {"kind": "wiki_ru_wordnet"}}, "mlm": {"merge_weight": 0.25}})
    draft = store.draft("mlm_merged", "f")
    merge_after_mlm(recipe, inputs, draft)
    ours, theirs, mixed = weights(newer), weights(older), weights(Path(draft.uri) / "model")
    name = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(mixed[name], slerp(ours[name], theirs[name], 0.25)[0])
    assert torch.equal(mixed["embeddings.word_embeddings.weight"], ours["embeddings.word_embeddings.weight"])
    assert draft.metrics["weight"] == 0.25 and 0 < draft.metrics["linear_share"] < 1
