"""The masked-language-model head: the decoder is the embedding table itself, with a bias.

Where the folder's checkpoint carries a head (BERT's `cls.predictions`, RoBERTa's `lm_head`), its dense layer, norm and bias are
taken; else hidden states go to the table directly and the bias starts at 0. The head is not part of the model folder.
"""

import json
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from raysberta.errors import InputError

NAMES = (
    {"dense": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm", "bias": "cls.predictions.bias"},
    {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
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
    rows, width = cast(torch.Tensor, encoder.get_input_embeddings().weight).shape
    files = _files(folder)
    for names in NAMES:
        if f"{names['dense']}.weight" not in files:
            continue
        head = MlmHead(width, rows, True, getattr(encoder.config, "layer_norm_eps", 1e-12))
        bias = _read(files, names["bias"])
        if len(bias) != rows:
            raise InputError(f"{folder}: its masked-language-model head has {len(bias)} pieces, its embeddings have {rows}")
        state = {"bias": bias}
        for part in ("dense", "norm"):
            state |= {f"{part}.{which}": _read(files, f"{names[part]}.{which}") for which in ("weight", "bias")}
        head.load_state_dict(state)
        return head
    return MlmHead(width, rows, False, 0.0)


def _files(folder: Path) -> dict[str, Path]:
    """Which safetensors file of a checkpoint holds which tensor."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return {name: folder / file for name, file in json.loads(index.read_text())["weight_map"].items()}
    whole = folder / "model.safetensors"
    if not whole.is_file():
        raise InputError(f"{folder}: no model.safetensors there")
    with safe_open(whole, "pt") as stream:
        return dict.fromkeys(stream.keys(), whole)


def _read(files: dict[str, Path], name: str) -> torch.Tensor:
    with safe_open(files[name], "pt") as stream:
        return stream.get_tensor(name).float()
