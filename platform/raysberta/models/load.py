"""Load and save encoders as plain Hugging Face folders: safetensors only, no remote code, loaded back before it counts.

Of an encoder-decoder of type T5 the encoder is taken, whether its decoder lies beside it or not.
"""

import json
import math
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.auto import AutoConfig, AutoModel, AutoTokenizer
from raysberta.models.describe import ENCODER_DECODER, WITHOUT_POOLER
from raysberta.models.head import FILE as HEAD

PROBE = "Проба: the same sentence, encoded before and after saving."


def load_encoder(folder: Path, dropout: float | None = None, layers: int | None = None) -> PreTrainedModel:
    """The encoder of a folder, fp32, in eval mode, without pooling layer.

    Args:
        folder: A Hugging Face folder with config.json and safetensors.
        dropout: Replaces the hidden and attention dropout of the config where not None.
        layers: Keep only the first layers where not None.

    Raises:
        InputError: the folder is no checkpoint, or asks for code of its own.
    """
    config = _config(folder)
    if layers is not None:
        config.num_hidden_layers = min(layers, config.num_hidden_layers)
    if dropout is not None:
        for name in ("dropout_rate",) if config.model_type == ENCODER_DECODER else ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            setattr(config, name, dropout)
    pooler: dict[str, Any] = {"add_pooling_layer": False} if config.model_type in WITHOUT_POOLER else {}
    model = _kind(config).from_pretrained(folder, config=config, use_safetensors=True, dtype=torch.float32, **pooler)
    return model.eval()


def _kind(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class to load with: AutoModel would give both halves of a T5, whose forward wants the decoder's tokens too."""
    if config.model_type != ENCODER_DECODER:
        return cast(type[PreTrainedModel], AutoModel)
    from transformers import T5EncoderModel  # here, for few recipes need its module

    return T5EncoderModel


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder; whoever cuts or pads says so, whatever the folder has (all-MiniLM-L6-v2: 128 tokens)."""
    _config(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"{folder}: no fast tokenizer there; right would be a folder with tokenizer.json")
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer, load both back, and compare a probe sentence.

    Raises:
        RuntimeError: what was read back does not give the same hidden states.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    before = _probe(model, tokenizer)
    after = _probe(load_encoder(folder), load_tokenizer(folder))
    if before.shape != after.shape or not torch.allclose(before, after, atol=1e-5):
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"{folder.name}: the saved model does not give the embeddings of the one in memory")


@torch.no_grad()
def _probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    hidden = model(**tokenizer(PROBE, return_tensors="pt", return_token_type_ids=False).to(device)).last_hidden_state
    model.train(training)
    return hidden.float().cpu()


def _config(folder: Path) -> PreTrainedConfig:
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: no config.json there; right would be a Hugging Face model folder")
    if "auto_map" in json.loads(file.read_text(encoding="utf-8")):
        raise InputError(f"{file}: asks for remote code (auto_map), which is not run")
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    return config


def parameters(folder: Path) -> int:
    """How many numbers the weights of an encoder's folder are, by the headers of its files; its head for masked words is none of them."""
    count = 0
    for file in weight_files(folder):
        with safe_open(file, "pt") as stream:
            parts = [stream.get_slice(name) for name in stream.keys()]  # noqa: SIM118 - not a mapping
            count += sum(math.prod(part.get_shape()) for part in parts if part.get_dtype().startswith(("F", "BF")))
    return count


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of an encoder, without its head's.

    Raises:
        InputError: there are none.
    """
    files = sorted(file for file in folder.glob("*.safetensors") if file.name != HEAD)
    if not files:
        raise InputError(f"{folder}: no safetensors there; right would be a Hugging Face model folder")
    return files


def tensor_readers(folder: Path, opened: ExitStack) -> dict[str, Any]:
    """For each tensor of an encoder's folder, without its head's, the open file that holds it.

    Raises:
        InputError: there are none.
    """
    readers = [opened.enter_context(safe_open(file, "pt")) for file in weight_files(folder)]
    return {name: reader for reader in readers for name in reader.keys()}  # noqa: SIM118 - not a mapping
