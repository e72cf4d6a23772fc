"""The contrastive settings whose gradients are proven, the batches that they are proven on, and settings as phases have them."""

from typing import Any

import numpy as np

from raysberta.training.batches import ContrastivePlan
from raysberta.training.examples import Examples
from raysberta.training.settings import Contrastive, Distil, Mlm

SEED = 42

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


def contrastive_settings(**changes: Any) -> Contrastive:
    """The defaults, but for changes."""
    return Contrastive(kind="contrastive", from_="tiny", examples=("mined",), **changes)


def mlm_settings(**changes: Any) -> Mlm:
    """The defaults, but for changes."""
    return Mlm(kind="mlm", from_="tiny", **changes)


def distil_settings(**changes: Any) -> Distil:
    """Those of a run of a few steps, but for changes."""
    short = {"learning_rate": 5e-4, "warmup_steps": 2, "precision": "fp32", "chunk_tokens": 96, "checkpoint_every": 3, "batch_size": 32}
    return Distil.model_validate({"kind": "distil", "from": "tiny", "teacher": "e5", "max_tokens": 16, **short, **changes})


def comparable(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """What of a curve is the same in every run."""
    return [{key: point[key] for key in ("step", "loss", "learning_rate", "gradient_norm", "tokens")} for point in curve]


def batches_of_two_sources(examples: Examples) -> list[np.ndarray]:
    """A device batch of questions and one of paraphrases."""
    plan = ContrastivePlan(examples, 8, 2, {}, seed=0)
    return [next(rows for rows in plan.epoch(0) if examples.source[rows[0]] == source) for source in (1, 2)]
