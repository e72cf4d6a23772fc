"""The layers of an encoder: where they are, which of them may follow which, and the encoder of some of them.

Nothing here knows a family of models. The layers are the one list of modules that is as long as the config says; a layer may take another
place if it has the same tensors as the layer that was there. So ModernBERT's first layer, which has no norm before its attention, stays.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from raysberta.errors import InputError
from raysberta.models.auto import AutoModel
from raysberta.models.describe import WITHOUT_POOLER

BY_LAYER = ("layer_types",)
"""Lists of a config that have an entry for each layer."""


def layers_of(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The list of an encoder's layers, and its name within the model.

    Raises:
        InputError: there is none of that length, or there are several.
    """
    count = getattr(model.config, "num_hidden_layers", None)
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if len(found) != 1:
        raise InputError(f"from: {_kind(model)} is not known to be one list of {count} layers; right would be a {_KNOWN} encoder")
    return found[0]


def fits(layers: nn.ModuleList, kept: Sequence[int]) -> bool:
    """Whether each of the kept layers has the tensors of the layer whose place it takes."""
    return all(layer == place or _shapes(layers[layer]) == _shapes(layers[place]) for place, layer in enumerate(kept))


def encoder_of(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A new encoder with some layers of another: the same weights bit by bit, numbered anew, and a config that says so.

    Args:
        model: An encoder.
        kept: Which of its layers, from 0, rising.

    Raises:
        InputError: the layers cannot take those places, or the config has a list by layer that is not known.
    """
    name, layers = layers_of(model)
    if not fits(layers, kept):
        raise InputError(f"layers: of {_kind(model)} a layer cannot take the place of another kind; right would be to keep layer 0")
    config = deepcopy(model.config)
    config.num_hidden_layers = len(kept)
    for key, values in _by_layer(model).items():
        setattr(config, key, [values[layer] for layer in kept])
    pooler = {"add_pooling_layer": False} if config.model_type in WITHOUT_POOLER else {}
    smaller = cast(PreTrainedModel, AutoModel.from_config(config, dtype=model.dtype, **pooler))
    smaller.load_state_dict(_renumbered(model.state_dict(), name, kept))
    return smaller.eval()


def _by_layer(model: PreTrainedModel) -> dict[str, list[object]]:
    """The lists of the config that have an entry for each layer."""
    count = model.config.num_hidden_layers
    found = {key: list(value) for key, value in model.config.to_dict().items() if isinstance(value, list | tuple) and len(value) == count}
    found.pop("architectures", None)  # names of classes, of one layer or not
    for key in found:
        if key not in BY_LAYER:
            said = f"config.json of {_kind(model)} has {count} entries under {key}, as many as layers"
            raise InputError(f"from: {said}, and what they are is not known; right would be a {_KNOWN} encoder")
    return found


def _renumbered(state: Mapping[str, torch.Tensor], name: str, kept: Sequence[int]) -> dict[str, torch.Tensor]:
    places = {str(layer): str(place) for place, layer in enumerate(kept)}
    found = {}
    for key, tensor in state.items():
        if not key.startswith(f"{name}."):
            found[key] = tensor
            continue
        layer, _, rest = key.removeprefix(f"{name}.").partition(".")
        if layer in places:
            found[f"{name}.{places[layer]}.{rest}"] = tensor
    return found


def _shapes(layer: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in layer.state_dict().items()}


def _kind(model: PreTrainedModel) -> str:
    return f"a model of type {model.config.model_type}"


_KNOWN = "bert, roberta, xlm-roberta or modernbert"
