"""Decoders of the families that embedding models are made of: small, random weights, and generators with their language-model head."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

FAMILIES: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen3": Qwen3Config,
    "gemma": GemmaConfig,
    "gemma3": Gemma3TextConfig,
}


def a_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Bytes and merges, an end token that nothing puts there, and none to pad with: as Llama's and Mistral's."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def a_decoder(family: str, **settings: object) -> PreTrainedConfig:
    """A config of two layers; window and positions are shorter than some texts of the tests where the family has a window."""
    shape = {
        "vocab_size": 700,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 32,
        "max_position_embeddings": 128,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    if family in ("mistral", "gemma3"):
        shape["sliding_window"] = 64
    return FAMILIES[family](**{**shape, **settings})


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory, russian: list[str], english: list[str]) -> Path:
    """A Llama with its language-model head in half precision: what an LLM on a hub looks like."""
    folder = tmp_path_factory.mktemp("generator")
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(a_decoder("llama")).to(torch.bfloat16).save_pretrained(folder)
    a_tokenizer(russian[::2] + english[::2]).save_pretrained(folder)
    return folder
