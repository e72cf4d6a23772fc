"""Masked-language-model training: every distinct training text once an epoch, the head at masked positions only.

Texts are read without prefix: they are the distinct texts of the contrastive pairs (ru-en-RoSBERTa, arXiv 2408.12503). Masks are drawn
for a whole step from the seed and the step, before the workers share the texts, so the number of workers changes neither texts, masks
nor loss.

Masked next token prediction (LLM2Vec, arXiv 2404.05961) is for decoders: a masked token is predicted from the state of the token before it,
as the decoder has learned to, by its own head, which stays as it is.

With RetroMAE a decoder reconstructs each text from its vector as well, and the loss is the sum of both means. What its positions see is
drawn text by text, from the seed, the step and the text: that much would be too much to draw for all workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from raysberta.errors import InputError
from raysberta.models.attention import attention_of
from raysberta.models.describe import describe
from raysberta.models.head import MlmHead, load_head
from raysberta.models.language_head import LanguageHead, load_language_head
from raysberta.models.load import load_tokenizer
from raysberta.models.model import Model, load_model
from raysberta.models.pool import pool
from raysberta.training.arrays import Tokens
from raysberta.training.batches import TextPlan
from raysberta.training.checkpoint import export_of, save_trained
from raysberta.training.chunks import Budget, Chunk, Chunks, budget_of, make_chunks, most_chunks, most_predicted, plan_chunks, share
from raysberta.training.encode import ChunkedEncoder, chunked_encoder
from raysberta.training.engine import device_of, workers
from raysberta.training.examples import check_fits
from raysberta.training.loop import Part, Running, train
from raysberta.training.masks import IGNORED, Pieces, mask, pieces_of, visible
from raysberta.training.parts import parts_by_name, trainable
from raysberta.training.retromae import Decoder, embedded, fresh_decoder
from raysberta.training.settings import HEAD_ROWS, Mlm, PartName

READ: tuple[PartName, ...] = ("encoder",)
"""Words are predicted by the transformer that reads them; what its states go through in a model of several parts stays as it is."""


@dataclass(frozen=True)
class MlmBatch:
    """A worker's part of a step."""

    chunks: Chunks
    positions: list[torch.Tensor]
    """Of each chunk: where tokens are to be predicted, int64 indices into its [texts * width] states."""
    labels: torch.Tensor
    """int64 [predicted]: the right tokens, chunk after chunk."""
    scale: float
    """Times the summed loss gives this worker's share: workers / tokens predicted in the whole step."""

    def to(self, device: torch.device) -> "MlmBatch":
        """The same on a device."""
        return MlmBatch(self.chunks.to(device), [where.to(device) for where in self.positions], self.labels.to(device), self.scale)


@dataclass(frozen=True)
class RetroMaeBatch:
    """A worker's part of a step with RetroMAE."""

    masked: MlmBatch
    """What the encoder reads and predicts."""
    original: MlmBatch
    """The same texts in the same chunks, without masks: all ordinary tokens are to be predicted, by the decoder."""
    visible: list[torch.Tensor]
    """Of each chunk: which positions each position sees, bool [texts, width, width]."""

    def to(self, device: torch.device) -> "RetroMaeBatch":
        """The same on a device."""
        return RetroMaeBatch(self.masked.to(device), self.original.to(device), [seen.to(device) for seen in self.visible])


