"""The masked-language-model head: the decoder is the embedding table itself, with a bias.

Where the folder's checkpoint carries a head (BERT's `cls.predictions`, RoBERTa's `lm_head`, ModernBERT's `head`), its dense layer,
norm and bias are taken; else hidden states go to the table directly and the bias starts at 0. A model folder of this project holds the
encoder alone; from the base to the MLM phase its head goes along in a file of its own, under RoBERTa's names. A decoder's head lies in that
file too, see language_head.py.
"""

import json
import logging
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from raysberta.errors import InputError
from raysberta.models.folder import SHARDS

log = logging.getLogger(__name__)

FILE = "mlm_head.safetensors"
NAMES = (
    {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
    {"dense": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm", "bias": "cls.predictions.bias"},
    {"dense": "head.dense", "norm": "head.norm", "bias": "decoder.bias"},
)


class MlmHead(nn.Module):
    """Logits over the vocabulary for chosen hidden states."""

    def __init__(self, hidden: int, vocabulary: int, transform: bool, norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden) if transform else None
        self.norm = nn.LayerNorm(hidden, eps=norm_eps) if transform else None
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Logits [n, V] of states [n, H] against an embedding table [V, H]."""
        if self.dense is not None and self.norm is not None:
            states = self.norm(F.gelu(self.dense(states)))
        return F.linear(states, table, self.bias)


def load_head(folder: Path, encoder: PreTrainedModel) -> MlmHead:
    """The head of the checkpoint in `folder`, or a fresh one.

    Raises:
        InputError: the head is for another vocabulary than the embeddings.
    """
    pieces, width = cast(torch.Tensor, encoder.get_input_embeddings().weight).shape
    files = tensor_files(folder)
    for names in NAMES:
        if f"{names['dense']}.weight" not in files or names["bias"] not in files:  # ModernBERT's classifiers have a dense layer too
            continue
        if not getattr(encoder.config, "tie_word_embeddings", True):
            log.warning("%s: its masked-language-model head has a table of its own; it is left out", folder)
            break
        config = encoder.config
        head = MlmHead(width, pieces, True, getattr(config, "layer_norm_eps", getattr(config, "norm_eps", 1e-12)))
        state = {"bias": read_tensor(files, names["bias"])}
        if len(state["bias"]) != pieces:
            raise InputError(f"{folder}: its masked-language-model head has {len(state['bias'])} pieces, its embeddings have {pieces}")
        for part in ("dense", "norm"):
            state[f"{part}.weight"] = read_tensor(files, f"{names[part]}.weight")
            bias = f"{names[part]}.bias"
            state[f"{part}.bias"] = read_tensor(files, bias) if bias in files else torch.zeros(width)  # ModernBERT has none
        head.load_state_dict(state)
        return head
    return MlmHead(width, pieces, False, 0.0)


def save_head(head: MlmHead, folder: Path) -> None:
    """Write a head beside the encoder of `folder`, where load_head finds it; of a fresh one there is nothing to keep."""
    if head.dense is None or head.norm is None:
        return
    parts = {NAMES[0][part]: module for part, module in (("dense", head.dense), ("norm", head.norm))}
    tensors = {f"{name}.{which}": getattr(module, which).detach() for name, module in parts.items() for which in ("weight", "bias")}
    save_file({**tensors, NAMES[0]["bias"]: head.bias.detach()}, folder / FILE)


def tensor_files(folder: Path) -> dict[str, Path]:
    """Which safetensors file of a checkpoint holds which tensor, the file of a head beside it among them.

    Raises:
        InputError: there is no checkpoint.
    """
    index = folder / SHARDS
    if index.is_file():
        found = {name: folder / file for name, file in json.loads(index.read_text())["weight_map"].items()}
    elif (folder / "model.safetensors").is_file():
        found = tensors_in(folder / "model.safetensors")
    else:
        raise InputError(f"{folder}: no model.safetensors there")
    return found | (tensors_in(folder / FILE) if (folder / FILE).is_file() else {})


def tensors_in(file: Path) -> dict[str, Path]:
    """The names of a file's tensors, each with that file."""
    with safe_open(file, "pt") as stream:
        return dict.fromkeys(stream.keys(), file)


def read_tensor(files: dict[str, Path], name: str) -> torch.Tensor:
    """A tensor of a checkpoint, float32."""
    with safe_open(files[name], "pt") as stream:
        return stream.get_tensor(name).float()
