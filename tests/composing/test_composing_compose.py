"""Models of parts: what the parts are, what changes a vector and what does not, and what does not fit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composed import a_model
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from raysberta.composing.settings import Compose
from raysberta.errors import InputError
from raysberta.models.describe import PROBES, Description, check_loads, describe
from raysberta.models.fetch import fetch
from raysberta.models.folder import dimension, module_paths, parts_of
from raysberta.models.load import load_encoder, load_tokenizer, parameters
from raysberta.models.model import load_model
from raysberta.models.settings import Model
from raysberta.prefixes import E5, NONE, Prefixes
from raysberta.retrieval.embed import Embedder

LUSIFER: dict[str, Any] = {"connector": {}, "attention": "bidirectional", "pooling": "mean", "dense": [{"activation": "ReLU"}, {}]}
INSTRUCTED = Prefixes(retrieval_query="Instruct: find what answers\nQuery: ", retrieval_document="", paraphrase="", topic="Theme: ")
ALONE: dict[str, Any] = {"pooling": "last", "prefixes": INSTRUCTED.model_dump(), "pad_token": "</s>"}


@pytest.fixture(scope="module")
def joined(encoder: Path, generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("joined") / "model", encoder, generator, **LUSIFER)


def fp32(folder: Path, **more: Any) -> Embedder:
    return Embedder(folder, precision="fp32", device="cpu", **more)


@pytest.fixture(scope="module")
def texts(russian: list[str], english: list[str]) -> list[str]:
    """Of 1 to 60 words."""
    return [" ".join((russian + english)[3 * number : 4 * number + 1])[: 8 * number + 4] for number in range(30)]


def test_a_joined_model_says_what_it_is_made_of(joined: Path, encoder: Path, generator: Path) -> None:
    modules = [(module["path"], module["type"]) for module in json.loads((joined / "modules.json").read_text(encoding="utf-8"))]
    ours, theirs = "raysberta.models.modules", "sentence_transformers.models"
    kinds = [(ours, "Connector"), (ours, "Decoder"), (theirs, "Pooling"), *[(theirs, "Dense")] * 2, (theirs, "Normalize")]
    numbered = [(f"{number}_{name}", f"{where}.{name}") for number, (where, name) in enumerate(kinds, 1)]
    assert modules == [("", f"{theirs}.Transformer"), *numbered]
    assert describe(joined) == Description("mean", E5, 64) and dimension(joined) == 24
    assert module_paths([part.kind for part in parts_of(joined)]) == [(path, kind.rsplit(".", 1)[1]) for path, kind in modules]
    whole = sum(weights.numel() for weights in load_model(joined).parameters())
    assert parameters(joined) == whole
    for name, weights in load_encoder(encoder).state_dict().items():
        assert torch.equal(load_model(joined).encoder.state_dict()[name], weights)
    llm = AutoModel.from_pretrained(generator, dtype=torch.float32).state_dict()
    for name, weights in load_model(joined).parts[1].model.state_dict().items():
        assert torch.equal(weights, llm[name])


def test_a_vector_is_that_of_the_formula(joined: Path, texts: list[str]) -> None:
    """Part by part with plain calls of transformers, one text at a time without padding."""
    model, tokenizer = load_model(joined), load_tokenizer(joined)
    (connector, decoder), (first, second) = model.parts, model.dense
    for text in texts[::7]:
        ids = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = model.encoder(input_ids=ids).last_hidden_state
            read = torch.cat([connector.second(connector.first(states).relu()), connector.added[None]], 1)
            assert read.shape[1] == ids.shape[1] + 1
            out = decoder.model(inputs_embeds=read, is_causal=False).last_hidden_state
            vector = second.linear(first.linear(out.mean(1)).relu())
        expected = torch.nn.functional.normalize(vector, dim=-1)[0].numpy()
        assert np.abs(fp32(joined).encode([text])[0] - expected).max() < 1e-6


def test_padding_batch_mates_order_and_batches_change_nothing(joined: Path, texts: list[str]) -> None:
    alone = np.concatenate([fp32(joined).encode([text]) for text in texts])
    for budget in (64, 300, 10_000):
        for order in (slice(None), slice(None, None, -1)):
            assert np.abs(fp32(joined, token_budget=budget).encode(texts[order]) - alone[order]).max() < 1e-5


def test_positions_count_real_tokens_where_the_published_code_counts_padding(joined: Path) -> None:
    """A faithful copy of that code puts the token behind the padding and counts places: its vectors move with their batch mates."""
    model = load_model(joined)
    connector, decoder = model.parts
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    longer, mask = torch.cat([ids, torch.full((1, 20), 1)], 1), torch.cat([torch.ones_like(ids), torch.zeros(1, 20, dtype=torch.long)], 1)

    def published(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = connector.second(connector.first(model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state).relu())
        read, seen = torch.cat([states, connector.added.expand(len(ids), 1, -1)], 1), torch.cat([mask, mask.new_ones(len(ids), 1)], 1)
        out = decoder.model(inputs_embeds=read, attention_mask=seen).last_hidden_state
        return (out * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)

    with torch.no_grad():
        assert (published(longer, mask) - published(ids, torch.ones_like(ids))).abs().max() > 1e-4
        ours = [
            model.vectors(model.encoder(input_ids=i, attention_mask=m).last_hidden_state, m) for i, m in ((longer, mask), (ids, ids**0))
        ]
    assert (ours[0] - ours[1]).abs().max() < 1e-5


def test_the_connector_begins_about_zero_and_as_large_as_what_the_decoder_reads(joined: Path, texts: list[str]) -> None:
    model, tokenizer = load_model(joined), load_tokenizer(joined)
    connector, decoder = model.parts
    size = decoder.model.get_input_embeddings().weight.square().mean().sqrt().item()

    def read(texts: Sequence[str]) -> torch.Tensor:
        each = (tokenizer(text, return_tensors="pt", return_token_type_ids=False, truncation=True) for text in texts)
        with torch.no_grad():
            found = [connector(model.encoder(**tokens).last_hidden_state, tokens["attention_mask"])[0][0, :-1] for tokens in each]
        return torch.cat(found)

    fitted, others = read(PROBES), read(texts)
    assert fitted.mean(0).abs().max() < 1e-4 * size and fitted.square().mean().sqrt().item() == pytest.approx(size, rel=1e-3)
    assert others.square().mean().sqrt().item() == pytest.approx(size, rel=0.3)
    assert others.mean(0).square().mean() < 0.3 * others.square().mean(), "of other texts little is the same in all tokens"
    assert connector.added.square().mean().sqrt().item() == pytest.approx(size, rel=0.5)


def test_new_weights_are_drawn_from_the_seed(encoder: Path, generator: Path, joined: Path, tmp_path: Path) -> None:
    same, other = (load_model(a_model(tmp_path / str(seed), encoder, generator, seed=seed, **LUSIFER)).state_dict() for seed in (0, 1))
    first = load_model(joined).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    moved = {name.split(".")[0] + name.split(".")[1] for name in first if not torch.equal(first[name], other[name])}
    assert moved == {"parts0", "dense0", "dense1"}


@pytest.mark.parametrize(
    "settings",
    [
        LUSIFER,
        {**LUSIFER, "attention": "causal", "pooling": "last", "dense": [], "max_tokens": 20},
        {**LUSIFER, "latent_attention": {"latents": 4, "heads": 2, "head_width": 8}, "dense": [{"width": 7}]},
        {**LUSIFER, "connector": {"tokens": 3, "hidden": 9}, "decoder_layers": 1},
    ],
    ids=["lusifer", "causal", "latent", "three tokens"],
)
def test_sentence_transformers_gives_the_same_vectors(
    encoder: Path, generator: Path, tmp_path: Path, texts: list[str], settings: dict[str, Any]
) -> None:
    folder = a_model(tmp_path / "model", encoder, generator, **settings)
    difference, count = check_loads(folder, fp32(folder).encode)
    assert difference < 1e-5 and count == parameters(folder)
    loaded = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    assert np.abs(loaded.encode(texts, batch_size=7) - fp32(folder).encode(texts)).max() < 1e-4
    loaded.save(str(tmp_path / "again"))
    assert np.abs(fp32(tmp_path / "again").encode(texts) - fp32(folder).encode(texts)).max() < 1e-6


def test_half_precision_stays_near(joined: Path, texts: list[str]) -> None:
    found = Embedder(joined, precision="bf16", device="cpu").encode(texts)
    assert (found * fp32(joined).encode(texts)).sum(1).min() > 0.995


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_decoder_alone_is_a_model(generator: Path, tmp_path: Path, texts: list[str], attention: str, pooling: str) -> None:
    folder = a_model(tmp_path / "model", None, generator, **{**ALONE, "attention": attention, "pooling": pooling, "max_tokens": 40})
    assert [kind for kind, _ in parts_of_modules(folder)] == ["Transformer", "Pooling", "Normalize"]
    assert describe(folder) == Description(pooling, INSTRUCTED, 40)  # type: ignore[arg-type]
    ids = fp32(folder).tokenizer(texts[-1], truncation=True, max_length=40)["input_ids"]
    assert len(ids) == 40 and (ids[-1] == 1) == (pooling == "last"), "the end token stays when a text is cut"
    difference, _ = check_loads(folder, fp32(folder).encode)
    assert difference < 1e-5
    plain = SentenceTransformer(str(folder), device="cpu")  # no class of this package in it: nothing has to be trusted
    vectors = fp32(folder).encode([INSTRUCTED.retrieval_query + text for text in texts])
    for side in ("left", "right"):
        plain.tokenizer.padding_side = side
        assert np.abs(plain.encode(texts, prompt_name="search_query", batch_size=30) - vectors).max() < 1e-5
    assert np.abs(vectors - fp32(folder).encode(texts)).max() > 1e-3, "an instruction changes a vector"


def parts_of_modules(folder: Path) -> list[tuple[str, str]]:
    return [(module["type"].rsplit(".", 1)[1], module["path"]) for module in json.loads((folder / "modules.json").read_text())]


def test_an_encoder_gets_more_behind_its_pooling(encoder: Path, tmp_path: Path, texts: list[str]) -> None:
    once = a_model(tmp_path / "once", encoder, None, dense=[{"width": 8, "activation": "Tanh"}])
    twice = a_model(tmp_path / "twice", once, None, dense=[{"width": 5, "bias": False}])
    assert (dimension(once), dimension(twice)) == (8, 5)
    with torch.no_grad():
        expected = (
            load_model(once)(torch.ones(1, 3, dtype=torch.long), input_ids=torch.tensor([[0, 7, 2]]))
            @ load_model(twice).dense[1].linear.weight.T
        )
        assert torch.equal(load_model(twice)(torch.ones(1, 3, dtype=torch.long), input_ids=torch.tensor([[0, 7, 2]])), expected)
    assert check_loads(twice, fp32(twice).encode)[0] < 1e-5
    fetched = tmp_path / "fetched"
    fetch(Model.model_validate({"from": f"path:{twice}"}), fetched)
    assert np.array_equal(fp32(fetched).encode(texts), fp32(twice).encode(texts)), "a folder with parts from outside is taken whole"


def test_a_joined_model_from_outside_is_taken_whole(joined: Path, tmp_path: Path, texts: list[str]) -> None:
    fetch(Model.model_validate({"from": f"path:{joined}", "prefixes": "none"}), tmp_path / "fetched")
    assert describe(tmp_path / "fetched") == Description("mean", NONE, 64)
    assert np.array_equal(fp32(tmp_path / "fetched").encode(texts), fp32(joined).encode(texts))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"connector": None}, "connector: states of encoder are 16 wide, decoder reads 24; right would be connector: {}"),
        (
            {"encoder": None, "pad_token": None},
            "pad_token: the tokenizer of decoder names none to pad with; right would be pad_token: '</s>'",
        ),
        (
            {"encoder": None, "pad_token": "[PAD]"},
            "pad_token: the tokenizer of decoder has no '[PAD]'; right would be a token that it has, ",
        ),
    ],
    ids=["widths", "no pad", "unknown pad"],
)
def test_parts_that_do_not_fit_are_named(encoder: Path, generator: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    alone = "encoder" in changes
    settings = {**(ALONE if alone else LUSIFER), **{name: value for name, value in changes.items() if name != "encoder"}}
    with pytest.raises(InputError, match=said.replace("{", r"\{").replace("[", r"\[")):
        a_model(tmp_path / "model", None if alone else encoder, generator, **settings)


def test_what_only_an_encoder_can_do_is_refused_to_more(joined: Path) -> None:
    with pytest.raises(InputError, match="model: has Connector, Decoder, Dense, Dense beyond its encoder, which cannot be used here"):
        load_encoder(joined)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "encoder and decoder: neither is named"),
        ({"encoder": "e", "connector": {}}, "connector: stands between an encoder and a decoder"),
        ({"encoder": "e", "attention": "causal"}, "attention: is of a decoder, and none is named"),
        ({"encoder": "e", "pad_token": "x"}, "pad_token: texts are padded by the encoder's tokenizer"),
        ({"decoder": "d", "prefixes": "none"}, "pooling: a decoder's folder says nothing of it; right would be pooling: last"),
        ({"decoder": "d", "pooling": "last"}, "prefixes: a decoder's folder says nothing of it; right would be prefixes: none"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Compose(kind="compose", **settings)
