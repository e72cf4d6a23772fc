"""The stage that joins parts to a model."""

import logging
from pathlib import Path

from raysberta.composing.compose import composed, write
from raysberta.composing.facts import ComposeFacts
from raysberta.composing.settings import Compose
from raysberta.errors import InputError
from raysberta.graph import Ref
from raysberta.models.attention import attention_of
from raysberta.models.model import Model
from raysberta.models.parts import Decoder
from raysberta.work import Work

log = logging.getLogger(__name__)


def run(work: Work[Compose]) -> ComposeFacts:
    """Write the folder `model`: the parts, the tokenizer of what reads tokens, and their description.

    Raises:
        InputError: naming the phase, the setting and what is wrong.
    """

    def folder(name: Ref | None) -> Path | None:
        return work.inputs[name].folder("model") if name is not None else None

    encoder, decoder = folder(work.settings.encoder), folder(work.settings.decoder)
    try:
        made = composed(work.settings, encoder, decoder, work.seed)
    except InputError as error:
        raise InputError(f"phases.{work.node}: {error}") from error
    with work.draft.folder("model") as target:
        write(made, target, decoder if encoder is None else None)
    model = made[0]
    facts = ComposeFacts(parts=_sizes(model), dimension=model.dimension, attention=_attention(work.settings, model))
    work.draft.rows_out = 1
    log.info("%s: %s parameters, vectors of %d dimensions", work.node, facts.parts, facts.dimension)
    return facts


def _sizes(model: Model) -> dict[str, int]:
    named = [("encoder", model.encoder), *((type(part).__name__, part) for part in model.parts)]
    named += [(f"Dense {number}", layer) for number, layer in enumerate(model.dense, 1)]
    return {name: sum(weights.numel() for weights in part.parameters()) for name, part in named}


def _attention(settings: Compose, model: Model) -> str | None:
    decoders = [part.model for part in model.parts if isinstance(part, Decoder)]
    return attention_of(decoders[0] if decoders else model.encoder) if settings.decoder is not None else None
