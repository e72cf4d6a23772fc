"""Embedding distillation: texts to a teacher's vectors, every distinct text once an epoch.

The loss is a mean over the texts of a step, so each worker takes that of its own share: no vector need be gathered, and the number of
workers changes neither loss nor gradient (the contract in engine.py).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import nn

from raysberta.errors import InputError
from raysberta.models.describe import describe
from raysberta.models.model import load_model
from raysberta.training.batches import TextPlan
from raysberta.training.checkpoint import export_of, save_trained
from raysberta.training.chunks import Chunks, budget_of, make_chunks, most_chunks, plan_chunks, share
from raysberta.training.encode import ChunkedEncoder, chunked_encoder
from raysberta.training.engine import device_of, workers
from raysberta.training.examples import check_fits
from raysberta.training.loop import Part, Running, train
from raysberta.training.parts import trainable
from raysberta.training.settings import Distance, Distil
from raysberta.training.teacher import Lessons, Projection, Rows, distances, projection, taught


@dataclass(frozen=True)
class DistilBatch:
    """A worker's part of a step."""

    chunks: Chunks
    """Its texts."""
    teacher: torch.Tensor
    """float32 [its texts, D]: what they are to become, L2-normalised."""
    scale: float
    """Times the summed distances gives this worker's share: workers / texts of the whole step."""


class DistilModel(nn.Module):
    """Model and projection: forward takes a DistilBatch, gives the worker's share of the mean distance over the step's texts."""

    def __init__(self, encoder: ChunkedEncoder, loss: Distance, projection: Projection | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.loss = loss
        self.projection = projection

    def forward(self, batch: DistilBatch) -> torch.Tensor:
        """A scalar."""
        vectors = self.encoder.embed(batch.chunks)
        if self.projection is not None:
            vectors = self.projection(vectors)
        return distances(vectors, batch.teacher, self.loss).sum() * batch.scale


def make_batch(
    lessons: Lessons, rows: np.ndarray, teacher: Rows, settings: Distil, device: torch.device, rank: int = 0, world: int = 1
) -> DistilBatch:
    """A worker's part of a step.

    Args:
        lessons: All texts.
        rows: Those of the step, over all workers.
        teacher: Its vectors.
        settings: The budget of a chunk.
        device: Where the tensors go.
        rank: The worker; it takes every `world`-th text in order of length, so all have as much to do.
        world: Workers.
    """
    lengths = lessons.tokens.lengths[rows]
    mine = share(lengths, rank, world)
    budget = budget_of(settings.chunk_tokens, device)
    most = most_chunks(lengths, world, budget) if settings.zero_stage == 3 else 0
    tokens, own = lessons.tokens, rows[mine]
    chunks = make_chunks([tokens[row] for row in own], plan_chunks(lengths[mine], budget), most, tokens.prompts[own])
    return DistilBatch(chunks.to(device), taught(teacher, lessons.row[rows[mine]], device), world / len(rows))


def train_distil(
    settings: Distil,
    encoder: Path,
    lessons: Lessons,
    teacher: Rows,
    output: Path | None,
    **running: Unpack[Running],
) -> list[dict[str, float]]:
    """Train a model; needs no Ray. In an initialised process group all workers call it, and DeepSpeed does the steps.

    Args:
        settings: How; who the teacher is and where the texts come from is not read.
        encoder: Model folder to start from, which says how it pools.
        lessons: Made with that folder's tokenizer.
        teacher: The teacher's vectors.
        output: Model folder to write (by the first worker), without the projection; described as the settings have it.
        running: See `loop.Running`.

    Returns:
        The curve, as train_contrastive gives it.

    Raises:
        InputError: there are fewer texts than workers, they do not fit the encoder, the checkpoint does not fit.
        NotFinite: the loss or gradient is NaN or infinite.
        NotSaved: a checkpoint cannot be written.
    """
    seed = running["seed"]
    rank, world = workers()
    if min(len(lessons), settings.batch_size) < world:
        raise InputError(f"{len(lessons)} texts in steps of {settings.batch_size} are too few for {world} workers")
    plan = TextPlan(len(lessons), settings.batch_size, seed)
    device, description = device_of(rank), describe(encoder, prefixes=settings.prefixes)
    loaded = trainable(load_model(encoder, dropout=settings.dropout), settings, seed)
    check_fits(lessons.tokens, loaded)
    bridge = projection(loaded.dimension, teacher.shape[1], seed)
    chunked = chunked_encoder(loaded.to(device), settings)  # which asks where it is
    model = DistilModel(chunked, settings.loss, bridge)

    def part_of(step: int, rank: int, world: int) -> Part:
        rows = plan.step(step)
        batch = make_batch(lessons, rows, teacher, settings, device, rank, world)
        shown = ", ".join(str(row) for row in rows[:4])
        return Part(batch, batch.chunks.real, f"texts {shown}, ... of the distinct training texts")

    export = export_of(encoder, description, settings, seed)
    total = running.get("steps") or settings.steps or plan.steps(settings.epochs)
    curve = train(model, part_of, settings, total, device, {"name": "distil", **running}, export)
    if output is not None and rank == 0:
        save_trained(loaded.cpu(), encoder, output, description)
    return curve
