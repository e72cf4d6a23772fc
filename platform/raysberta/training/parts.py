"""What of a model is trained, part by part: all its weights, low-rank adapters (LoRA, arXiv 2106.09685), or nothing.

Adapters are peft's. They are put into a transformer in place, so that nothing else knows of them, and merged into its weights before
anything is saved.
"""

from collections.abc import Collection, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from raysberta.errors import InputError
from raysberta.models.model import Model
from raysberta.models.parts import Connector, Decoder, LatentAttention
from raysberta.training.settings import Lora, PartName, Training

NAMES: Mapping[type[nn.Module], PartName] = {Connector: "connector", Decoder: "decoder", LatentAttention: "latent_attention"}
"""What settings call a part of states."""


def parts_by_name(model: Model) -> dict[PartName, list[nn.Module]]:
    """What a model is made of, by the names that settings have for it; what is called `encoder` may be a decoder that reads tokens."""
    found: dict[PartName, list[nn.Module]] = {"encoder": [model.encoder]}
    for part in model.parts:
        found.setdefault(NAMES[type(part)], []).append(part)
    return found | ({"dense": list(model.dense)} if len(model.dense) else {})


def trainable(model: Model, settings: Training, seed: int, read: Collection[PartName] | None = None) -> Model:
    """The same model, of which that alone requires gradients which the settings let learn.

    Args:
        model: As loaded.
        settings: Of the phase.
        seed: Adapters start from it, the same on every worker.
        read: The parts that the phase reads; all where None. What is not read is frozen.

    Raises:
        InputError: the settings name a part that the model has not or the phase does not read, layers that a transformer has not, or
            nothing is left to train.
    """
    every = parts_by_name(model)
    there = {name: parts for name, parts in every.items() if read is None or name in read}
    for name in settings.parts:
        if name not in there:
            why = "the model has none" if name not in every else "this phase does not read it"
            raise InputError(f"parts.{name}: {why}; there are {', '.join(there)}")
    model.requires_grad_(False)
    torch.manual_seed(seed)
    for name, parts in there.items():
        how = settings.freedom(name)
        for part in parts:
            part.requires_grad_(how != "frozen")
            if how == "lora":
                assert settings.lora is not None, "the settings see to it"
                _adapt(part.model if isinstance(part, Decoder) else part, settings.lora, name)
    if settings.freeze_embeddings:
        model.encoder.get_input_embeddings().weight.requires_grad_(False)
    for part in model.parts:
        if isinstance(part, Decoder):  # it is given states, and looks nothing up
            part.model.get_input_embeddings().weight.requires_grad_(False)
    if not any(weights.requires_grad for weights in model.parameters()):
        raise InputError(f"parts: nothing is left to train; right would be one of {', '.join(there)} that is not frozen")
    return model


def _adapt(transformer: nn.Module, settings: Lora, name: PartName) -> None:
    """Put adapters into a transformer, in place: they alone are trained."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds, and most training does without it

    assert isinstance(transformer, PreTrainedModel)
    targets: str | list[str] = list(settings.targets) or "all-linear"
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets)
    try:
        inject_adapter_in_model(config, transformer)
    except ValueError as error:
        names = sorted({name.rsplit(".", 1)[-1] for name, layer in transformer.named_modules() if type(layer).__name__ == "Linear"})
        there = f"there are {', '.join(names)}, or parts.{name}: frozen"
        raise InputError(f"lora.targets: no layer of the {name} has such a name; {there}") from error


def merged(model: Model) -> Model:
    """The same model with the products of its adapters added to its weights, as plain layers again."""
    for place, layer in list(model.named_modules()):
        if isinstance(getattr(layer, "base_layer", None), nn.Module):  # one of peft's, which is not imported to know it
            layer.merge()
            above, _, name = place.rpartition(".")
            setattr(model.get_submodule(above), name, layer.get_base_layer())
    for transformer in model.transformers():
        vars(transformer).pop("peft_config", None)
    return model
