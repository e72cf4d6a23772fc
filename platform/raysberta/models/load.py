"""Load and save encoders as plain Hugging Face folders: safetensors only, no remote code, loaded back before it counts.

Of an encoder-decoder of type T5 the encoder is taken, whether its decoder lies beside it or not.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.auto import AutoConfig, AutoModel, AutoTokenizer
from raysberta.models.describe import WITHOUT_POOLER
from raysberta.models.folder import ENCODER_DECODER, part_folders, parts_of
from raysberta.models.head import FILE as HEAD

PROBE = "Проба: the same sentence, encoded before and after saving."
DROPOUTS = ("dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout")
"""What configs call it, of which each has some."""
CHARACTERS = 1 << 22
"""Of the texts that are tokenised at once, or one text."""


def load_encoder(folder: Path, dropout: float | None = None, layers: int | None = None) -> PreTrainedModel:
    """As `load_transformer`, of a model that is nothing but an encoder.

    Raises:
        InputError: the model has further parts; also as `load_transformer`.
    """
    if further := [part.kind for part in parts_of(folder)]:
        raise InputError(
            f"{folder}: has {', '.join(further)} beyond its encoder, which cannot be used here; right would be a model without"
        )
    return load_transformer(folder, dropout, layers)


def load_transformer(folder: Path, dropout: float | None = None, layers: int | None = None) -> PreTrainedModel:
    """The transformer of a folder, encoder or decoder, fp32, in eval mode, without pooling layer and language-model head.

    Args:
        folder: A Hugging Face folder with config.json and safetensors.
        dropout: Replaces the hidden and attention dropout of the config where not None.
        layers: Keep only the first layers where not None.

    Raises:
        InputError: the folder is no checkpoint, or asks for code of its own.
    """
    config = _config(folder)
    if layers is not None:
        _keep_layers(config, layers)
    if dropout is not None:
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, dropout)
    config.use_cache = False  # of keys and values, which only writing reads again
    pooler: dict[str, Any] = {"add_pooling_layer": False} if config.model_type in WITHOUT_POOLER else {}
    model = _kind(config).from_pretrained(folder, config=config, use_safetensors=True, dtype=torch.float32, **pooler)
    return model.eval()


def _keep_layers(config: PreTrainedConfig, layers: int) -> None:
    """The first layers alone; some configs list what each layer is."""
    config.num_hidden_layers = min(layers, config.num_hidden_layers)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]


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


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], most: int) -> list[list[int]]:
    """Token ids of texts, special tokens included, `most` at most; longer ones are cut.

    A tokenizer reads all of a text before it cuts, and keeps some 100 bytes of each token of what it is given at once: that is CHARACTERS.
    """
    found: list[list[int]] = []
    start = characters = 0
    for number, text in enumerate(texts):
        if characters and characters + len(text) > CHARACTERS:
            found += _token_ids(tokenizer, texts[start:number], most)
            start, characters = number, 0
        characters += len(text)
    return found + _token_ids(tokenizer, texts[start:], most)


def _token_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], most: int) -> list[list[int]]:
    if not texts:
        return []
    found = tokenizer(list(texts), truncation=True, max_length=most, return_attention_mask=False, return_token_type_ids=False)
    ids: list[list[int]] = found["input_ids"]
    return ids


def prompt_tokens(tokenizer: PreTrainedTokenizerFast, prompt: str) -> int:
    """How many of a text's first tokens count as those of the prompt before it: its own number, without the special token that closes it.

    sentence-transformers counts so, whatever the tokenizer makes of the place where prompt and text meet. 0 of an empty one, whose tokens
    are all of the text.
    """
    ids = tokenizer(prompt)["input_ids"] if prompt else []
    return len(ids) - (ids[-1] in tokenizer.all_special_ids) if ids else 0


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
    """How many numbers the weights of a model are, by the headers of its files; its head for masked words is none of them."""
    with ExitStack() as opened:
        readers = tensor_readers(folder, opened)
        parts = [reader.get_slice(name) for name, reader in readers.items()]
        return sum(math.prod(part.get_shape()) for part in parts if part.get_dtype().startswith(("F", "BF")))


class TensorFile:
    """An open safetensors file of a model; the names of a part's tensors begin with the part's folder."""

    def __init__(self, folder: Path, file: Path, opened: ExitStack) -> None:
        """Open a file of the model in `folder`."""
        self.prefix = "" if file.parent == folder else f"{file.parent.relative_to(folder).as_posix()}."
        self._file = opened.enter_context(safe_open(file, "pt"))

    def keys(self) -> list[str]:
        """Names of its tensors."""
        return [self.prefix + name for name in self._file.keys()]  # noqa: SIM118 - not a mapping

    def get_tensor(self, name: str) -> torch.Tensor:
        """A tensor by its name."""
        tensor: torch.Tensor = self._file.get_tensor(name.removeprefix(self.prefix))
        return tensor

    def get_slice(self, name: str) -> Any:
        """A tensor's shape and dtype, nothing of it read."""
        return self._file.get_slice(name.removeprefix(self.prefix))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model and its parts, without its head's, for masked words or of a language model.

    Raises:
        InputError: there are none.
    """
    files = sorted(file for place in part_folders(folder) for file in place.glob("*.safetensors") if file.name != HEAD)
    if not files:
        raise InputError(f"{folder}: no safetensors there; right would be a Hugging Face model folder")
    return files


def hash_tensors(digest: "hashlib._Hash", folder: Path) -> None:
    """Add names, dtypes, shapes and bytes of all tensors of a model's folder to a hash. Memory: one tensor.

    Raises:
        InputError: there are none.
    """
    with ExitStack() as opened:
        for name, reader in sorted(tensor_readers(folder, opened).items()):
            tensor = reader.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def tensor_readers(folder: Path, opened: ExitStack) -> dict[str, TensorFile]:
    """For each tensor of a model's folder, without its head's for masked words, the open file that holds it.

    Raises:
        InputError: there are none.
    """
    readers = [TensorFile(folder, file, opened) for file in weight_files(folder)]
    return {name: reader for reader in readers for name in reader.keys()}  # noqa: SIM118 - not a mapping
