"""What is published, served by vLLM: the model's own vectors where the card says so, and others where it does not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from composed import a_model
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    BloomConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from decoders import a_decoder, a_tokenizer
from raysberta.models.fetch import fetch
from raysberta.models.settings import Model
from raysberta.publishing.export import export
from raysberta.publishing.facts import Exported
from raysberta.retrieval.embed import Embedder
from raysberta.synthesis.vllm import Found, engine_environment
from raysberta.work import Workers

SERVE = Path(__file__).parent / "served.py"
LONGEST = 64
QUERY = "Query: "
PREFIXES = {"retrieval_query": QUERY, "retrieval_document": "", "paraphrase": "", "topic": ""}
TEXTS = [QUERY + text for text in ("lock", "a device that keeps a door shut", "Return the sorted copy of an array.")]
CAUSAL, BOTH_WAYS = ({"attention": attention, "pooling": pooling} for attention, pooling in (("causal", "last"), ("bidirectional", "mean")))
MODELS = {
    "llama_last": ("llama", CAUSAL),
    "llama_mean": ("llama", {**BOTH_WAYS, "dense": [{"width": 32, "activation": "ReLU"}]}),
    "mistral_mean": ("mistral", BOTH_WAYS),
    "qwen3_last": ("qwen3", CAUSAL),
    "qwen3_mean": ("qwen3", BOTH_WAYS),
    "gemma_last": ("gemma", CAUSAL),
    "gemma3_last": ("gemma3", CAUSAL),
    "gemma3_mean": ("gemma3", BOTH_WAYS),
    "bloom_last": ("bloom", CAUSAL),
    "phi3_last": ("phi3", CAUSAL),
    "gemma_mean": ("gemma", BOTH_WAYS),
    "llama_text_alone": ("llama", {**BOTH_WAYS, "include_prompt": False}),
}
REASONS = {
    "gemma_mean": "it lets a token of gemma see those before it alone",
    "llama_text_alone": "its mean counts the tokens of the prefix",
    "llama_latents": "it has no LatentAttention",
    "roberta_unsaid": "it wants position_embedding_type in config.json, which has none",
}


def a_config(family: str) -> PreTrainedConfig:
    """A decoder's, with heads as wide as vLLM has them at the least."""
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    if family == "bloom":
        return BloomConfig(vocab_size=700, hidden_size=64, n_layer=2, n_head=2, **ends)
    if family == "phi3":
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        places = {"max_position_embeddings": 128, "original_max_position_embeddings": 128}
        return Phi3Config(vocab_size=700, hidden_size=64, num_hidden_layers=2, intermediate_size=64, **heads, **places, **ends)
    return a_decoder(family, head_dim=32, hidden_size=64, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, english: list[str], unigram: PreTrainedTokenizerFast) -> dict[str, Path]:
    """Folders of models whose weights are random, and whose heads are no embeddings."""
    place, found = tmp_path_factory.mktemp("served"), {}
    for family in dict.fromkeys(family for family, _ in MODELS.values()):
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(a_config(family)).save_pretrained(place / family)
        a_tokenizer(english).save_pretrained(place / family)
    for name, (family, settings) in {**MODELS, "llama_latents": ("llama", {**BOTH_WAYS, "latent_attention": {}})}.items():
        found[name] = a_model(
            place / "made" / name, None, place / family, prefixes=PREFIXES, max_tokens=LONGEST, pad_token="</s>", **settings
        )
    shape = {
        "vocab_size": len(unigram),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": LONGEST + 2,
        "pad_token_id": unigram.pad_token_id,
        "position_embedding_type": "absolute",  # as published models of the type have it
    }
    for kind, config, model in (("bert", BertConfig, BertModel), ("roberta", RobertaConfig, RobertaModel)):
        torch.manual_seed(3)
        model(config(**shape), add_pooling_layer=False).save_pretrained(place / kind)
        unigram.save_pretrained(place / kind)
        found[kind] = place / "made" / kind
        pooling = "mean" if kind == "bert" else "cls"
        fetch(Model.model_validate({"from": f"path:{place / kind}", "pooling": pooling, "prefixes": PREFIXES}), found[kind])
    found["roberta_unsaid"] = place / "made" / "roberta_unsaid"
    shutil.copytree(found["roberta"], found["roberta_unsaid"])
    config = found["roberta_unsaid"] / "config.json"
    config.write_text(config.read_text().replace('"position_embedding_type"', '"other"'))
    return found


@pytest.fixture(scope="module")
def exported(published: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Exported]]:
    place = tmp_path_factory.mktemp("exported")
    return {name: (place / name, export(folder, place / name)) for name, folder in published.items()}


def test_vllm_gives_the_vectors_of_what_it_is_said_to_serve(published: dict[str, Path], exported: dict[str, tuple[Path, Exported]]) -> None:
    assert {name: told.not_served for name, (_, told) in exported.items() if told.not_served} == REASONS
    asked = [name for name in published if name not in ("llama_latents", "roberta_unsaid")]  # which it does not even load
    words = [sys.executable, str(SERVE), str(LONGEST), json.dumps(TEXTS), *(str(exported[name][0]) for name in asked)]
    environment = {**os.environ, **engine_environment(Found("", "cpu"), Workers())}
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    answers = [json.loads(line.partition(" ")[2]) for line in run.stdout.splitlines() if line.startswith("vectors ")]
    for name, theirs in zip(asked, answers, strict=True):
        own = Embedder(published[name], precision="fp32", device="cpu").encode(TEXTS)
        difference = np.abs(np.asarray(theirs, np.float32) - own).max()
        assert difference < 1e-5 if name not in REASONS else difference > 1e-3, name
