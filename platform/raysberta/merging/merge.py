"""Merge two model folders of one architecture and one vocabulary, tensor by tensor, into a third.

Tensors are read, merged and written one at a time, so memory holds three tensors and never two models. Config, tokenizer and the
layout of the weight files are those of the newer model.
"""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor

from raysberta.encoder.load import load_encoder
from raysberta.errors import InputError
from raysberta.merging.slerp import THRESHOLD, slerp

Scope = Literal["encoder_layers", "all"]

LAYER = re.compile(r"(^|\.)(layer|layers|h|block)\.\d+\.")
SAME = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "vocab_size",
)
LENGTH = 8  # bytes of the header's length, at the start of a safetensors file


@dataclass
class Merged:
    """What a merge did, by tensor."""

    tensors: int = 0
    merged: int = 0
    linear: int = 0
    """Of the merged, those so nearly parallel that they were interpolated linearly."""
    copied: int = 0
    """Outside the scope, or integer buffers."""
    least_cosine: float = 1.0

    def metrics(self) -> dict[str, Any]:
        """The counts, and the share of merged tensors that were interpolated linearly."""
        return {**asdict(self), "linear_share": round(self.linear / max(self.merged, 1), 4)}


def merge(newer: Path, older: Path, target: Path, weight: float, scope: Scope = "all") -> Merged:
    """Write to `target` the model of `newer`, moved by SLERP towards `older`.

    Args:
        newer: Hugging Face folder with safetensors, tokenizer and config.
        older: One of the same architecture and vocabulary.
        target: Made; must not be one of the two.
        weight: Of the older model, 0 to 1.
        scope: Merge the tensors of the transformer layers alone (the rest is the newer's), or every floating-point tensor.

    Raises:
        InputError: the models do not match; the message names the setting, file or tensor.
        RuntimeError: what was written cannot be loaded or holds a value that is not finite.
    """
    if target.resolve() in (newer.resolve(), older.resolve()):
        raise InputError(f"{target}: a merge cannot overwrite what it reads; right would be another folder")
    _check_same(newer, older)
    target.mkdir(parents=True, exist_ok=True)
    done = Merged()
    with ExitStack() as opened:
        theirs = _readers(older, opened)
        for file in _weights(newer):
            ours = opened.enter_context(safe_open(file, "pt"))
            _check_tensors(ours, theirs, file)

            def mixed(name: str, ours: Any = ours) -> Tensor:
                return _mix(name, ours.get_tensor(name), theirs, weight, scope, done)

            _write(file, target / file.name, mixed)
    for file in newer.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copyfile(file, target / file.name)
    _check_written(target)
    return done


def _mix(name: str, ours: Tensor, theirs: dict[str, Any], weight: float, scope: Scope, done: Merged) -> Tensor:
    done.tensors += 1
    if not ours.is_floating_point() or (scope == "encoder_layers" and not LAYER.search(name)):
        done.copied += 1
        return ours
    mixed, cosine = slerp(ours, theirs[name].get_tensor(name), weight)
    done.merged += 1
    done.linear += abs(cosine) > THRESHOLD
    done.least_cosine = min(done.least_cosine, cosine)
    return mixed


def _weights(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: no safetensors there; right would be a Hugging Face model folder")
    return files


def _readers(folder: Path, opened: ExitStack) -> dict[str, Any]:
    """For each tensor of a folder the open file that holds it."""
    readers = [opened.enter_context(safe_open(file, "pt")) for file in _weights(folder)]
    return {name: reader for reader in readers for name in reader.keys()}  # noqa: SIM118 - not a mapping


def _check_same(newer: Path, older: Path) -> None:
    ours, theirs = _settings(newer), _settings(older)
    for key in SAME:
        if ours.get(key) != theirs.get(key):
            raise InputError(f"merge: {key} is {ours.get(key)} in {newer} and {theirs.get(key)} in {older}; right would be equal models")
    if _vocabulary(newer) != _vocabulary(older):
        raise InputError(f"merge: {newer} and {older} have different vocabularies; right would be one and the same tokenizer")


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: no config.json there; right would be a Hugging Face model folder")
    return json.loads(file.read_text(encoding="utf-8"))


def _vocabulary(folder: Path) -> Any:
    file = folder / "tokenizer.json"
    return json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"] if file.is_file() else None


def _check_tensors(ours: Any, theirs: dict[str, Any], file: Path) -> None:
    for name in ours.keys():  # noqa: SIM118 - not a mapping
        mine = ours.get_slice(name)
        if name not in theirs:
            if mine.get_dtype().startswith(("F", "BF")):
                raise InputError(f"merge: tensor {name} of {file} is missing in the other model; right would be equal models")
            continue
        shape, other = mine.get_shape(), theirs[name].get_slice(name).get_shape()
        if shape != other:
            raise InputError(f"merge: tensor {name} has shape {shape} in {file} and {other} in the other; right would be equal models")


def _write(template: Path, target: Path, tensor: Callable[[str], Tensor]) -> None:
    """Write a safetensors file with the header of another one: same names, dtypes, shapes and offsets, tensor after tensor."""
    with template.open("rb") as stream:
        length = stream.read(LENGTH)
        header = stream.read(int.from_bytes(length, "little"))
    entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    with target.open("wb") as out:
        out.write(length + header)
        for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
            out.write(tensor(name).contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _check_written(folder: Path) -> None:
    model = load_encoder(folder)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise RuntimeError(f"{folder.name}: tensor {name} of the merged model holds values that are not finite")
