"""Merge model folders of one architecture, tensor by tensor, into another.

Tensors are read, merged and written one at a time, so memory holds the sum so far and one tensor of one model, however many models there
are; with a common start, while the differences from it are measured, one tensor of each model. Config,
tokenizer, description and the layout of the weight files are those of the first model, and so is its head for masked words.
"""

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raysberta.errors import InputError
from raysberta.merging.differences import add_products, check_differ, coefficients, cosines
from raysberta.merging.settings import Merge, Method, Scope
from raysberta.merging.slerp import THRESHOLD, cosine_of, slerp
from raysberta.models.describe import describe
from raysberta.models.folder import part_folders, parts_of
from raysberta.models.load import TensorFile, tensor_readers, weight_files
from raysberta.models.model import load_model
from raysberta.storage.artifacts import Artifact

log = logging.getLogger(__name__)

LAYER = re.compile(r"(^|\.)(layer|layers|h|block)\.\d+\.")
SAME = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
LENGTH = 8  # bytes of the header's length, at the start of a safetensors file


@dataclass
class Merged:
    """What a merge did, by tensor."""

    tensors: int = 0
    merged: int = 0
    linear: int = 0
    """Of the merged, those with models so nearly parallel that slerp interpolated them linearly."""
    copied: int = 0
    """Outside the scope, or integer buffers."""
    least_cosine: float = 1.0
    """Between a model's tensor and the merge of those before it; with a start between two models' differences from it."""
    factors: tuple[float, ...] = ()
    """With a start: what each model's difference from it is multiplied by, `norm` included."""


@dataclass(frozen=True)
class Start:
    """What models were trained from, and how far the merge moves from there."""

    folder: Path
    norm: float = 1.0
    """Factor on the merged difference."""


@dataclass
class _Merge:
    """How tensors are merged, and what was done so far."""

    others: list[dict[str, Any]]
    """Of each model but the first: for each tensor the open file that holds it."""
    shares: Sequence[float]
    method: Method
    scope: Scope
    done: Merged
    start: dict[str, Any] | None = None
    """As `others`, of the common start."""

    def tensor(self, name: str, first: Tensor) -> Tensor:
        """The merged tensor, in shape and dtype of the first model's; computed in float32, in float64 where the first is."""
        self.done.tensors += 1
        if not first.is_floating_point() or not covers(name, self.scope):
            self.done.copied += 1
            return first
        self.done.merged += 1
        mixed = first.to(torch.float64 if first.dtype == torch.float64 else torch.float32)
        if self.start is not None:
            return self._from_start(name, mixed, self.start).to(first.dtype)
        return (self._along_arcs(name, mixed) if self.method == "slerp" else self._mean(name, mixed)).to(first.dtype)

    def _along_arcs(self, name: str, mixed: Tensor) -> Tensor:
        """Towards each next model, by its share of the shares so far."""
        total, linear = self.shares[0], False
        for share, other in zip(self.shares[1:], self.others, strict=True):
            total += share
            if not total:  # none of the models so far counts
                continue
            mixed, cosine = slerp(mixed, other[name].get_tensor(name), share / total)
            linear |= abs(cosine) > THRESHOLD
            self.done.least_cosine = min(self.done.least_cosine, cosine)
        self.done.linear += linear
        return mixed

    def _mean(self, name: str, mixed: Tensor) -> Tensor:
        total, mixed = self.shares[0], mixed * self.shares[0]
        for share, other in zip(self.shares[1:], self.others, strict=True):
            theirs = other[name].get_tensor(name).to(mixed.dtype)
            if total:
                self.done.least_cosine = min(self.done.least_cosine, cosine_of(mixed, theirs))
            mixed.add_(theirs, alpha=share)
            total += share
        return mixed

    def _from_start(self, name: str, first: Tensor, start: dict[str, Any]) -> Tensor:
        """theta_0 + the sum of the differences times their factors, as a sum of models: exactly a model where its factor alone is 1."""
        own, *theirs = self.done.factors
        mixed = first * own
        mixed.add_(start[name].get_tensor(name).to(mixed.dtype), alpha=1 - sum(self.done.factors))
        for factor, other in zip(theirs, self.others, strict=True):
            mixed.add_(other[name].get_tensor(name).to(mixed.dtype), alpha=factor)
        return mixed


