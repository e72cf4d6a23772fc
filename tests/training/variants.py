"""The contrastive settings whose gradients are proven, and the batches that they are proven on."""

from typing import Any

import numpy as np

from raysberta.training.batches import ContrastivePlan
from raysberta.training.examples import Examples

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "margin": {"margin": 0.1},
    "same tower": {"same_tower": True},
    "matryoshka": {"dimensions": (32, 96)},
    "across devices": {"cross_device_negatives": True},
    "cosent": {"objectives": {"questions/qa": "cosent"}},
    "angle": {"objectives": {"questions/qa": "angle"}},
    "distillation": {"objectives": {"questions/qa": "distillation"}},
    "all together": {
        "margin": 0.1,
        "same_tower": True,
        "dimensions": (48,),
        "cross_device_negatives": True,
        "objectives": {"few/same": "cosent"},
    },
}


def batches_of_two_sources(examples: Examples) -> list[np.ndarray]:
    """A device batch of questions and one of paraphrases."""
    plan = ContrastivePlan(examples, 8, 2, {}, seed=0)
    return [next(rows for rows in plan.epoch(0) if examples.source[rows[0]] == source) for source in (1, 2)]
