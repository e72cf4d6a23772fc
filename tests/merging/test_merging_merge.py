"""Merges of model folders: against references in float64, what is refused, and how much is held at once."""

import json
import logging
import math
import shutil
import weakref
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.merging.merge import merge
from raysberta.merging.slerp import THRESHOLD, slerp
from raysberta.models import load
from raysberta.models.describe import Description, check_loads, describe, write_description
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.models.model import Model, load_model, save_model
from raysberta.models.parts import Connector, Decoder, Dense
from raysberta.prefixes import E5, NONE
from raysberta.retrieval.embed import Embedder

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
    write_description(folder, Description("mean", E5, 32))
    return folder


def shares(second: float) -> tuple[float, float]:
    """The shares of two models by the weight of the second."""
    return 1 - second, second


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    return a_folder(tmp_path / "newer", seed=1)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return a_folder(tmp_path / "older", seed=2)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_every_tensor_is_the_slerp_of_the_two(tmp_path: Path, newer: Path, older: Path) -> None:
    done = merge([newer, older], tmp_path / "merged", shares(0.1))
    ours, theirs, mixed = weights(newer), weights(older), weights(tmp_path / "merged")
    assert mixed.keys() == ours.keys() and done.merged == done.tensors == len(ours)
    for name, tensor in mixed.items():
        assert torch.equal(tensor, slerp(ours[name], theirs[name], 0.1)[0]), name
    assert 0 < done.linear < done.merged and done.least_cosine < 0.5  # biases and norms start alike, matrices do not
    assert load_tokenizer(tmp_path / "merged").get_vocab() == load_tokenizer(newer).get_vocab()


def test_scope_leaves_embeddings_alone(tmp_path: Path, newer: Path, older: Path) -> None:
    done = merge([newer, older], tmp_path / "merged", shares(0.25), scope="encoder_layers")
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
    merge([newer, older], tmp_path / "merged", shares(weight))
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
    done = merge([newer, older], tmp_path / "merged", shares(0.5))
    assert done.copied == 1 and done.merged == len(ours)
    assert torch.equal(load_file(tmp_path / "merged" / "model-00001-of-00002.safetensors")["embeddings.position_ids"], torch.arange(32))
    state = load_encoder(tmp_path / "merged").state_dict()
    for name, tensor in weights(older).items():
        assert torch.equal(state[name], slerp(ours[name], tensor, 0.5)[0])


def test_models_that_do_not_match_are_refused(tmp_path: Path, newer: Path, older: Path) -> None:
    deeper = a_folder(tmp_path / "deeper", 3, num_hidden_layers=3)
    with pytest.raises(InputError, match=r"num_hidden_layers is 2 .* and 3"):
        merge([newer, deeper], tmp_path / "merged", shares(0.1))
    renamed = a_folder(tmp_path / "renamed", 3, words=["<pad>", "<unk>", "a", "c", "b"])
    with pytest.raises(InputError, match="different vocabularies; right would be one and the same tokenizer, or scope: encoder_layers"):
        merge([newer, renamed], tmp_path / "merged", shares(0.1))
    wider = shutil.copytree(older, tmp_path / "wider")
    tensors = weights(wider)
    tensors["encoder.layer.1.output.dense.bias"] = torch.zeros(17)
    save_file(tensors, wider / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"encoder\.layer\.1\.output\.dense\.bias has shape \[16\]"):
        merge([newer, wider], tmp_path / "merged", shares(0.1))
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, wider / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"encoder\.layer\.1\.output\.dense\.bias of .* is missing"):
        merge([newer, wider], tmp_path / "merged", shares(0.1))
    with pytest.raises(InputError, match="cannot overwrite"):
        merge([newer, older], newer, shares(0.1))


def test_values_that_are_not_finite_are_found(tmp_path: Path, newer: Path, older: Path) -> None:
    tensors = weights(older)
    tensors["encoder.layer.0.output.dense.weight"][0, 0] = torch.inf
    save_file(tensors, older / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match=r"encoder\.layer\.0\.output\.dense\.weight .* not finite"):
        merge([newer, older], tmp_path / "merged", shares(0.5))


@pytest.fixture
def models(tmp_path: Path, newer: Path, older: Path) -> list[Path]:
    """Four models; the norms' weights and biases of a fresh one are all alike, so they are drawn."""
    folders = [newer, older, a_folder(tmp_path / "third", seed=3), a_folder(tmp_path / "fourth", seed=4)]
    for seed, folder in enumerate(folders):
        draw = torch.Generator().manual_seed(seed)
        near = 1 + 1e-3 * seed  # the first layer's query is nearly the same direction in all: there slerp is linear
        tensors = {name: torch.randn(tensor.shape, generator=draw) for name, tensor in weights(folder).items()}
        tensors[NEAR] = near * weights(newer)[NEAR] if seed else tensors[NEAR]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folders


