"""The stage that keeps some layers of an encoder: measured in one worker, written here."""

import logging
from dataclasses import dataclass
from typing import cast

import ray
import torch
from torch import nn

from raysberta.board import attach
from raysberta.errors import InputError
from raysberta.models.describe import describe, write_description
from raysberta.models.head import load_head, save_head
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.pairs.sample import measured_on
from raysberta.prefixes import Prefixes
from raysberta.progress import progress
from raysberta.pruning.facts import PruneFacts, Removal
from raysberta.pruning.layers import encoder_of, layers_of
from raysberta.pruning.prune import TOLERANCE, Stack, batches, removals, similarity, vectors
from raysberta.pruning.settings import Prune
from raysberta.spread import alone
from raysberta.storage.artifacts import Artifact
from raysberta.work import Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Measured:
    """What the worker found."""

    kept: list[int]
    removals: list[Removal]
    similarity: float
    first_layers: float


def run(work: Work[Prune]) -> PruneFacts:
    """Write the folder `model`: the encoder with the layers that are kept, its head for masked words, and its description.

    Raises:
        InputError: naming the phase, the setting and what is wrong.
    """
    try:
        return _pruned(work)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(f"phases.{work.node}: {error.cause}") from error
        raise
    except InputError as error:
        raise InputError(f"phases.{work.node}: {error}") from error


def _pruned(work: Work[Prune]) -> PruneFacts:
    base = work.inputs[work.settings.from_].folder("model")
    description, tokenizer, model = describe(base), load_tokenizer(base), load_encoder(base)
    count = len(layers_of(model)[1])
    _check_there(work.settings, count)
    texts = _texts(work, description.prefixes) if work.settings.pairs else []
    measured = _measured(work, texts) if texts else None
    kept = measured.kept if measured else list(work.settings.layers)
    smaller = encoder_of(model, kept)
    with work.draft.folder("model") as folder:
        save(smaller, tokenizer, folder)
        save_head(load_head(base, model), folder)
        write_description(folder, description)
    work.draft.rows_in, work.draft.rows_out = count, len(kept)
    facts = PruneFacts(
        kept=kept,
        layers_before=count,
        removals=measured.removals if measured else [],
        texts=len(texts),
        similarity=measured.similarity if measured else None,
        first_layers=measured.first_layers if measured else None,
        parameters_before=model.num_parameters(),
        parameters_after=smaller.num_parameters(),
    )
    log.info("%s: layers %s of %d kept, similarity %s", work.node, kept, count, facts.similarity)
    return facts


def _check_there(settings: Prune, count: int) -> None:
    if settings.keep is not None and settings.keep > count:
        raise InputError(f"keep: {settings.keep} layers, {settings.from_} has {count}; right would be 1 to {count}")
    if settings.layers and settings.layers[-1] >= count:
        raise InputError(f"layers: {settings.layers[-1]} is none of the {count} of {settings.from_}; right would be 0 to {count - 1}")


def _texts(work: Work[Prune], prefixes: Prefixes) -> list[str]:
    """What is measured on."""
    settings = work.settings
    return measured_on(work.inputs, settings.pairs, prefixes, settings.texts, "other pairs, or layers: [..] with pairs: []")


def _measured(work: Work[Prune], texts: list[str]) -> _Measured:
    """What the layers are worth."""
    given = work.inputs[work.settings.from_], texts, work.settings, work.node, work.workers.cpus
    return cast(_Measured, alone(_measure, work.workers, work.node, *given))


def _measure(base: Artifact, texts: list[str], settings: Prune, node: str, cpus: float) -> _Measured:
    """Choose the layers, or take those that are named, and compare them with the whole model and with its first layers."""
    attach()
    torch.set_num_threads(max(1, int(cpus)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = base.folder("model")
    description, model = describe(folder), load_encoder(folder)
    nn.Module.to(model, device)
    stack = Stack(model, description.pooling)
    given = batches(load_tokenizer(folder), texts, min(settings.max_tokens, description.max_tokens), device)
    kept, dropped = list(settings.layers or stack.all), []
    if settings.keep is not None:
        for removal in removals(stack, given, settings.keep):
            dropped.append(removal)
            kept.remove(removal.layer)
            progress(node, "layers", len(dropped), len(stack.all) - settings.keep)
    whole, found = vectors(stack, given, stack.all), vectors(stack, given, kept)
    written = Stack(encoder_of(model, kept).to(device), description.pooling)  # type: ignore[arg-type]
    if not torch.allclose(vectors(written, given, written.all), found, atol=TOLERANCE):
        raise RuntimeError(f"{node}: the encoder of layers {kept} does not give the vectors that were measured")
    first = vectors(stack, given, range(len(kept)))
    return _Measured(kept, dropped, similarity(found, whole), similarity(first, whole))
