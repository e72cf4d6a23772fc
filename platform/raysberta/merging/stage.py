"""The stage `mlm_merged`: the encoder layers after MLM, moved back towards those before."""

import logging
from collections.abc import Mapping

from raysberta.artifacts import Artifact, Draft
from raysberta.merging.merge import merge
from raysberta.recipe import Recipe

log = logging.getLogger(__name__)

VERSION: int = 1


def merge_after_mlm(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """SLERP of the encoder layers with weight `mlm.merge_weight` of the older model; the embeddings stay those that MLM learned."""
    weight = recipe.mlm.merge_weight
    with draft.folder("model") as folder:
        done = merge(inputs["mlm"].folder("model"), inputs["vocabulary"].folder("model"), folder, weight, "encoder_layers")
    draft.rows_in = draft.rows_out = done.tensors
    draft.metrics.update(weight=weight, **done.metrics())
    log.info("weight %g of the older: %d of %d tensors merged, %d of them linearly", weight, done.merged, done.tensors, done.linear)
