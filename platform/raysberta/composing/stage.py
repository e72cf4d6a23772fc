"""The stage that joins parts to a model."""

import hashlib
import logging
from heapq import nsmallest
from itertools import chain
from pathlib import Path

from raysberta.composing.compose import Composed, composed, fit_to_texts, write
from raysberta.composing.facts import ComposeFacts, Fitted
from raysberta.composing.settings import Compose
from raysberta.errors import InputError
from raysberta.graph import Ref
from raysberta.models.attention import attention_of
from raysberta.models.model import Model
from raysberta.models.parts import Decoder
from raysberta.vocabulary.texts import document_texts
from raysberta.work import Work

log = logging.getLogger(__name__)

FITTED_TO = 4000
"""Most texts that a connector is fitted to: those of lowest hash, so that no order of documents matters."""
CHARACTERS = 1000
"""Of a text's beginning that is kept."""


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
        fitted = _fitted(work, made, decoder)
    except InputError as error:
        raise InputError(f"phases.{work.node}: {error}") from error
    with work.draft.folder("model") as target:
        write(made, target, decoder if encoder is None else None)
    model = made[0]
    facts = ComposeFacts(parts=_sizes(model), dimension=model.dimension, attention=_attention(work.settings, model), fitted=fitted)
    work.draft.rows_out = 1
    log.info("%s: %s parameters, vectors of %d dimensions", work.node, facts.parts, facts.dimension)
    return facts


def _fitted(work: Work[Compose], made: Composed, decoder: Path | None) -> Fitted | None:
    connector = work.settings.connector
    if connector is None or connector.documents is None or decoder is None:
        return None
    every = chain.from_iterable(document_texts(work.inputs[connector.documents].dataset("documents")))
    texts = nsmallest(FITTED_TO, (text[:CHARACTERS] for text in every), key=lambda text: hashlib.blake2b(text.encode()).digest())
    if not texts:
        raise InputError(f"connector.documents: {connector.documents} has no training documents; right would be connector.documents: null")
    fitted = fit_to_texts(made, decoder, texts)
    log.info("%s: the connector says %s of the variance of the decoder's embeddings", work.node, fitted.explained)
    return fitted


def _sizes(model: Model) -> dict[str, int]:
    named = [("encoder", model.encoder), *((type(part).__name__, part) for part in model.parts)]
    named += [(f"Dense {number}", layer) for number, layer in enumerate(model.dense, 1)]
    return {name: sum(weights.numel() for weights in part.parameters()) for name, part in named}


def _attention(settings: Compose, model: Model) -> str | None:
    decoders = [part.model for part in model.parts if isinstance(part, Decoder)]
    return attention_of(decoders[0] if decoders else model.encoder) if settings.decoder is not None else None