def covers(name: str, scope: Scope) -> bool:
    """Whether a tensor is in the scope."""
    return scope == "all" or LAYER.search(name) is not None


def merge(
    folders: Sequence[Path],
    target: Path,
    shares: Sequence[float],
    method: Method = "slerp",
    scope: Scope = "all",
    start: Start | None = None,
) -> Merged:
    """Write to `target` the merge of models.

    Args:
        folders: Encoder folders of one architecture that describe themselves; two or more.
        target: Made; must not be one of them.
        shares: The weight of each, in all 1.
        method: slerp: along the arc from the first to the second by the second's share of both, from there to the third by its share of
            the three, and so on, so the order of more than two matters; linear: the weighted mean.
        scope: Merge the tensors of the transformer layers alone (the rest is the first's, vocabularies may differ), or every
            floating-point tensor.
        start: The model that all were trained from: their differences from it are merged, each as one long vector (differences.py).

    Raises:
        InputError: the models do not match; the message names the setting, file or tensor.
        RuntimeError: what was written cannot be loaded or holds a value that is not finite.
    """
    if target.resolve() in {folder.resolve() for folder in folders}:
        raise InputError(f"{target}: a merge cannot overwrite what it reads; right would be another folder")
    origin = [start.folder] if start is not None else []
    for folder in [*folders[1:], *origin]:
        check_same(folders[0], folder, scope)
    _warn_of_other_use(folders)
    target.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        readers = {folder: tensor_readers(folder, opened) for folder in dict.fromkeys([*folders, *origin])}
        merging = _Merge([readers[folder] for folder in folders[1:]], shares, method, scope, Merged())
        for file in weight_files(folders[0]):
            first = TensorFile(folders[0], file, opened)
            _check_tensors(first, merging, file, {folder: readers[folder] for folder in [*folders[1:], *origin]})
        if start is not None:
            merging.start = readers[start.folder]
            products = _products(merging, folders, [readers[folder] for folder in folders])
            factors = coefficients(torch.tensor(shares, dtype=torch.float64), products, method)
            merging.done.factors = tuple((start.norm * factors).tolist())
            merging.done.least_cosine = float(cosines(products).min())
        for file in weight_files(folders[0]):
            _write(file, target / file.relative_to(folders[0]), TensorFile(folders[0], file, opened), merging)
    _copy_rest(folders[0], target)
    _check_written(target)
    return merging.done


def merge_of(phase: Merge, inputs: Mapping[str, Artifact], target: Path) -> Merged:
    """As `merge`, of a phase's models.

    Args:
        phase: Says the models, their weights and how they are merged; weights that are still to be chosen count as alike.
        inputs: The models' artifacts by the names that the phase has for them.
        target: Made.

    Raises:
        InputError: as `merge`.
    """
    start = Start(inputs[phase.start].folder("model"), phase.norm) if phase.start is not None else None
    return merge([inputs[name].folder("model") for name in phase.of], target, phase.shares(), phase.method, phase.scope, start)


def _products(merging: _Merge, folders: Sequence[Path], models: Sequence[dict[str, Any]]) -> Tensor:
    """Of the models' differences from the start with one another, float64 [n, n].

    Raises:
        InputError: a model is the start itself.
    """
    assert merging.start is not None
    products = torch.zeros(len(models), len(models), dtype=torch.float64)
    for name in models[0]:
        if not covers(name, merging.scope):
            continue
        origin = merging.start[name].get_tensor(name)
        if origin.is_floating_point():
            origin = origin.to(torch.promote_types(origin.dtype, torch.float32))
            add_products(products, [reader[name].get_tensor(name).to(origin.dtype) - origin for reader in models])
    check_differ(folders, products)
    return products