class MlmModel(nn.Module):
    """Encoder and head: forward takes an MlmBatch, gives the worker's share of the mean loss over all predicted tokens."""

    def __init__(self, encoder: ChunkedEncoder, head: MlmHead | LanguageHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: MlmBatch) -> torch.Tensor:
        """A scalar; 0 where nothing is predicted."""
        rows = self.encoder.rows(batch.chunks)
        states = torch.cat(
            [
                self.encoder.run(self._chosen, rows, chunk, positions, keep=keep)
                for chunk, positions, keep in zip(batch.chunks.chunks, batch.positions, self.encoder.kept(batch.chunks), strict=True)
            ]
        )
        return self.loss(states, batch)

    def loss(self, states: torch.Tensor, batch: MlmBatch) -> torch.Tensor:
        """The batch's share of the mean loss, of the states [predicted, H] at its positions; logits of HEAD_ROWS at a time."""
        parts = zip(states.split(HEAD_ROWS), batch.labels.split(HEAD_ROWS), strict=True)
        losses = [self.encoder.run(self._summed, part, labels) for part, labels in parts]
        return torch.stack(losses).sum() * batch.scale

    def _chosen(self, rows: torch.Tensor, chunk: Chunk, positions: torch.Tensor) -> torch.Tensor:
        return self.encoder.hidden(rows, chunk).flatten(0, 1)[positions]

    def _summed(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with self.encoder.cast(states.device):
            logits = self.head(states, self.encoder.model.encoder.get_input_embeddings().weight)
        return F.cross_entropy(logits.to(states.dtype), labels, reduction="sum")


class RetroMaeModel(nn.Module):
    """With a decoder: forward takes a RetroMaeBatch, gives the worker's share of both mean losses, the encoder's and the decoder's."""

    def __init__(self, mlm: MlmModel, decoder: Decoder) -> None:
        super().__init__()
        self.mlm = mlm
        self.decoder = decoder

    def forward(self, batch: RetroMaeBatch) -> torch.Tensor:
        """A scalar."""
        encoder, masked, original = self.mlm.encoder, batch.masked, batch.original
        rows, originals = encoder.rows(masked.chunks), encoder.rows(original.chunks)
        chosen, decoded = [], []
        for place, keep in enumerate(encoder.kept(masked.chunks)):
            states = encoder.run(self._both, rows, originals, batch, place, keep=keep)
            chosen.append(states[: len(masked.positions[place])])
            decoded.append(states[len(masked.positions[place]) :])
        return self.mlm.loss(torch.cat(chosen), masked) + self.mlm.loss(torch.cat(decoded), original)

    def _both(self, rows: torch.Tensor, originals: torch.Tensor, batch: RetroMaeBatch, place: int) -> torch.Tensor:
        """A chunk's states where the encoder predicts, then those where the decoder does."""
        encoder, chunk, tokens = self.mlm.encoder, batch.masked.chunks.chunks[place], batch.original.chunks.chunks[place].tokens
        hidden = encoder.hidden(rows, chunk)
        with encoder.cast(rows.device):
            words, positions = embedded(encoder.model.encoder, F.embedding(tokens, originals))
            decoded = self.decoder(pool(hidden, chunk.mask, encoder.model.pooling), words, positions, batch.visible[place])
        return torch.cat(
            [
                hidden.flatten(0, 1)[batch.masked.positions[place]],
                decoded.to(hidden.dtype).flatten(0, 1)[batch.original.positions[place]],
            ]
        )


def make_batch(
    texts: Tokens,
    rows: np.ndarray,
    pieces: Pieces,
    probability: float,
    draw: tuple[int, ...],
    budget: Budget,
    rank: int = 0,
    world: int = 1,
    even: bool = False,
    next_token: bool = False,
) -> MlmBatch:
    """A worker's part of a step.

    Args:
        texts: All texts, tokenised.
        rows: Those of the step, over all workers.
        pieces: Of the vocabulary.
        probability: Of the mask.
        draw: Seeds the masks of the step.
        budget: Of a chunk.
        rank: The worker; it takes every `world`-th text in order of length, so all have as much to do.
        world: Workers.
        even: All workers' parts have as many chunks and predictions, as ZeRO 3 needs it; what is added counts for nothing.
        next_token: A token is predicted where the one before it stands; a text's first one, which has none, is not.
    """
    parts = [texts[row] for row in rows]
    cuts = np.cumsum([len(part) for part in parts])[:-1]
    read, labels = mask(np.concatenate(parts), pieces, probability, np.random.default_rng(draw))
    wanted = np.split(labels, cuts)
    if next_token:
        wanted = [np.append(own[1:], IGNORED) for own in wanted]
    return _part(np.split(read, cuts), wanted, budget, rank, world, even)


def _part(reads: Sequence[np.ndarray], labels: Sequence[np.ndarray], budget: Budget, rank: int, world: int, even: bool = False) -> MlmBatch:
    """A worker's of all texts of a step."""
    counts = np.asarray([(wanted != IGNORED).sum() for wanted in labels])
    lengths = np.asarray([len(read) for read in reads])
    mine = share(lengths, rank, world)
    least = (most_chunks(lengths, world, budget), most_predicted(lengths, counts, world)) if even else (0, 0)
    scale = world / max(1, int(counts.sum()))
    return lay_out([reads[row] for row in mine], [labels[row] for row in mine], budget, scale, least)


def lay_out(
    reads: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    budget: Budget,
    scale: float | None = None,
    least: tuple[int, int] = (0, 0),
) -> MlmBatch:
    """Masked texts as chunks.

    Args:
        reads: What the encoder reads, int [length] each.
        labels: Of the same lengths: the right tokens, IGNORED where nothing is predicted.
        budget: Of a chunk.
        scale: Of the summed loss; where None, the loss is the mean over these texts' predicted tokens.
        least: Chunks and predicted tokens that there are at least; what is added counts for nothing.
    """
    lengths = np.asarray([len(read) for read in reads])
    positions, found = [], []
    planned = plan_chunks(lengths, budget)
    for group in planned:
        matrix = np.full((len(group), int(lengths[group].max())), IGNORED, np.int64)
        for place, row in enumerate(group):
            matrix[place, : lengths[row]] = labels[row]
        flat = matrix.reshape(-1)
        where = np.flatnonzero(flat != IGNORED)
        positions.append(torch.from_numpy(where))
        found.append(torch.from_numpy(flat[where]))
    scale = 1 / max(1, sum(map(len, found))) if scale is None else scale
    positions += [torch.zeros(0, dtype=torch.int64)] * (least[0] - len(positions))
    ignored = max(0, least[1] - sum(map(len, found)))
    positions[-1] = torch.cat([positions[-1], torch.zeros(ignored, dtype=torch.int64)])
    right = torch.cat([*found, torch.full((ignored,), IGNORED)])
    return MlmBatch(make_chunks(reads, planned, least[0]), positions, right, scale)


def reconstructed(
    masked: MlmBatch,
    texts: Tokens,
    rows: np.ndarray,
    pieces: Pieces,
    hidden: float,
    draw: tuple[int, ...],
    budget: Budget,
    rank: int = 0,
    world: int = 1,
) -> RetroMaeBatch:
    """The same part of a step as `masked`, with what the decoder needs.

    Args:
        masked: As make_batch gave it for the same texts, rows, budget and worker.
        texts: All texts, tokenised.
        rows: Those of the step, over all workers.
        pieces: Of the vocabulary.
        hidden: Share of the other tokens that a position of the decoder does not see.
        draw: Seeds, each text with its row appended, what positions see.
        budget: Of a chunk.
        rank: The worker.
        world: Workers.
    """
    parts = [texts[row].astype(np.int64) for row in rows]
    labels = [np.where(np.isin(part, pieces.special), IGNORED, part) for part in parts]
    original = _part(parts, labels, budget, rank, world)
    mine = share(np.asarray([len(part) for part in parts]), rank, world)
    shapes = [(*chunk.tokens.shape, chunk.tokens.shape[1]) for chunk in original.chunks.chunks]
    seen = [torch.zeros(shape, dtype=torch.bool) for shape in shapes]
    for matrices in seen:
        matrices[:, :, 0] = True  # for padding too: a softmax over nothing is NaN
    laid = [matrix for matrices in seen for matrix in matrices]
    for place, row in zip(mine.tolist(), original.chunks.order.tolist(), strict=True):
        drawn = visible(parts[place], pieces, hidden, np.random.default_rng((*draw, int(rows[place]))))
        laid[row][: len(drawn), : len(drawn)] = torch.from_numpy(drawn)
    return RetroMaeBatch(masked, original, seen)


def _check_sees_all(model: Model) -> None:
    if attention_of(model.encoder) != "bidirectional":
        kind = f"what reads tokens is of type {model.encoder.config.model_type}, and is not set to see what follows a token"
        raise InputError(f"next_token: {kind}; right would be a decoder composed with attention: bidirectional, or next_token: false")


def train_mlm(
    settings: Mlm,
    encoder: Path,
    texts: Tokens,
    output: Path | None,
    **running: Unpack[Running],
) -> list[dict[str, float]]:
    """Adapt an encoder; needs no Ray. In an initialised process group all workers call it, and DeepSpeed does the steps.

    Args:
        settings: How; where the texts come from is not read.
        encoder: Model folder to start from, which says how it pools; a head in its checkpoint, or beside it, is used.
        texts: Token ids of the distinct texts, special tokens included.
        output: Model folder to write (by the first worker), without head and decoder; described as the one to start from.
        running: See `loop.Running`.

    Returns:
        The curve, as train_contrastive gives it.

    Raises:
        InputError: there are no texts, fewer than workers, they do not fit the encoder, the tokenizer has no mask token, RetroMAE
            does not know the encoder's kind, or the next token is to be predicted and the model is no decoder whose tokens see all others.
        NotFinite: the loss or gradient is NaN or infinite.
    """
    seed = running["seed"]
    rank, world = workers()
    if min(len(texts), settings.batch_size) < world:
        raise InputError(f"{len(texts)} texts in steps of {settings.batch_size} are too few for {world} workers")
    tokenizer, description = load_tokenizer(encoder), describe(encoder)
    pieces = pieces_of(tokenizer, settings.whole_words, settings.mask_token)
    plan = TextPlan(len(texts), settings.batch_size, seed)
    device = device_of(rank)
    loaded = trainable(load_model(encoder, dropout=settings.dropout), settings, seed, READ)
    if settings.retromae is not None and (len(loaded.parts) or len(loaded.dense)):
        there = ", ".join(list(parts_by_name(loaded))[1:])
        raise InputError(
            f"retromae: vectors of the encoder are learned, and this model has {there} behind it; right would be retromae: null"
        )
    check_fits(texts, loaded)
    head: MlmHead | LanguageHead
    if settings.next_token:
        _check_sees_all(loaded)
        head = load_language_head(encoder, loaded.encoder, "next_token").requires_grad_(False)
    else:
        head = load_head(encoder, loaded.encoder)
    mlm = MlmModel(chunked_encoder(loaded.to(device), settings), head)  # which asks where it is
    model = mlm if settings.retromae is None else RetroMaeModel(mlm, fresh_decoder(loaded.encoder, seed))

    def part_of(step: int, rank: int, world: int) -> Part:
        rows = plan.step(step)
        budget, draw = budget_of(settings.chunk_tokens, device), (seed, step, 1)
        even = settings.zero_stage == 3
        masked = make_batch(texts, rows, pieces, settings.mask_probability, draw, budget, rank, world, even, settings.next_token)
        batch: MlmBatch | RetroMaeBatch = masked
        if settings.retromae is not None:
            batch = reconstructed(masked, texts, rows, pieces, settings.retromae.decoder_mask, (seed, step, 2), budget, rank, world)
        shown = ", ".join(str(row) for row in rows[:4])
        return Part(batch.to(device), masked.chunks.real, f"texts {shown}, ... of the distinct training texts")

    export = export_of(encoder, description, settings, seed, READ)
    total = running.get("steps") or settings.steps or plan.steps(settings.epochs)
    curve = train(model, part_of, settings, total, device, {"name": "mlm", **running}, export)
    if output is not None and rank == 0:
        save_trained(loaded.cpu(), encoder, output, description)
    return curve
