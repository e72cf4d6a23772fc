"""The stage that centres a model: texts read by one worker, the layer added here."""

import logging
from typing import cast

import numpy as np
import torch

from raysberta.board import attach
from raysberta.centring.centre import centred, mean_cosine, mean_of
from raysberta.centring.facts import CentreFacts
from raysberta.centring.settings import Centre
from raysberta.errors import InputError
from raysberta.models.describe import describe, write_description
from raysberta.models.load import load_tokenizer
from raysberta.models.model import load_model, save_model
from raysberta.pairs.sample import measured_on
from raysberta.retrieval.embed import Embedder
from raysberta.spread import alone
from raysberta.storage.artifacts import Artifact
from raysberta.work import Work

log = logging.getLogger(__name__)


def run(work: Work[Centre]) -> CentreFacts:
    """Write the folder `model`: the model with a layer that takes a share of the mean vector away, described as it was.

    Raises:
        InputError: naming the phase, there are fewer than two texts.
    """
    settings, base = work.settings, work.inputs[work.settings.from_]
    description = describe(base.folder("model"))
    try:
        texts = measured_on(work.inputs, settings.pairs, description.prefixes, settings.texts)
    except InputError as error:
        raise InputError(f"phases.{work.node}: {error}") from error
    vectors = cast(np.ndarray, alone(_embed, work.workers, work.node, base, texts, settings.max_tokens, work.workers.cpus))
    mean = mean_of(vectors)
    model, tokenizer = centred(load_model(base.folder("model")), mean, settings.share), load_tokenizer(base.folder("model"))
    with work.draft.folder("model") as folder:
        save_model(model, tokenizer, folder)
        write_description(folder, description)
    work.draft.rows_in = work.draft.rows_out = len(texts)
    before, after = (round(mean_cosine(vectors, share * mean), 4) for share in (0.0, settings.share))
    log.info("%s: mean cosine of two of %d texts %.4f to %.4f", work.node, len(texts), before, after)
    return CentreFacts(texts=len(texts), cosine_before=before, cosine_after=after)


def _embed(base: Artifact, texts: list[str], max_tokens: int, cpus: float) -> np.ndarray:
    attach()
    torch.set_num_threads(max(1, int(cpus)))
    return Embedder(base.folder("model"), max_tokens=max_tokens, precision="fp32").encode(texts, normalised=False)
