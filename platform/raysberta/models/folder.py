"""Which parts a model's folder has, and where each of them lies: `modules.json`, as sentence-transformers reads it.

At the root lies the transformer that reads tokens, with the tokenizer. What its states go through lies in numbered folders: a connector,
a decoder, latent attention; then the pooling, and what a vector goes through: dense layers. Types of this package are named by their
import path, and the folder holds no code. No torch here: a dry run reads folders.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raysberta.errors import InputError

MODULES = "modules.json"
SHARDS = "model.safetensors.index.json"
"""Where a checkpoint in several files says which tensor lies in which."""
Kind = Literal["Connector", "Decoder", "LatentAttention", "Dense"]
OF_STATES: tuple[Kind, ...] = ("Connector", "Decoder", "LatentAttention")
"""Parts that take and give token states, before the pooling. Classes of models/modules.py."""
OF_VECTORS: tuple[Kind, ...] = ("Dense",)
"""Parts that take and give vectors, after it. A class of sentence-transformers."""
ALWAYS_THERE = ("Transformer", "Pooling", "Normalize")
ENCODER_DECODER = "t5"
"""The model type whose encoder is used without its decoder."""


def bidirectional(config: Mapping[str, Any]) -> bool:
    """Whether a decoder's config lets a token see those behind it: by `is_causal`, or by Gemma's own switch."""
    return bool(config.get("use_bidirectional_attention", False)) or not config.get("is_causal", True)


@dataclass(frozen=True)
class Part:
    """What token states or vectors go through, with a folder of its own."""

    kind: Kind
    folder: Path


def modules(folder: Path) -> list[tuple[str, str]]:
    """Name of the class and relative folder of each module, in order; none where there is no modules.json."""
    file = folder / MODULES
    return [(str(module["type"]).rsplit(".", 1)[-1], module["path"]) for module in read_json(file)] if file.is_file() else []


def foreign(folder: Path) -> list[str]:
    """Names of the modules that this project has not."""
    return sorted({name for name, _ in modules(folder)} - {*ALWAYS_THERE, *OF_STATES, *OF_VECTORS})


def parts_of(folder: Path) -> list[Part]:
    """The parts beyond the transformer that reads tokens and the pooling, in order: first those of states, then those of vectors.

    Where a module is foreign the transformer is all that can be used, by a pooling that the recipe names (describe.py); so none then.

    Raises:
        InputError: a dense layer stands before the pooling, or a part of states behind it.
    """
    found, pooled = [], False
    for name, path in modules(folder) if not foreign(folder) else ():
        pooled |= name == "Pooling"
        if name in (OF_VECTORS if pooled else OF_STATES):
            found.append(Part(name, folder / path))  # type: ignore[arg-type]
        elif name in (*OF_STATES, *OF_VECTORS):
            where = "behind" if pooled else "before"
            raise InputError(f"{folder}: {name} stands {where} the pooling in {MODULES}, where this project does not read it")
    return found


def part_folders(folder: Path) -> list[Path]:
    """The root and the folder of every part: all that hold weights."""
    return [folder, *(part.folder for part in parts_of(folder))]


def module_paths(kinds: Sequence[Kind]) -> list[tuple[str, str]]:
    """Relative folder and class of each module of a model with such parts: its folders are numbered, the transformer lies at the root."""
    states, vectors = ([kind for kind in kinds if kind in side] for side in (OF_STATES, OF_VECTORS))
    names = [*states, "Pooling", *vectors, "Normalize"]
    return [("", "Transformer"), *((f"{number}_{name}", name) for number, name in enumerate(names, 1))]


def written_parts(folder: Path) -> list[Part]:
    """The parts whose folders are there under their numbers, whatever modules.json says."""
    found = [(re.fullmatch(r"(\d+)_(\w+)", place.name), place) for place in folder.iterdir() if place.is_dir()]
    known = [(int(name[1]), name[2], place) for name, place in found if name and name[2] in (*OF_STATES, *OF_VECTORS)]
    return [Part(kind, place) for _, kind, place in sorted(known)]  # type: ignore[arg-type]


def dimension(folder: Path, parts: Sequence[Part] | None = None) -> int:
    """Dimension of what comes out of a model's last part, or of these of its parts, by their configurations."""
    found = width(read_json(folder / "config.json"))
    for part in parts_of(folder) if parts is None else parts:
        config = read_json(part.folder / "config.json")
        names = {"Connector": "output", "LatentAttention": "width", "Dense": "out_features"}
        found = width(config) if part.kind == "Decoder" else int(config[names[part.kind]])
    return found


def width(config: Mapping[str, Any]) -> int:
    """Dimension of a transformer's states by its config.json, where T5 has a name of its own for it."""
    return int(config["d_model"] if config["model_type"] == ENCODER_DECODER else config["hidden_size"])


def read_json(file: Path) -> Any:
    """A file's values; none where there is no file.

    Raises:
        InputError: it is not JSON, or config.json is missing.
    """
    if not file.is_file():
        if file.name == "config.json":
            raise InputError(f"{file.parent}: no config.json there; right would be a Hugging Face model folder")
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: is not JSON: {error}") from error
