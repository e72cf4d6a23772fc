"""Contrastive training: InfoNCE with in-batch and hard negatives on one-source batches, exact whatever the chunks and workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from raysberta.encoder.load import load_encoder, load_tokenizer, save
from raysberta.encoder.pool import Pooling
from raysberta.errors import InputError
from raysberta.recipe import Recipe
from raysberta.training.batches import ContrastivePlan
from raysberta.training.chunks import Chunks, make_chunks
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.engine import device_of, workers
from raysberta.training.examples import Examples
from raysberta.training.loop import OnCheckpoint, OnStep, Work, train
from raysberta.training.objectives import documents_of, info_nce, relations_of


@dataclass(frozen=True)
class DeviceBatch:
    """Which texts of a step are a device batch's queries and documents."""

    queries: torch.Tensor
    """int64 [B]."""
    documents: torch.Tensor
    """int64 [N]."""
    relations: torch.Tensor
    """int8 [B, N]."""


@dataclass(frozen=True)
class ContrastiveBatch:
    """A worker's part of a step: all its texts, each once, and its device batches over them."""

    chunks: Chunks
    batches: list[DeviceBatch]


class ContrastiveModel(nn.Module):
    """Encoder and InfoNCE: forward takes a ContrastiveBatch, gives the mean loss of its device batches."""

    def __init__(self, encoder: ChunkedEncoder, pooling: Pooling, temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.temperature = temperature

    def forward(self, batch: ContrastiveBatch) -> torch.Tensor:
        """The mean loss of the device batches, a scalar."""
        vectors = self.encoder.embed(batch.chunks, self.pooling)
        losses = [info_nce(vectors[part.queries], vectors[part.documents], part.relations, self.temperature) for part in batch.batches]
        return torch.stack(losses).mean()


def make_batch(examples: Examples, batches: Sequence[np.ndarray], chunk_tokens: int, device: torch.device) -> ContrastiveBatch:
    """The texts of some device batches, each distinct one once, in chunks; and the relations within each batch.

    Args:
        examples: The prepared examples.
        batches: Rows of each device batch.
        chunk_tokens: Budget of a chunk.
        device: Where the tensors go.
    """
    place: dict[int, int] = {}

    def places(sequences: np.ndarray) -> torch.Tensor:
        return torch.tensor([place.setdefault(int(sequence), len(place)) for sequence in sequences], device=device)

    parts = []
    for rows in batches:
        documents = documents_of(examples, rows)
        relations = torch.from_numpy(relations_of(examples, rows, documents)).to(device)
        parts.append(DeviceBatch(places(examples.query[rows]), places(documents), relations))
    return ContrastiveBatch(make_chunks([examples.tokens[sequence] for sequence in place], chunk_tokens).to(device), parts)


def train_contrastive(
    recipe: Recipe,
    encoder: Path,
    examples: Examples,
    output: Path | None,
    *,
    temperature: float | None = None,
    steps: int | None = None,
    checkpoints: Path | None = None,
    resume: Path | None = None,
    on_step: OnStep | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> list[dict[str, float]]:
    """Train an encoder; needs no Ray. In an initialised process group all workers call it, and DeepSpeed does the steps.

    A short trial is `train_contrastive(recipe, folder, examples, out, temperature=0.03, steps=20)` with
    `examples = prepare(tables, load_tokenizer(folder), recipe.prefixes, ...)`, or `Examples.load` of what another process saved.

    Args:
        recipe: Its `contrastive` section, prefixes, pooling and seed.
        encoder: Model folder to start from.
        examples: Prepared with that folder's tokenizer.
        output: Model folder to write (by the first worker): a plain Hugging Face folder, loaded back and compared.
        temperature: Instead of `recipe.contrastive.temperature`.
        steps: Instead of the recipe's; warm-up and decay then span these steps, the warm-up at most half of them.
        checkpoints: Local folder for checkpoints; none where None.
        resume: A checkpoint to go on from.
        on_step: Called after each step on every worker.
        on_checkpoint: Called after each checkpoint on every worker.

    Returns:
        The curve, one dictionary a step: step, loss, learning_rate, gradient_norm, seconds, tokens, tokens_per_second.

    Raises:
        InputError: weights name no source, the workers do not divide the device batches, the checkpoint does not fit.
        NotFinite: the loss or gradient is NaN or infinite.
    """
    settings = recipe.contrastive
    rank, world = workers()
    if settings.device_batches % world:
        raise InputError(f"contrastive.device_batches: {settings.device_batches} do not spread evenly over {world} workers")
    plan = ContrastivePlan(examples, settings.batch_size, settings.device_batches, settings.source_weights, recipe.seed)
    device = device_of(rank)
    loaded = load_encoder(encoder, dropout=settings.dropout)
    nn.Module.to(loaded, device)  # before the wrapper, which asks where it is
    model = ContrastiveModel(
        ChunkedEncoder(loaded, settings.precision, settings.recompute),
        recipe.encoder.pooling,
        temperature if temperature is not None else settings.temperature,
    )

    def work(step: int, rank: int, world: int) -> Work:
        batches = plan.step(step, rank, world)
        batch = make_batch(examples, batches, settings.chunk_tokens, device)
        return Work(batch, batch.chunks.real, "; ".join(_name(examples, rows) for rows in batches))

    total = steps or settings.steps or plan.steps(settings.epochs)
    curve = train("contrastive", model, work, settings, total, recipe.seed, device, checkpoints, resume, on_step, on_checkpoint)
    if output is not None and rank == 0:
        save(loaded.cpu(), load_tokenizer(encoder), output)
    return curve


def _name(examples: Examples, rows: np.ndarray) -> str:
    shown = ", ".join(examples.ids[row].decode() for row in rows[:4])
    return f"{examples.sources[examples.source[rows[0]]]} pairs {shown}{', ...' if len(rows) > 4 else ''}"
