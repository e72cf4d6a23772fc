"""Low-rank adapters instead of all weights (LoRA, arXiv 2106.09685): by peft, merged into the weights before anything is saved."""

from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from raysberta.errors import InputError
from raysberta.training.settings import Lora

if TYPE_CHECKING:
    from peft import LoraModel


def with_adapters(encoder: PreTrainedModel, settings: Lora, seed: int) -> "LoraModel":
    """Put adapters into an encoder, in place: they alone are trained.

    Args:
        encoder: As loaded; goes on to be used as before.
        settings: Of the adapters.
        seed: Adapters start from it, the same on every worker.

    Raises:
        InputError: the encoder has no such layers.
    """
    from peft import LoraConfig, LoraModel  # takes a second, and most training does without it

    targets: str | list[str] = list(settings.targets) or "all-linear"
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets)
    torch.manual_seed(seed)
    try:
        return LoraModel(encoder, config, "default")
    except ValueError as error:
        names = sorted({name.rsplit(".", 1)[-1] for name, layer in encoder.named_modules() if type(layer).__name__ == "Linear"})
        raise InputError(f"lora.targets: no layer of the encoder has such a name; there are {', '.join(names)}") from error


def merged(adapted: "LoraModel") -> PreTrainedModel:
    """The encoder with the adapters' products added to its weights, as plain layers again."""
    encoder = adapted.merge_and_unload()
    assert isinstance(encoder, PreTrainedModel)
    for parameter in encoder.parameters():
        parameter.requires_grad_(True)
    return encoder