def check_same(first: Path, other: Path, scope: Scope) -> None:
    """See that two model folders are of one architecture and, where embeddings are merged, of one vocabulary.

    Raises:
        InputError: they are not.
    """
    kinds = [[part.kind for part in parts_of(folder)] for folder in (first, other)]
    if kinds[0] != kinds[1]:
        said = [
            f"{folder} has {', '.join(parts) or 'nothing'} beyond its encoder" for folder, parts in zip((first, other), kinds, strict=True)
        ]
        raise InputError(f"merge: {' and '.join(said)}; right would be equal models")
    for mine, its in zip(part_folders(first), part_folders(other), strict=True):
        ours, theirs = _settings(mine), _settings(its)
        for key in SAME:
            if ours.get(key) != theirs.get(key):
                raise InputError(f"merge: {key} is {ours.get(key)} in {mine} and {theirs.get(key)} in {its}; right would be equal models")
    ours, theirs = _settings(first), _settings(other)
    if scope == "encoder_layers":
        return
    if _vocabulary(first) != _vocabulary(other):
        right = "one and the same tokenizer, or scope: encoder_layers"
        raise InputError(f"merge: {first} and {other} have different vocabularies; right would be {right}")
    if ours.get("vocab_size") != theirs.get("vocab_size"):
        sizes = f"vocab_size is {ours.get('vocab_size')} in {first} and {theirs.get('vocab_size')} in {other}"
        raise InputError(f"merge: {sizes}; right would be equal models, or scope: encoder_layers")


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: no config.json there; right would be a Hugging Face model folder")
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return settings


def _vocabulary(folder: Path) -> Any:
    file = folder / "tokenizer.json"
    return json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"] if file.is_file() else None


def _warn_of_other_use(folders: Sequence[Path]) -> None:
    """Say where models that are merged are used differently: what the merge says of itself is what the first says."""
    first = describe(folders[0])
    for folder in folders[1:]:
        other = describe(folder)
        if other.pooling != first.pooling:
            log.warning("merge: %s pools by %s, %s by %s: the merge pools by %s", folder, other.pooling, folders[0], *[first.pooling] * 2)
        if other.prefixes != first.prefixes:
            # no warning: a trained model and the one that it began with are merged, and only the first has its phase's prompts
            log.info("merge: %s has other prompts than %s: the merge has those of the latter", folder, folders[0])


def _check_tensors(first: TensorFile, merging: _Merge, file: Path, others: Mapping[Path, dict[str, Any]]) -> None:
    """See that every other model has the tensors of a file that are merged, in the same shapes."""
    for name in first.keys():  # noqa: SIM118 - not a mapping
        mine = first.get_slice(name)
        if not covers(name, merging.scope) or not mine.get_dtype().startswith(("F", "BF")):
            continue
        for folder, other in others.items():
            if name not in other:
                raise InputError(f"merge: tensor {name} of {file} is missing in {folder}; right would be equal models")
            shape, theirs = mine.get_shape(), other[name].get_slice(name).get_shape()
            if shape != theirs:
                raise InputError(f"merge: tensor {name} has shape {shape} in {file} and {theirs} in {folder}; right would be equal models")


def _write(template: Path, target: Path, first: TensorFile, merging: _Merge) -> None:
    """Write a safetensors file with the header of the first model's: same names, dtypes, shapes and offsets, tensor after tensor."""
    target.parent.mkdir(exist_ok=True)
    with template.open("rb") as stream:
        length = stream.read(LENGTH)
        header = stream.read(int.from_bytes(length, "little"))
    entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    with target.open("wb") as out:
        out.write(length + header)
        for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
            tensor = merging.tensor(first.prefix + name, first.get_tensor(first.prefix + name))
            out.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _copy_rest(source: Path, target: Path) -> None:
    """All files but the encoder's weights, those in folders too."""
    weights = set(weight_files(source))
    for file in source.rglob("*"):
        place = target / file.relative_to(source)
        if file.is_file() and file not in weights:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def _check_written(folder: Path) -> None:
    model = load_model(folder)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise RuntimeError(f"{folder.name}: tensor {name} of the merged model holds values that are not finite")
