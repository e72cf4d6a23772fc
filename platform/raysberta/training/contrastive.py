"""Contrastive training on one-source device batches, exact whatever the chunks and workers.

A step's texts, of all device batches together, are shared by the workers in order of length, so every worker has as many tokens to
encode as the others however long each source's texts are. The vectors are gathered, and every worker takes the loss of the whole
step from them: that is cheap beside encoding. What the gradient then needs is said in engine.py.

A pair of a text with itself is read twice, and dropout tells the readings apart: unsupervised SimCSE (arXiv 2104.08821).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from raysberta.errors import InputError
from raysberta.models.language_head import save_language_head
from raysberta.models.load import DROPOUTS
from raysberta.models.model import Model, load_model
from raysberta.training.arrays import within
from raysberta.training.batches import ContrastivePlan
from raysberta.training.checkpoint import export_of, save_trained
from raysberta.training.chunks import Chunks, budget_of, gathered_rows, make_chunks, most_chunks, plan_chunks, share
from raysberta.training.encode import ChunkedEncoder, chunked_encoder
from raysberta.training.engine import device_of, gathered, workers
from raysberta.training.examples import Examples, check_fits
from raysberta.training.generation import Dialogues, Writing, WritingBatch, writing_of
from raysberta.training.loop import Part, Running, train
from raysberta.training.objectives import (
    among_queries,
    angle,
    cosent,
    distillation,
    documents_of,
    hard_of,
    info_nce,
    relations_of,
    scores_of,
    spread,
)
from raysberta.training.parts import trainable
from raysberta.training.prepare import learned
from raysberta.training.settings import Contrastive, Objective
from raysberta.training.teacher import Projection, Rows, distances, projection, taught


@dataclass(frozen=True)
class DeviceBatch:
    """Which texts of a step are a device batch's queries and documents, and what they are to each other."""

    queries: torch.Tensor
    """int64 [B]."""
    documents: torch.Tensor
    """int64 [N]."""
    relations: torch.Tensor
    """int8 [B, N]."""
    objective: Objective
    """What is minimised."""
    among: torch.Tensor | None
    """int8 [B, B]: relations of the queries, where same-tower terms are asked for."""
    scores: torch.Tensor | None
    """float32 [B, N]: the teacher's, NaN where there is none; for objectives that learn from scores."""
    hard: torch.Tensor | None
    """bool [B, N]: the queries' own hard negatives, where these are weighted."""
    weight: int
    """Device batches that it stands for: several where negatives are shared across devices."""


@dataclass(frozen=True)
class ContrastiveBatch:
    """A step as one worker sees it: its share of the texts to encode, and all device batches."""

    chunks: Chunks
    """This worker's texts."""
    rows: torch.Tensor
    """int64 [texts of the step]: where the vector of each is among those of all workers."""
    batches: list[DeviceBatch]
    """All device batches of the step, over the places of its texts."""
    sides: tuple[torch.Tensor, torch.Tensor]
    """int64: places of the step's queries, and of its positives, each text once."""
    teacher: torch.Tensor | None
    """float32 [texts of the step, D]: what a teacher makes of them, L2-normalised; where there is one."""
    writing: WritingBatch | None = None
    """What is written beside."""


