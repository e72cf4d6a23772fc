"""The masked loss before any training, by how new rows start: what each initialisation is worth at hand."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from raysberta.models.head import MlmHead
from raysberta.models.model import Model
from raysberta.training.arrays import tokens_of
from raysberta.training.chunks import budget_of
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.masks import pieces_of
from raysberta.training.mlm import MlmModel, make_batch
from raysberta.training.survey import tokenise
from raysberta.vocabulary.initialise import Found, Initialisation, install, rows, table
from raysberta.vocabulary.revise import Revision

TEXTS = 160
"""Of all languages together: enough to tell initialisations apart, for all read the same masks."""
TOKENS = 48
PROBABILITY = 0.15
BUDGET = budget_of(2048, torch.device("cpu"))


@torch.inference_mode()
def first_losses(
    model: PreTrainedModel,
    head: MlmHead,
    revision: Revision,
    old: Tensor,
    ways: Iterable[Initialisation],
    found: Mapping[Initialisation, Found],
    texts: Sequence[str],
    seed: int,
) -> dict[Initialisation, float]:
    """Mean cross-entropy over the masked tokens of the texts, in nats, by initialisation.

    Args:
        model: With the revised vocabulary; it is left as it comes.
        head: Of that vocabulary.
        revision: Of the base's vocabulary.
        old: The base's rows [V, H].
        ways: What to compare.
        found: As in `initialise.rows`.
        texts: The same tokens of them are masked for all ways.
        seed: Of masks and draws.

    Raises:
        InputError: the tokenizer has no mask token.
    """
    tokens = tokens_of(tokenise(revision.tokenizer, [(text, TOKENS) for text in texts]))
    batch = make_batch(tokens, np.arange(len(tokens)), pieces_of(revision.tokenizer), PROBABILITY, (seed, 0), BUDGET)
    whole = MlmModel(ChunkedEncoder(Model(model, "mean"), "bf16", recompute=False), head)
    kept, losses = table(model), {}
    for how in ways:
        install(model, revision.tokenizer, rows(old, revision.origins, how, seed, found))
        losses[how] = round(float(whole(batch)), 4)
    install(model, revision.tokenizer, kept)
    return losses
