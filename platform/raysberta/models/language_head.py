"""A decoder's language-model head: states to logits, by the embedding table itself or by a matrix of its own.

A model folder of this project holds the decoder alone. Where the head is tied to the embeddings nothing is lost by that; a matrix of its
own goes along in a file beside it (head.py), from `compose` through phases that train to write and into the published folder, from
which `AutoModelForCausalLM.from_pretrained(folder)` loads decoder and head.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from raysberta.errors import InputError
from raysberta.models.folder import read_json
from raysberta.models.head import FILE, read_tensor, tensor_files

WEIGHT, BIAS = "lm_head.weight", "lm_head.bias"
SCALES = ("logit_scale", "logits_scaling")
"""What configs of some families multiply or divide logits by; this project has no such head."""


class LanguageHead(nn.Module):
    """Logits over the vocabulary for states of a decoder."""

    def __init__(self, weight: Tensor | None, bias: Tensor | None = None, cap: float | None = None) -> None:
        """Over given weights.

        Args:
            weight: [V, H]; None where the embedding table is the head.
            bias: [V], or None.
            cap: Logits are cap * tanh(logits / cap), as Gemma 2 has it; as they are where None.
        """
        super().__init__()
        self.weight = None if weight is None else nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.cap = cap

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """Logits [n, V] of states [n, H], where the embedding table is [V, H]."""
        logits = F.linear(states, table if self.weight is None else self.weight, self.bias)
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def load_language_head(folder: Path, decoder: PreTrainedModel, name: str) -> LanguageHead:
    """The head in a folder of a generator, or of a model of a decoder alone, for a decoder that was made from it. float32.

    Args:
        folder: With config.json and safetensors.
        decoder: Whose states it reads; further phases may have trained it.
        name: Of whoever the folder is, for messages.

    Raises:
        InputError: the folder has no such head, one that is not read here, or one for another decoder.
    """
    config, table = read_json(folder / "config.json"), embedding_table(decoder)
    here, there = ((str(kind), int(pieces)) for kind, pieces in _kinds(config, decoder))
    if here != there:
        raise InputError(
            f"{name} is a {here[0]} of {here[1]} pieces, the decoder a {there[0]} of {there[1]}; right would be its own generator"
        )
    if odd := next((scale for scale in SCALES if config.get(scale, 1) != 1), None):
        raise InputError(f"{name}: its logits are scaled ({odd}), which is not read here; right would be another decoder")
    files = tensor_files(folder)
    if not decoder.config.tie_word_embeddings and WEIGHT not in files:
        right = "right would be a whole generator, or a model that a phase of kind compose made or that has learned to write"
        raise InputError(f"{name}: there is no language-model head ({WEIGHT}), and the embeddings are none; {right}")
    weight, bias = (read_tensor(files, part) if part in files else None for part in (WEIGHT, BIAS))
    if decoder.config.tie_word_embeddings:
        weight = None
    if weight is not None and weight.shape[1] != table.shape[1]:
        raise InputError(f"{name}: its head reads states of {weight.shape[1]}, the decoder gives {table.shape[1]}")
    return LanguageHead(weight, bias, config.get("final_logit_softcapping"))


def _kinds(config: dict[str, Any], decoder: PreTrainedModel) -> list[tuple[str, int]]:
    """Model type and number of pieces of a config, and of a decoder."""
    return [(config["model_type"], config["vocab_size"]), (decoder.config.model_type, decoder.config.vocab_size)]


def take_language_head(generator: Path, decoder: PreTrainedModel, folder: Path) -> None:
    """Take a generator's head along to where its decoder is written; where that is its embeddings there is nothing to take."""
    files = tensor_files(generator)
    if WEIGHT in files and not decoder.config.tie_word_embeddings:
        save_file({name: read_tensor(files, name) for name in (WEIGHT, BIAS) if name in files}, folder / FILE)


def save_language_head(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write what of a head is its own into a decoder's folder, where `load_language_head` finds it; nothing where it is the table.

    Args:
        weights: Of a LanguageHead, by their names in its state.
        folder: Of the decoder.
    """
    if weights:
        save_file({f"lm_head.{name}": part.detach().cpu().contiguous() for name, part in weights.items()}, folder / FILE)


def embedding_table(decoder: PreTrainedModel) -> Tensor:
    """The embeddings [V, H] of a decoder's pieces."""
    return cast(Tensor, decoder.get_input_embeddings().weight)
