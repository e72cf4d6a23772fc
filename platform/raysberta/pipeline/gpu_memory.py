"""Whether training phases fit on their GPUs, as far as it can be said before anything is fetched."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from raysberta.aligning.settings import AlignPhase
from raysberta.composing.settings import Compose
from raysberta.errors import InputError
from raysberta.models.outside import config_of
from raysberta.models.settings import Model
from raysberta.nodes import Node
from raysberta.pipeline.stages import workers_of
from raysberta.recipe import Recipe
from raysberta.training.outside import GIB, Memory, Sizes, memory_of, sizes_of
from raysberta.training.settings import ContrastivePhase, DistilPhase, MlmPhase
from raysberta.vocabulary.settings import Vocabulary


def gpu_memory(recipe: Recipe, nodes: Mapping[str, Node], name: str) -> Memory | None:
    """An estimate of what a node takes of each GPU; None where it trains on none, or its model's sizes are not at hand."""
    settings, workers = nodes[name].settings, workers_of(recipe, nodes[name])
    if not workers.gpus or not isinstance(settings, MlmPhase | ContrastivePhase | DistilPhase | AlignPhase):
        return None
    sizes = _sizes(nodes, settings.phase.from_)
    return memory_of(settings.phase, sizes, workers.workers) if sizes is not None else None


def too_large(recipe: Recipe, nodes: Mapping[str, Node]) -> list[str]:
    """The phases that take more than `limits.gpu_gib` by the estimate, a line each."""
    most, found = recipe.limits.gpu_gib, []
    for name in nodes if most is not None else ():
        memory = gpu_memory(recipe, nodes, name)
        if memory is not None and most is not None and memory.total > most * GIB:
            parts = f"weights {_gib(memory.weights)}, optimizer {_gib(memory.optimizer)}, activations {_gib(memory.activations)}"
            right = "recompute: true, recompute_layers: true, or lower chunk_tokens"
            found.append(
                f"phases.{name}: about {_gib(memory.total)} GiB of each GPU ({parts}), limits.gpu_gib is {most:g}; right would be {right}"
            )
    return found


def _sizes(nodes: Mapping[str, Node], name: str) -> Sizes | None:
    """Of a model: those of the one from outside that it began with, and the pieces that its vocabulary took over."""
    settings = nodes[name].settings
    if isinstance(settings, Model):
        try:
            config = config_of(settings)
        except InputError:
            return None  # named elsewhere: the model is not there
        sizes = sizes_of(config) if config is not None else None
        return _first(sizes, settings.layers) if sizes else None
    phase: Any = getattr(settings, "phase", settings)
    if isinstance(phase, Compose) and phase.encoder is not None and phase.decoder is not None:
        encoder, decoder = _sizes(nodes, phase.encoder), _sizes(nodes, phase.decoder)
        if encoder is None or decoder is None:
            return None
        return replace(encoder, decoder=_first(decoder, phase.decoder_layers))
    sizes = _sizes(nodes, str(phase.from_))
    if sizes is not None and isinstance(phase, Compose):
        return _first(sizes, phase.decoder_layers)
    if sizes is None or not isinstance(phase, Vocabulary) or phase.extend_from is None:
        return sizes
    donor = _sizes(nodes, phase.extend_from)
    return replace(sizes, vocabulary=sizes.vocabulary + donor.vocabulary) if donor else None


def _first(sizes: Sizes, layers: int | None) -> Sizes:
    """The sizes with the first layers alone; all where None."""
    return replace(sizes, layers=min(layers or sizes.layers, sizes.layers))


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
