"""An encoder of T5's kind, as FRIDA is one: of the shape that its config.json has, small and with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, T5ForConditionalGeneration

from raysberta.models.describe import Description, check_loads, describe
from raysberta.models.fetch import fetch
from raysberta.models.folder import width
from raysberta.models.load import load_encoder, load_tokenizer, parameters
from raysberta.models.model import load_model
from raysberta.models.settings import Model
from raysberta.prefixes import Prefixes
from raysberta.retrieval.embed import Embedder
from raysberta.training.chunks import budget_of, make_chunks, plan_chunks
from raysberta.training.encode import ChunkedEncoder

TEXTS = [
    "paraphrase: Включи свет на кухне.",
    "search_query: замок",
    "categorize_topic: Turn off the lights in the hall, please, and the fan.",
]
PREFIXES = Prefixes(retrieval_query="search_query: ", retrieval_document="", paraphrase="paraphrase: ", topic="categorize_topic: ")


def a_t5(tokenizer: PreTrainedTokenizerFast) -> T5Config:
    """FRIDA's config.json in small: gated, untied, special tokens at places of their own."""
    return T5Config(
        vocab_size=len(tokenizer) + 5,
        d_model=24,
        d_kv=8,
        d_ff=32,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="module", params=["encoder alone", "with its decoder"])
def source(request: pytest.FixtureRequest, unigram: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(1)
    kind = T5EncoderModel if request.param == "encoder alone" else T5ForConditionalGeneration
    kind(a_t5(unigram)).save_pretrained(folder)
    unigram.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def fetched(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fetched") / "model"
    said = {"from": f"path:{source}", "pooling": "cls", "prefixes": PREFIXES.model_dump(), "max_tokens": 40}
    fetch(Model.model_validate(said), folder)
    return folder


@torch.no_grad()
def by_transformers(source: Path, text: str) -> torch.Tensor:
    """Hidden states [tokens, H] of one text, without the platform."""
    tokens = load_tokenizer(source)(text, truncation=True, max_length=40, return_tensors="pt", return_token_type_ids=False)
    return T5EncoderModel.from_pretrained(source).eval()(**tokens).last_hidden_state[0]


def vectors(source: Path) -> np.ndarray:
    return torch.stack([F.normalize(by_transformers(source, text)[0], dim=-1) for text in TEXTS]).numpy()


@pytest.mark.parametrize("place", ["source", "fetched"])
def test_the_hidden_states_are_those_of_transformers_to_the_bit(place: str, source: Path, fetched: Path) -> None:
    folder = source if place == "source" else fetched
    encoder, tokenizer = load_encoder(folder), load_tokenizer(folder)
    assert type(encoder) is T5EncoderModel and encoder.dtype == torch.float32
    for text in TEXTS:
        tokens = tokenizer(text, truncation=True, max_length=40, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            assert torch.equal(encoder(**tokens).last_hidden_state[0], by_transformers(source, text))


def test_of_both_halves_the_encoder_is_stored_and_described(source: Path, fetched: Path) -> None:
    assert describe(fetched) == Description("cls", PREFIXES, 40)
    assert parameters(fetched) == T5EncoderModel.from_pretrained(source).num_parameters()
    assert width(json.loads((fetched / "config.json").read_text(encoding="utf-8"))) == 24


def test_vectors_of_a_padded_batch_are_those_of_each_text_alone(source: Path, fetched: Path) -> None:
    found = Embedder(fetched, precision="fp32", device="cpu").encode(TEXTS)
    assert found.shape == (3, 24)
    assert np.abs(found - vectors(source)).max() < 1e-6


def test_half_precision_on_a_processor_stays_near(source: Path, fetched: Path) -> None:
    found = Embedder(fetched, precision="bf16", device="cpu").encode(TEXTS)
    assert (found * vectors(source)).sum(1).min() > 0.999


def test_sentence_transformers_loads_the_folder(fetched: Path) -> None:
    difference, count = check_loads(fetched, Embedder(fetched, precision="fp32", device="cpu").encode)
    assert difference < 1e-5 and count == parameters(fetched)


def test_it_can_be_trained(source: Path, fetched: Path) -> None:
    encoder = load_encoder(fetched, dropout=0.0, layers=2)
    assert (encoder.config.dropout_rate, len(encoder.encoder.block)) == (0.0, 2)
    chunked = ChunkedEncoder(load_model(fetched, pooling="cls"), "fp32", recompute=True)
    ids = load_tokenizer(fetched)(TEXTS, truncation=True, max_length=40)["input_ids"]
    tokens = [np.asarray(each, np.int32) for each in ids]
    chunks = make_chunks(tokens, plan_chunks(np.asarray([len(each) for each in tokens]), budget_of(64, torch.device("cpu"))))
    found = chunked.embed(chunks)
    assert np.abs(found.detach().numpy() - vectors(source)).max() < 1e-6
    found.sum().backward()
    missing = [name for name, weights in chunked.named_parameters() if weights.grad is None or not weights.grad.any()]
    assert not missing
