"""A model whole: a transformer that reads tokens, what its states go through, the pooling, and what vectors go through after it.

An encoder with a pooling is a model of no further parts, and so is a decoder; LUSIFER is an encoder, a connector, a decoder and two dense
layers. Loaded from and written to a folder in sentence-transformers' layout (folder.py), float32, safetensors only.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.describe import describe, includes_prompt
from raysberta.models.folder import OF_STATES, OF_VECTORS, Kind, Part, module_paths, parts_of, read_json, written_parts
from raysberta.models.load import PROBE, load_tokenizer, load_transformer
from raysberta.models.parts import Connector, Decoder, Dense, LatentAttention, dense_of
from raysberta.models.pool import pool
from raysberta.models.settings import Pooling

WEIGHTS = "model.safetensors"

StatesPart = Connector | Decoder | LatentAttention


class Model(nn.Module):
    """Token ids to vectors. Texts are padded on either side, and neither padding nor the texts beside them change a vector."""

    def __init__(
        self,
        encoder: PreTrainedModel,
        pooling: Pooling,
        parts: Sequence[StatesPart] = (),
        dense: Sequence[Dense] = (),
        include_prompt: bool = True,
    ) -> None:
        """Join parts.

        Args:
            encoder: The transformer that reads tokens: an encoder, or a decoder that nothing stands before.
            pooling: Of the last states.
            parts: What states go through.
            dense: What vectors go through.
            include_prompt: Whether the pooling counts the tokens of what goes before a text.
        """
        super().__init__()
        self.encoder = encoder
        self.parts = nn.ModuleList(parts)
        self.pooling: Pooling = pooling
        self.dense = nn.ModuleList(dense)
        self.include_prompt = include_prompt

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        last = [*self.parts, *self.dense][-1:]
        return cast(int, last[0].width) if last else self.encoder.config.hidden_size

    def forward(self, mask: Tensor, prompts: Tensor | None = None, **tokens: Tensor) -> Tensor:
        """Vectors [B, D], float32 or wider, not normalised.

        Args:
            mask: int64 [B, T] of 0 and 1.
            prompts: int64 [B]: how many of a text's first tokens are of what goes before it; none where None.
            tokens: `input_ids` [B, T], or `inputs_embeds` [B, T, H].
        """
        return self.vectors(self.encoder(attention_mask=mask, **tokens).last_hidden_state, mask, prompts)

    def vectors(self, states: Tensor, mask: Tensor, prompts: Tensor | None = None) -> Tensor:
        """The same, of the first transformer's last states [B, T, H]."""
        for part in self.parts:
            states, mask = part(states, mask)
        if prompts is not None and not self.include_prompt:
            mask = mask * (mask.long().cumsum(1) > prompts[:, None])
        vectors = pool(states.to(torch.promote_types(states.dtype, torch.float32)), mask, self.pooling)
        for layer in self.dense:
            vectors = layer(vectors.to(next(layer.parameters()).dtype))
        return vectors.to(torch.promote_types(vectors.dtype, torch.float32))

    def transformers(self) -> Iterator[PreTrainedModel]:
        """Its encoder and decoder."""
        yield self.encoder
        yield from (part.model for part in self.parts if isinstance(part, Decoder))

    def in_precision(self, dtype: torch.dtype) -> "Model":
        """Itself with weights of a dtype. Buffers stay as they are: rounded frequencies would turn later tokens by other angles."""
        for weights in self.parameters():
            weights.data = weights.data.to(dtype)
        return self


def load_model(folder: Path, dropout: float | None = None, layers: int | None = None, pooling: Pooling | None = None) -> Model:
    """The model of a folder, fp32, in eval mode.

    Args:
        folder: In sentence-transformers' layout.
        dropout: Replaces that of the transformers' configs where not None.
        layers: Keep only the first layers of the transformer that reads tokens where not None.
        pooling: Taken instead of what the folder says where not None.

    Raises:
        InputError: the folder is no such model, asks for code of its own, or has a part that this project has not.
    """
    model = _joined(folder, pooling or describe(folder).pooling, parts_of(folder), dropout, layers)
    model.include_prompt = includes_prompt(folder)
    return model


def load_part(part: Part, dropout: float | None = None) -> StatesPart | Dense:
    """A part with its weights, fp32.

    Raises:
        InputError: its folder does not hold such a part.
    """
    if part.kind == "Decoder":
        return Decoder(load_transformer(part.folder, dropout))
    config = read_json(part.folder / "config.json")
    made: Connector | LatentAttention | Dense
    try:
        if part.kind == "Dense":
            made = dense_of(config, str(part.folder))
        else:
            made = (Connector if part.kind == "Connector" else LatentAttention)(**config)
        made.load_state_dict({name: tensor.float() for name, tensor in load_file(part.folder / WEIGHTS).items()})
    except (OSError, TypeError, KeyError, RuntimeError) as error:
        raise InputError(f"{part.folder}: holds no {part.kind} that can be read: {' '.join(str(error).split())[:200]}") from error
    return made


def save_model(model: Model, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a model and its tokenizer, load the parts back, and compare the vector of a probe sentence. `write_description` comes after it.

    Raises:
        RuntimeError: what was read back does not give the same vector.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in written_parts(folder):
        shutil.rmtree(old.folder)
    model.encoder.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    parts = [*model.parts, *model.dense]
    places = [path for path, name in module_paths([_kind(part) for part in parts]) if name in (*OF_STATES, *OF_VECTORS)]
    again = _joined(folder, model.pooling, [save_part(part, folder / place) for part, place in zip(parts, places, strict=True)])
    before, after = _probe(model, tokenizer), _probe(again, load_tokenizer(folder))
    if before.shape != after.shape or not torch.allclose(before, after, atol=1e-5):
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"{folder.name}: the saved model does not give the vectors of the one in memory")


def _joined(folder: Path, pooling: Pooling, places: Sequence[Part], dropout: float | None = None, layers: int | None = None) -> Model:
    found = [load_part(place, dropout) for place in places]
    parts = [part for part in found if not isinstance(part, Dense)]
    return Model(load_transformer(folder, dropout, layers), pooling, parts, [part for part in found if isinstance(part, Dense)]).eval()


def _kind(part: nn.Module) -> Kind:
    return cast(Kind, type(part).__name__)


def save_part(part: nn.Module, place: Path) -> Part:
    """Write a part into a folder of its own, as `load_part` reads it."""
    place.mkdir(exist_ok=True)
    if isinstance(part, Decoder):
        part.model.save_pretrained(place, safe_serialization=True)
    else:
        (place / "config.json").write_text(json.dumps(part.config, indent=2), encoding="utf-8")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in part.state_dict().items()}, place / WEIGHTS)
    return Part(_kind(part), place)


@torch.no_grad()
def _probe(model: Model, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    training = model.training
    model.eval()
    tokens = tokenizer(PROBE, return_tensors="pt", return_token_type_ids=False).to(next(model.parameters()).device)
    vector = model(tokens["attention_mask"], input_ids=tokens["input_ids"])
    model.train(training)
    return nn.functional.normalize(vector.float(), dim=-1).cpu()