class ContrastiveModel(nn.Module):
    """Model and objective: forward takes a ContrastiveBatch, gives the mean loss of the device batches and the terms added to it."""

    def __init__(
        self, encoder: ChunkedEncoder, settings: Contrastive, projection: Projection | None = None, writing: Writing | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.projection = projection
        self.writing = writing

    def forward(self, batch: ContrastiveBatch) -> torch.Tensor:
        """The loss of the step, a scalar: the same on every worker, but for what is written, of which each has its share."""
        own = self.encoder.embed(batch.chunks)
        vectors = gathered(own, batch.rows)
        views = [vectors, *(F.normalize(vectors[:, :size], dim=-1) for size in self.settings.dimensions)]
        losses = [part.weight * self._loss(part, view) for view in views for part in batch.batches]
        loss = torch.stack(losses).sum() / (len(views) * sum(part.weight for part in batch.batches))
        if self.settings.spread_out:
            loss = loss + self.settings.spread_out * sum(spread(vectors[side]) for side in batch.sides)
        if batch.teacher is not None:
            loss = loss + self._distance(vectors, batch.teacher)
        if self.writing is not None and batch.writing is not None:
            loss = loss + self.writing.settings.weight * self.writing(self.encoder, batch.writing)
        return loss

    def _distance(self, vectors: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The term of distillation."""
        assert self.settings.distil is not None
        bridged = vectors if self.projection is None else self.projection(vectors)
        return self.settings.distil.weight * distances(bridged, teacher, self.settings.distil.loss).mean()

    def _loss(self, part: DeviceBatch, vectors: torch.Tensor) -> torch.Tensor:
        queries, documents, settings = vectors[part.queries], vectors[part.documents], self.settings
        if part.objective == "info_nce":
            return info_nce(
                queries, documents, part.relations, settings.temperature, settings.margin, part.among, part.hard, settings.hardness
            )
        assert part.scores is not None
        if part.objective in ("cosent", "angle"):
            return cosent(queries, documents, part.scores, settings.temperature, angle if part.objective == "angle" else None)
        return distillation(queries, documents, part.scores, settings.temperature, settings.teacher_temperature)


def make_batch(
    examples: Examples,
    batches: Sequence[np.ndarray],
    settings: Contrastive,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    teacher: Rows | None = None,
) -> ContrastiveBatch:
    """A worker's part of a step: each distinct text of its device batches is encoded once, by one worker; its own positive, twice.

    Args:
        examples: The prepared examples.
        batches: Rows of each device batch of the step, the same on every worker.
        settings: Objectives and the budget of a chunk.
        device: Where the tensors go.
        rank: The worker.
        world: Workers.
        teacher: The vectors of a teacher, where there is one.

    Raises:
        InputError: the step has fewer texts than there are workers.
    """
    place: dict[tuple[int, bool], int] = {}

    def places(sequences: np.ndarray, again: np.ndarray | None = None) -> torch.Tensor:
        """Of texts, or of the second reading of those that are read again."""
        readings = zip(sequences.tolist(), (np.zeros(len(sequences), bool) if again is None else again).tolist(), strict=True)
        return torch.tensor([place.setdefault(reading, len(place)) for reading in readings], device=device)

    objectives = objectives_of(examples, settings)
    margin = settings.guide_margin if settings.guide else None
    parts = []
    for rows, objective, weight in _joined(examples, batches, objectives, settings.cross_device_negatives):
        documents = documents_of(examples, rows)
        found = relations_of(examples, rows, documents, margin)
        if not settings.in_batch_negatives:
            found[(found < 0) & ~hard_of(examples, rows, documents)] = 0
        relations = torch.from_numpy(found).to(device)
        contrasts = objective == "info_nce"
        among = torch.from_numpy(among_queries(examples, rows)).to(device) if contrasts and settings.same_tower else None
        scores = None if contrasts else torch.from_numpy(scores_of(examples, rows, documents)).to(device)
        weighed = contrasts and settings.hardness
        hard = torch.from_numpy(hard_of(examples, rows, documents)).to(device) if weighed else None
        again = within(documents, np.sort(examples.query[rows][own_positive(examples, rows)]))
        own = places(examples.query[rows]), places(documents, again)
        parts.append(DeviceBatch(*own, relations, objective, among, scores, hard, weight))
    every = np.concatenate(batches)
    sides = places(_distinct(examples, examples.query[every])), places(_distinct(examples, examples.positive[every]))
    sequences = np.fromiter((sequence for sequence, _ in place), np.int64, len(place))
    if len(sequences) < world:
        raise InputError(f"resources: {world} workers for a step of {len(sequences)} texts; right would be fewer")
    lengths = examples.tokens.lengths[sequences]
    mine = share(lengths, rank, world)
    budget = budget_of(settings.chunk_tokens, device)
    most = most_chunks(lengths, world, budget) if settings.zero_stage == 3 else 0
    tokens, own = examples.tokens, sequences[mine]
    chunks = make_chunks([tokens[sequence] for sequence in own], plan_chunks(lengths[mine], budget), most, tokens.prompts[own])
    aim = taught(teacher, examples.taught[sequences], device) if teacher is not None else None
    return ContrastiveBatch(chunks.to(device), torch.from_numpy(gathered_rows(lengths, world)).to(device), parts, sides, aim)


def own_positive(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Which rows pair a text with itself, under one prefix: bool [rows]."""
    found: np.ndarray = examples.query[rows] == examples.positive[rows]
    return found


def check_differs(examples: Examples, model: Model, settings: Contrastive) -> None:
    """See that there is dropout where a text is read twice.

    Raises:
        InputError: there is none.
    """
    alike = own_positive(examples, np.arange(len(examples)))
    if not alike.any() or (settings.lora is not None and settings.lora.dropout):
        return
    configs = [transformer.config for transformer in model.transformers()]
    if not any(getattr(config, name, None) for config in configs for name in DROPOUTS):
        source = examples.sources[examples.source[alike.argmax()]]
        raise InputError(
            f"dropout: pairs of {source} are of a text with itself, and both readings would be one; right would be dropout: 0.1"
        )


def _distinct(examples: Examples, sequences: np.ndarray) -> np.ndarray:
    """Sequences of different texts, one of each."""
    return sequences[np.sort(np.unique(examples.raw[sequences], return_index=True)[1])]


def plan_of(examples: Examples, settings: Contrastive, seed: int) -> ContrastivePlan:
    """The batches that the settings ask for.

    Raises:
        InputError: see ContrastivePlan.
    """
    weights, sampling = settings.source_weights, settings.sampling
    return ContrastivePlan(examples, settings.batch_size, settings.device_batches, weights, seed, sampling, settings.size_exponent)


def objectives_of(examples: Examples, settings: Contrastive) -> list[Objective]:
    """The objective of each source.

    Raises:
        InputError: one is set for a source that is not there, or needs scores and the source's rows have none.
    """
    for name, objective in settings.objectives.items():
        if name not in examples.sources:
            raise InputError(f"objectives: no examples of {name!r}; there are {', '.join(examples.sources)}")
        rows = examples.source == examples.sources.index(name)
        if objective != "info_nce" and not np.isfinite(examples.positive_score[rows]).any():
            raise InputError(f"objectives: {objective} learns from scores, and no positive of {name} has one; right would be info_nce")
    return [settings.objectives.get(name, "info_nce") for name in examples.sources]


def _joined(
    examples: Examples, batches: Sequence[np.ndarray], objectives: Sequence[Objective], across: bool
) -> list[tuple[np.ndarray, Objective, int]]:
    """Rows, objective and weight of each batch to take a loss of: the device batches, or those of InfoNCE as one."""
    single = [(rows, objectives[examples.source[rows[0]]], 1) for rows in batches]
    together = [rows for rows, objective, _ in single if objective == "info_nce"]
    if not across or len(together) < 2:
        return single
    return [(np.concatenate(together), "info_nce", len(together)), *(one for one in single if one[1] != "info_nce")]


def train_contrastive(
    settings: Contrastive,
    encoder: Path,
    examples: Examples,
    output: Path | None,
    teacher: Rows | None = None,
    dialogues: Dialogues | None = None,
    **running: Unpack[Running],
) -> list[dict[str, float]]:
    """Train a model; needs no Ray. In an initialised process group all workers call it, and DeepSpeed does the steps.

    A short trial is `train_contrastive(settings, folder, examples, out, seed=42, steps=20)` with
    `examples = prepare(tables, load_tokenizer(folder), prefixes, ...)`, or `Examples.load` of what another process saved.

    Args:
        settings: How; where the examples come from is not read.
        encoder: Model folder to start from, which says how it pools where the settings do not.
        examples: Prepared with that folder's tokenizer.
        output: Model folder to write (by the first worker): loaded back and compared, described as the settings have it.
        teacher: The teacher's vectors, where the settings ask for its distance.
        dialogues: What is written beside, where the settings ask for it.
        running: See `loop.Running`.

    Returns:
        The curve, one dictionary a step: step, loss, learning_rate, gradient_norm, seconds, tokens, tokens_per_second.

    Raises:
        InputError: weights or objectives name no source, a step has fewer texts than workers, the texts do not fit the encoder,
            Matryoshka dimensions are wider than its vectors, the checkpoint does not fit, the model cannot write.
        NotFinite: the loss or gradient is NaN or infinite.
        NotSaved: a checkpoint cannot be written.
    """
    seed = running["seed"]
    rank, world = workers()
    plan = plan_of(examples, settings, seed)
    objectives_of(examples, settings)
    device, description = device_of(rank), learned(settings, encoder)
    loaded = trainable(load_model(encoder, dropout=settings.dropout, pooling=description.pooling), settings, seed)
    check_fits(examples.tokens, loaded)
    check_differs(examples, loaded, settings)
    for size in settings.dimensions:
        if size >= loaded.dimension:
            raise InputError(f"dimensions: {size} of vectors of {loaded.dimension}; right would be smaller numbers")
        if size % 2 and "angle" in settings.objectives.values():
            raise InputError(f"dimensions: {size} has no halves for the objective angle; right would be even numbers")
    if dialogues is not None and dialogues.plan.batch_size < world:
        raise InputError(f"generation: {dialogues.plan.batch_size} texts a step are too few for {world} workers; right would be more")
    writing = writing_of(loaded, encoder, settings).to(device) if dialogues is not None else None
    chunked = chunked_encoder(loaded.to(device), settings)  # which asks where it is
    bridge = projection(loaded.dimension, teacher.shape[1], seed) if teacher is not None else None
    model = ContrastiveModel(chunked, settings, bridge, writing)

    def part_of(step: int, rank: int, world: int) -> Part:
        batches = plan.step(step)
        batch, tokens = make_batch(examples, batches, settings, device, rank, world, teacher), 0
        if dialogues is not None:
            written = dialogues.part(step, budget_of(settings.chunk_tokens, device), rank, world, settings.zero_stage == 3)
            batch, tokens = replace(batch, writing=written.to(device)), written.chunks.real
        return Part(batch, batch.chunks.real + tokens, "; ".join(_name(examples, rows) for rows in batches))

    plain = export_of(encoder, description, settings, seed)

    def export(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
        plain(weights, folder)
        marked = ((name.partition("writing.head."), value) for name, value in weights.items())
        save_language_head({name: value for (_, mark, name), value in marked if mark}, folder)

    total = running.get("steps") or settings.steps or plan.steps(settings.epochs)
    curve = train(model, part_of, settings, total, device, {"name": "contrastive", **running}, export)
    if output is not None and rank == 0:
        save_trained(loaded.cpu(), encoder, output, description)
        if writing is not None:
            save_language_head(writing.head.state_dict(), output)
    return curve


def _name(examples: Examples, rows: np.ndarray) -> str:
    shown = ", ".join(examples.ids[row].decode() for row in rows[:4])
    return f"{examples.sources[examples.source[rows[0]]]} pairs {shown}{', ...' if len(rows) > 4 else ''}"
