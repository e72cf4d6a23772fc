"""The mean of a model's vectors, and the layer that takes a share of it away."""

import numpy as np
import torch

from raysberta.models.model import Model
from raysberta.models.parts import Dense


def mean_of(vectors: np.ndarray) -> np.ndarray:
    """The mean [D], float64, of vectors [n, D]."""
    mean: np.ndarray = vectors.mean(0, dtype=np.float64)
    return mean


def mean_cosine(vectors: np.ndarray, less: np.ndarray) -> float:
    """Mean cosine of two different rows of [n, D], n at least 2, each less a vector [D]."""
    moved = vectors - less
    total = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).sum(0)
    count = len(vectors)
    return float((total @ total - count) / (count * (count - 1)))  # the square of the sum has every pair twice and each row with itself


@torch.no_grad()
def centred(model: Model, mean: np.ndarray, share: float) -> Model:
    """The model with one more layer, which takes away `share` of `mean` [D] and changes nothing else."""
    layer = Dense(model.dimension, model.dimension)
    layer.linear.weight.copy_(torch.eye(model.dimension))
    layer.linear.bias.copy_(torch.from_numpy(-share * mean))
    model.dense.append(layer)
    return model.eval()
