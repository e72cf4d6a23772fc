"""Masked-language-model training: every distinct training text once an epoch, the head at masked positions only.

Texts are read without prefix (RECIPE.md 1.3: the unique texts of the contrastive pairs). Masks are drawn for a whole step from
the seed and the step, before the workers share the texts, so the number of workers changes neither texts, masks nor loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast

from raysberta.encoder.load import load_encoder, load_tokenizer, save
from raysberta.errors import InputError
from raysberta.recipe import Recipe
from raysberta.training.batches import MlmPlan
from raysberta.training.chunks import Chunk, Chunks, make_chunks, plan_chunks, share
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.engine import device_of, workers
from raysberta.training.examples import Ragged, check_fits
from raysberta.training.heads import MlmHead, load_head
from raysberta.training.loop import OnCheckpoint, OnStep, Work, train

IGNORED = -100
HEAD_ROWS = 2048
RANDOM_SHARE, KEPT_SHARE = 0.1, 0.1


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


class MlmModel(nn.Module):
    """Encoder and head: forward takes an MlmBatch, gives the worker's share of the mean loss over all predicted tokens."""

    def __init__(self, encoder: ChunkedEncoder, head: MlmHead) -> None:
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
        parts = zip(states.split(HEAD_ROWS), batch.labels.split(HEAD_ROWS), strict=True)
        losses = [self.encoder.run(self._summed, part, labels) for part, labels in parts]
        return torch.stack(losses).sum() * batch.scale

    def _chosen(self, rows: torch.Tensor, chunk: Chunk, positions: torch.Tensor) -> torch.Tensor:
        return self.encoder.hidden(rows, chunk).flatten(0, 1)[positions]

    def _summed(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(states.device.type, dtype=torch.bfloat16, enabled=self.encoder.precision == "bf16"):
            logits = self.head(states, self.encoder.encoder.get_input_embeddings().weight)
        return F.cross_entropy(logits.to(states.dtype), labels, reduction="sum")


@dataclass(frozen=True)
class Pieces:
    """What the masks need to know of a vocabulary."""

    mask: int
    special: np.ndarray
    """Ids that are never predicted."""
    ordinary: np.ndarray
    """Ids that a random replacement may be."""
    begins: np.ndarray | None = None
    """bool [ids]: whether a piece begins a word, where whole words are masked."""


def pieces_of(tokenizer: PreTrainedTokenizerFast, whole_words: bool = False) -> Pieces:
    """The pieces of a tokenizer. Words begin at "▁" (SentencePiece) or "Ġ" (byte-level BPE), and do not at "##" (WordPiece).

    Raises:
        InputError: it has no mask token; or whole words are asked for and none of its pieces says where words begin.
    """
    if tokenizer.mask_token_id is None:
        raise InputError("mlm: the tokenizer has no mask token; right would be a masked language model's, or mlm.enabled: false")
    special = np.asarray(sorted(set(tokenizer.all_special_ids)), np.int64)
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), special)
    return Pieces(tokenizer.mask_token_id, special, ordinary, _begins(tokenizer, special) if whole_words else None)