NEAR = "encoder.layer.0.attention.self.query.weight"
WEIGHTS = ([0.4, 0.3, 0.2, 0.1], [0.25] * 4, [0.0, 0.5, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0])


def numbers(folders: Sequence[Path], name: str) -> list[np.ndarray]:
    return [weights(folder)[name].double().numpy() for folder in folders]


def arc(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """SLERP by its definition, in float64."""
    cosine = float((first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second))
    if abs(cosine) > THRESHOLD:
        return (1 - weight) * first + weight * second
    angle = math.acos(cosine)
    return (math.sin((1 - weight) * angle) * first + math.sin(weight * angle) * second) / math.sin(angle)


@pytest.mark.parametrize("given", WEIGHTS)
def test_linear_is_the_weighted_mean(tmp_path: Path, models: list[Path], given: list[float]) -> None:
    done = merge(models, tmp_path / "merged", given, "linear")
    assert done.linear == 0 and done.merged == done.tensors
    for name, tensor in weights(tmp_path / "merged").items():
        expected = sum(share * values for share, values in zip(given, numbers(models, name), strict=True))
        assert np.abs(tensor.double().numpy() - expected).max() < 2e-6, name


@pytest.mark.parametrize("given", WEIGHTS)
def test_slerp_of_more_goes_from_one_to_the_next(tmp_path: Path, models: list[Path], given: list[float]) -> None:
    merge(models, tmp_path / "merged", given, "slerp")
    for name, tensor in weights(tmp_path / "merged").items():
        first, *others = numbers(models, name)
        expected, total = first, given[0]
        for share, values in zip(given[1:], others, strict=True):
            total += share
            expected = arc(expected, values, share / total) if total else expected
        assert np.abs(tensor.double().numpy() - expected).max() < 1e-5, name


def test_order_matters_to_slerp_of_three_alone(tmp_path: Path, models: list[Path]) -> None:
    """A mean has no order; an arc between two goes either way; arcs one after the other end elsewhere in another order."""
    name, found = "encoder.layer.1.output.dense.weight", {"linear": [], "slerp": []}
    for number, order in enumerate(permutations(range(3))):
        for method, tensors in found.items():
            target = tmp_path / f"{method}{number}"
            merge([models[place] for place in order], target, [(0.5, 0.3, 0.2)[place] for place in order], method)  # type: ignore[arg-type]
            tensors.append(weights(target)[name])
    apart = {method: max(float((tensor - tensors[0]).abs().max()) for tensor in tensors) for method, tensors in found.items()}
    assert apart["linear"] < 1e-6 and apart["slerp"] > 1e-3
    merge(models[:2], tmp_path / "there", (0.3, 0.7))
    merge(models[1::-1], tmp_path / "back", (0.7, 0.3))
    for name, tensor in weights(tmp_path / "there").items():
        assert torch.allclose(tensor, weights(tmp_path / "back")[name], atol=1e-6), name


def test_half_precision_is_rounded_once(tmp_path: Path, models: list[Path]) -> None:
    for folder in models:
        save_file(
            {name: tensor.to(torch.bfloat16) for name, tensor in weights(folder).items()}, folder / "model.safetensors", {"format": "pt"}
        )
    merge(models, tmp_path / "merged", [0.25] * 4, "linear")
    name = "embeddings.word_embeddings.weight"
    mean = torch.stack([weights(folder)[name].float() for folder in models]).mean(0)
    merged = weights(tmp_path / "merged")[name]
    assert merged.dtype == torch.bfloat16 and (merged.float() - mean).abs().max() <= 2**-8 * mean.abs().max()
    assert (merged == mean.to(torch.bfloat16)).float().mean() > 0.99


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_few_tensors_are_held_whatever_the_number_of_models(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most, read = 0, 0

    class Counting:
        """An open file that remembers the tensors it gave as long as somebody holds them."""

        def __init__(self, *given: Any) -> None:
            self.file = safe_open(*given)

        def __enter__(self) -> "Counting":
            self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

        def keys(self) -> list[str]:
            return list(self.file.keys())

        def get_slice(self, name: str) -> Any:
            return self.file.get_slice(name)

        def get_tensor(self, name: str) -> torch.Tensor:
            nonlocal most, read
            tensor = self.file.get_tensor(name)
            alive.add(tensor)
            most, read = max(most, len(alive)), read + 1
            return tensor

    monkeypatch.setattr(load, "safe_open", Counting)
    done = merge([*models, *models[:3]], tmp_path / "merged", [1 / 7] * 7, method)
    assert read == 7 * done.tensors and most <= 3 and len(alive) == 0


def test_other_vocabularies_may_share_their_layers(tmp_path: Path, newer: Path) -> None:
    longer = a_folder(tmp_path / "longer", 3, words=[*WORDS, "d", "e"])
    with pytest.raises(InputError, match="different vocabularies"):
        merge([newer, longer], tmp_path / "refused", shares(0.5))
    merge([newer, longer], tmp_path / "merged", shares(0.5), scope="encoder_layers")
    mixed, ours, theirs = weights(tmp_path / "merged"), weights(newer), weights(longer)
    name = "encoder.layer.0.output.dense.weight"
    assert torch.equal(mixed["embeddings.word_embeddings.weight"], ours["embeddings.word_embeddings.weight"])
    assert torch.equal(mixed[name], slerp(ours[name], theirs[name], 0.5)[0])
    assert load_tokenizer(tmp_path / "merged").get_vocab() == load_tokenizer(newer).get_vocab()


def test_a_merge_is_described_as_the_first_and_loads(tmp_path: Path, newer: Path, older: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({"lm_head.bias": torch.ones(len(WORDS))}, newer / "mlm_head.safetensors")
    with caplog.at_level(logging.WARNING):
        merge([newer, older], tmp_path / "merged", shares(0.3))
    assert not caplog.records
    assert describe(tmp_path / "merged") == describe(newer)
    assert torch.equal(load_file(tmp_path / "merged" / "mlm_head.safetensors")["lm_head.bias"], torch.ones(len(WORDS)))
    assert check_loads(tmp_path / "merged", Embedder(tmp_path / "merged", precision="fp32", device="cpu").encode)[0] < 1e-5
    assert SentenceTransformer(str(tmp_path / "merged"), device="cpu").encode(["a b c"]).shape == (1, 16)
    write_description(older, Description("cls", NONE, 32))
    with caplog.at_level(logging.INFO):
        merge([newer, older], tmp_path / "again", shares(0.3))
    warned, told = (
        " ".join(record.getMessage() for record in caplog.records if record.levelno == level) for level in (logging.WARNING, logging.INFO)
    )
    assert "older pools by cls" in warned and "the merge pools by mean" in warned
    assert "older has other prompts than" in told
    assert describe(tmp_path / "again") == describe(newer)


def a_joined_folder(folder: Path, seed: int, width: int = 24) -> Path:
    """An encoder, a connector, a decoder and a dense layer."""
    plain = a_folder(folder.with_name(f"{folder.name}_plain"), seed)
    torch.manual_seed(seed)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
    decoder = LlamaModel(LlamaConfig(vocab_size=50, hidden_size=width, is_causal=False, **shape))
    parts = [Connector(16, 16, width), Decoder(decoder)]
    save_model(Model(load_encoder(plain), "mean", parts, [Dense(width, 8)]).eval(), load_tokenizer(plain), folder)
    write_description(folder, Description("mean", E5, 32))
    return folder


def test_models_of_parts_are_merged_part_by_part(tmp_path: Path) -> None:
    folders = [a_joined_folder(tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2))]
    done = merge(folders, tmp_path / "merged", shares(0.25), "linear")
    first, second, merged = (load_model(folder).state_dict() for folder in (*folders, tmp_path / "merged"))
    assert done.tensors == done.merged == len(merged)
    for name, tensor in merged.items():
        assert torch.allclose(tensor, 0.75 * first[name] + 0.25 * second[name], atol=1e-6), name
    assert check_loads(tmp_path / "merged", Embedder(tmp_path / "merged", precision="fp32", device="cpu").encode)[0] < 1e-5


def test_layers_of_the_decoder_are_layers_too(tmp_path: Path) -> None:
    folders = [a_joined_folder(tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2))]
    merge(folders, tmp_path / "merged", shares(0.5), "linear", "encoder_layers")
    first, merged = (load_model(folder).state_dict() for folder in (folders[0], tmp_path / "merged"))
    moved = {name.split("layer")[0].rstrip("s.") for name in merged if not torch.equal(merged[name], first[name])}
    assert moved == {"encoder.encoder", "parts.1.model"}


def test_models_of_other_parts_are_refused(tmp_path: Path) -> None:
    joined, plain = a_joined_folder(tmp_path / "joined", 1), a_folder(tmp_path / "plain", 2)
    with pytest.raises(
        InputError, match=r"joined has Connector, Decoder, Dense beyond its encoder and .*plain has nothing beyond its encoder"
    ):
        merge([joined, plain], tmp_path / "merged", shares(0.5))
    with pytest.raises(InputError, match=r"merge: hidden_size is 24 in .*2_Decoder and 32 in .*2_Decoder; right would be equal models"):
        merge([joined, a_joined_folder(tmp_path / "wide", 2, 32)], tmp_path / "merged", shares(0.5))