def _begins(tokenizer: PreTrainedTokenizerFast, special: np.ndarray) -> np.ndarray:
    texts = [str(text) for text in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
    if any(text.startswith("##") for text in texts):
        found = np.asarray([not text.startswith("##") for text in texts])
    else:
        found = np.asarray([text.startswith(("▁", "Ġ")) for text in texts])
    if not found.any():
        raise InputError("mlm.whole_words: no piece of the vocabulary is marked as a word's first; right would be mlm.whole_words: false")
    found[special] = True
    return found


def mask(tokens: np.ndarray, pieces: Pieces, probability: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens to predict: each ordinary one with `probability`; of these 80 % masked, 10 % random, 10 % kept.

    Where `pieces` knows which begin words, each word is chosen with `probability`, with all its pieces (what follows a special token
    begins one); each piece meets its own fate.

    Args:
        tokens: int [n], of many texts end to end.
        pieces: Of the vocabulary.
        probability: Share of ordinary tokens to predict.
        generator: Draws; the same state gives the same masks.

    Returns:
        What the encoder reads and the labels (IGNORED where nothing is predicted), int64 [n] both.
    """
    special = np.isin(tokens, pieces.special)
    drawn = generator.random(len(tokens))
    if pieces.begins is not None:
        begins = pieces.begins[tokens] | np.concatenate([[True], special[:-1]])
        drawn = drawn[np.maximum.accumulate(np.where(begins, np.arange(len(tokens)), 0))]
    chosen = (drawn < probability) & ~special
    fate = generator.random(len(tokens))
    strange = generator.choice(pieces.ordinary, len(tokens))
    read = tokens.astype(np.int64)
    labels = np.where(chosen, read, IGNORED)
    read[chosen & (fate >= RANDOM_SHARE + KEPT_SHARE)] = pieces.mask
    swapped = chosen & (fate < RANDOM_SHARE)
    read[swapped] = strange[swapped]
    return read, labels


def make_batch(
    texts: Ragged,
    rows: np.ndarray,
    pieces: Pieces,
    probability: float,
    draw: tuple[int, ...],
    chunk_tokens: int,
    rank: int = 0,
    world: int = 1,
) -> MlmBatch:
    """A worker's part of a step.

    Args:
        texts: All texts, tokenised.
        rows: Those of the step, over all workers.
        pieces: Of the vocabulary.
        probability: Of the mask.
        draw: Seeds the masks of the step.
        chunk_tokens: Budget of a chunk.
        rank: The worker; it takes every `world`-th text in order of length, so all have as much to do.
        world: Workers.
    """
    parts = [texts[row] for row in rows]
    cuts = np.cumsum([len(part) for part in parts])[:-1]
    read, labels = mask(np.concatenate(parts), pieces, probability, np.random.default_rng(draw))
    predicted = int((labels != IGNORED).sum())
    mine = share(np.asarray([len(part) for part in parts]), rank, world)
    reads, wanted = np.split(read, cuts), np.split(labels, cuts)
    return lay_out([reads[row] for row in mine], [wanted[row] for row in mine], chunk_tokens, world / max(1, predicted))


def lay_out(reads: Sequence[np.ndarray], labels: Sequence[np.ndarray], chunk_tokens: int, scale: float | None = None) -> MlmBatch:
    """Masked texts as chunks.

    Args:
        reads: What the encoder reads, int [length] each.
        labels: Of the same lengths: the right tokens, IGNORED where nothing is predicted.
        chunk_tokens: Budget of a chunk.
        scale: Of the summed loss; where None, the loss is the mean over these texts' predicted tokens.
    """
    lengths = np.asarray([len(read) for read in reads])
    positions, found = [], []
    for group in plan_chunks(lengths, chunk_tokens):
        matrix = np.full((len(group), int(lengths[group].max())), IGNORED, np.int64)
        for place, row in enumerate(group):
            matrix[place, : lengths[row]] = labels[row]
        flat = matrix.reshape(-1)
        where = np.flatnonzero(flat != IGNORED)
        positions.append(torch.from_numpy(where))
        found.append(torch.from_numpy(flat[where]))
    right = torch.cat(found)
    return MlmBatch(make_chunks(reads, chunk_tokens), positions, right, 1 / max(1, len(right)) if scale is None else scale)


def to(batch: MlmBatch, device: torch.device) -> MlmBatch:
    """The same batch on a device."""
    return MlmBatch(batch.chunks.to(device), [where.to(device) for where in batch.positions], batch.labels.to(device), batch.scale)


def train_mlm(
    recipe: Recipe,
    encoder: Path,
    texts: Ragged,
    output: Path | None,
    *,
    steps: int | None = None,
    checkpoints: Path | None = None,
    resume: Path | None = None,
    on_step: OnStep | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> list[dict[str, float]]:
    """Adapt an encoder; needs no Ray. In an initialised process group all workers call it, and DeepSpeed does the steps.

    Args:
        recipe: Its `mlm` section and seed.
        encoder: Model folder to start from; a head in its checkpoint, or beside it, is used.
        texts: Token ids of the distinct texts, special tokens included.
        output: Model folder to write (by the first worker), without the head.
        steps: Instead of the recipe's.
        checkpoints: Local folder for checkpoints; none where None.
        resume: A checkpoint to go on from.
        on_step: Called after each step on every worker.
        on_checkpoint: Called after each checkpoint on every worker.

    Returns:
        The curve, as train_contrastive gives it.

    Raises:
        InputError: there are no texts, fewer than workers, they do not fit the encoder, or the tokenizer has no mask token.
        NotFinite: the loss or gradient is NaN or infinite.
    """
    settings = recipe.mlm
    rank, world = workers()
    if min(len(texts), settings.batch_size) < world:
        raise InputError(f"mlm: {len(texts)} texts in steps of {settings.batch_size} are too few for {world} workers")
    tokenizer = load_tokenizer(encoder)
    pieces = pieces_of(tokenizer, settings.whole_words)
    plan = MlmPlan(len(texts), settings.batch_size, recipe.seed)
    device = device_of(rank)
    loaded = load_encoder(encoder, dropout=settings.dropout)
    check_fits("mlm", texts, loaded.config)
    head = load_head(encoder, loaded)
    nn.Module.to(loaded, device)  # before the wrapper, which asks where it is
    model = MlmModel(ChunkedEncoder(loaded, settings.precision, settings.recompute, settings.kept_tokens), head)

    def work(step: int, rank: int, world: int) -> Work:
        rows = plan.step(step)
        draw = (recipe.seed, step, 1)
        batch = make_batch(texts, rows, pieces, settings.mask_probability, draw, settings.chunk_tokens, rank, world)
        shown = ", ".join(str(row) for row in rows[:4])
        return Work(to(batch, device), batch.chunks.real, f"texts {shown}, ... of the distinct training texts")

    total = steps or settings.steps or plan.steps(settings.epochs)
    curve = train("mlm", model, work, settings, total, recipe.seed, device, checkpoints, resume, on_step, on_checkpoint)
    if output is not None and rank == 0:
        save(loaded.cpu(), tokenizer, output)
    return curve
