"""Writing beside embedding (GRIT, arXiv 2402.09906): one decoder, whose tokens see all of a text where it makes vectors and nothing later
where it writes; both losses are summed.

A row is a question and its answer; the answer's tokens are predicted, its end token among them. The loss is a mean over the tokens of the
step, or over its texts of each text's mean, whoever of the workers has them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from raysberta.errors import InputError
from raysberta.models.attention import attention_of, sees_later_tokens
from raysberta.models.describe import positions
from raysberta.models.language_head import LanguageHead, embedding_table, load_language_head
from raysberta.models.load import load_tokenizer
from raysberta.models.model import Model, load_model
from raysberta.models.parts import Decoder
from raysberta.prefixes import Side
from raysberta.schema import Task
from raysberta.training.batches import TextPlan
from raysberta.training.chunks import Budget, Chunk, Chunks, budget_of, make_chunks, most_chunks, most_predicted, plan_chunks, share
from raysberta.training.encode import ChunkedEncoder, chunked_encoder
from raysberta.training.engine import device_of
from raysberta.training.examples import Examples
from raysberta.training.facts import Perplexity
from raysberta.training.language import answer_of, mean_loss, question_of, set_apart, written_loss
from raysberta.training.settings import Contrastive, Generation
from raysberta.training.survey import Reading, Way

TOKENS, MOVED = 6, 1e-6
"""Of the text on which it is seen what a token sees; of its own size, a state moves by more where it sees what changed."""


@dataclass(frozen=True)
class Dialogue:
    """A question and its answer."""

    ids: np.ndarray
    """int64 [n]: both."""
    first: int
    """The first token that is predicted; at least 1."""

    @property
    def predicted(self) -> np.ndarray:
        """int64: the tokens that are."""
        return self.ids[self.first :]


@dataclass(frozen=True)
class WritingBatch:
    """A worker's part of what a step writes."""

    chunks: Chunks
    places: list[Tensor]
    """Of each chunk: the states before the tokens that are predicted, int64 indices into its [texts * width] states."""
    labels: Tensor
    """int64 [predicted]: these tokens, chunk after chunk."""
    weights: Tensor
    """float32 [predicted]: what each counts, times the workers."""

    def to(self, device: torch.device) -> "WritingBatch":
        """The same on a device."""
        places = [where.to(device) for where in self.places]
        return WritingBatch(self.chunks.to(device), places, self.labels.to(device), self.weights.to(device))


class Writing(nn.Module):
    """The head of a decoder that is trained to make vectors, and the loss of what it writes."""

    def __init__(self, head: LanguageHead, settings: Generation) -> None:
        super().__init__()
        self.head = head
        self.settings = settings

    def forward(self, encoder: ChunkedEncoder, batch: WritingBatch) -> Tensor:
        """The worker's share of the loss, a scalar."""
        decoder, chunks = encoder.model.encoder, batch.chunks
        rows = encoder.rows(chunks)

        def states(rows: Tensor, chunk: Chunk, places: Tensor) -> Tensor:
            with encoder.cast(rows.device):
                found = causal_states(decoder, F.embedding(chunk.tokens, rows), chunk.mask)
            return found.flatten(0, 1)[places].to(torch.promote_types(found.dtype, torch.float32))

        parts = zip(chunks.chunks, batch.places, encoder.kept(chunks), strict=True)
        found = torch.cat([encoder.run(states, rows, chunk, places, keep=keep) for chunk, places, keep in parts])
        weights, pieces = batch.weights.to(found.dtype), decoder.config.vocab_size
        return written_loss(self.head, embedding_table(decoder), found, batch.labels, weights, encoder.cast, pieces)


def causal_states(decoder: PreTrainedModel, embedded: Tensor, mask: Tensor) -> Tensor:
    """A decoder's states [B, T, H] where no token sees a later one, whatever its config says."""
    states: Tensor = decoder(inputs_embeds=embedded, attention_mask=mask, is_causal=True, use_cache=False).last_hidden_state
    return states


class Dialogues:
    """What steps write."""

    def __init__(self, examples: Examples, model: Path, settings: Generation, seed: int) -> None:
        """Rows to learn from, rows to measure on.

        Args:
            examples: Questions and answers as `reading_of_dialogues` has them read.
            model: Folder of the model, for its tokenizer.
            settings: Of what is written.
            seed: Of the order.

        Raises:
            InputError: the tokenizer has no end token.
        """
        tokenizer = load_tokenizer(model)
        if tokenizer.eos_token_id is None:
            raise InputError("generation: the tokenizer names no end token, by which a text that is written ends")
        self.examples, self.tokenizer, self.settings = examples, tokenizer, settings
        self.learned, self.apart = set_apart(examples)
        self.plan = TextPlan(len(self.learned), settings.batch_size, seed)
        self.marker = len(tokenizer(settings.answer, add_special_tokens=False)["input_ids"])

    def part(self, step: int, budget: Budget, rank: int, world: int, even: bool) -> WritingBatch:
        """A worker's part of what a step writes; arguments as `make_writing`."""
        return make_writing(self.rows(self.learned[self.plan.step(step)]), self.settings, budget, rank, world, even)

    def rows(self, rows: np.ndarray) -> list[Dialogue]:
        """Rows of the examples."""
        tokens, found = self.examples.tokens, []
        for query, positive in zip(self.examples.query[rows].tolist(), self.examples.positive[rows].tolist(), strict=True):
            question = question_of(tokens[query], self.tokenizer)
            answer = answer_of(tokens[positive], self.tokenizer, self.settings.answer_tokens)
            first = len(question) + min(self.marker, len(answer) - 1)
            found.append(Dialogue(np.concatenate([question, answer]), max(1, first)))
        return found


def reading_of_dialogues(settings: Generation) -> Reading:
    """Queries are questions, positives answers, whatever their task."""
    ways = (Way(settings.question, settings.question_tokens), Way(settings.answer, settings.answer_tokens))
    of = {(task, side): int(side == "document") for task in get_args(Task) for side in get_args(Side)}
    return Reading(ways, of)


def make_writing(
    dialogues: Sequence[Dialogue], settings: Generation, budget: Budget, rank: int = 0, world: int = 1, even: bool = False
) -> WritingBatch:
    """A worker's part of what a step writes.

    Args:
        dialogues: Of the whole step.
        settings: Whether tokens count alike, or texts.
        budget: Of a chunk.
        rank: The worker; it takes every `world`-th text in order of length.
        world: Workers.
        even: All workers' parts have as many chunks and predictions, as ZeRO 3 needs it; what is added counts for nothing.
    """
    lengths = np.asarray([len(dialogue.ids) for dialogue in dialogues])
    counts = np.asarray([len(dialogue.predicted) for dialogue in dialogues])
    worth = np.full(len(counts), world / counts.sum()) if settings.mean == "token" else world / (len(counts) * counts)
    mine = share(lengths, rank, world)
    planned = plan_chunks(lengths[mine], budget)
    chunks = most_chunks(lengths, world, budget) if even else 0
    most = most_predicted(lengths, counts, world) if even else 0
    places = [_places([dialogues[row] for row in mine[group]]) for group in planned]
    order = mine[np.concatenate(planned)]
    labels = np.concatenate([dialogues[row].predicted for row in order])
    added = np.zeros(max(0, most - len(labels)), np.int64)
    places += [torch.zeros(0, dtype=torch.int64)] * (chunks - len(places))
    places[-1] = torch.cat([places[-1], torch.from_numpy(added)])
    weights = np.concatenate([np.repeat(worth[order], counts[order]), added]).astype(np.float32)
    made = make_chunks([dialogues[row].ids for row in mine], planned, chunks)
    return WritingBatch(made, places, torch.from_numpy(np.concatenate([labels, added])), torch.from_numpy(weights))


def _places(dialogues: Sequence[Dialogue]) -> Tensor:
    width = max(len(dialogue.ids) for dialogue in dialogues)
    before = [place * width + np.arange(each.first - 1, len(each.ids) - 1) for place, each in enumerate(dialogues)]
    return torch.from_numpy(np.concatenate(before))


def writing_of(model: Model, start: Path, settings: Contrastive) -> Writing:
    """The head that a model writes with, of its folder; frozen where adapters are trained.

    Raises:
        InputError: the model has nothing that reads tokens and writes.
    """
    assert settings.generation is not None
    check_writes(model)
    written = settings.generation
    longest, most = written.question_tokens + written.answer_tokens + 1, positions(model.encoder.config.to_dict())
    if most is not None and longest > most:
        raise InputError(
            f"generation: question and answer may take {longest} tokens, the decoder has places for {most}; right would be less"
        )
    head = load_language_head(start, model.encoder, "generation")
    return Writing(head.requires_grad_(settings.lora is None), written)


@torch.no_grad()
def check_writes(model: Model) -> None:
    """See that what reads tokens is a decoder whose states, when it is asked so, do not change with later tokens.

    Raises:
        InputError: they do, or it is an encoder, or the decoder stands behind one.
    """
    right = "right would be a model that a phase of kind compose made of a decoder alone, or generation: null"
    if any(isinstance(part, Decoder) for part in model.parts):
        raise InputError(f"generation: the decoder of this model reads states, not tokens; {right}")
    if attention_of(model.encoder) == "causal" and sees_later_tokens(model.encoder, 0):
        raise InputError(f"generation: this {model.encoder.config.model_type} is an encoder, which does not write; {right}")
    ids = torch.arange(1, 1 + TOKENS)[None]
    other = torch.cat([ids[:, :-1], ids[:, -1:] + 1], dim=1)
    table = model.encoder.get_input_embeddings()
    states, changed = (causal_states(model.encoder, table(text), torch.ones_like(text)) for text in (ids, other))
    if (states[:, 0] - changed[:, 0]).norm() > MOVED * states[:, 0].norm():
        raise InputError(f"generation: tokens of this {model.encoder.config.model_type} see later ones when it is to write; {right}")


def perplexity(folders: Sequence[Path], dialogues: Dialogues, settings: Contrastive) -> Perplexity | None:
    """What models make of answers that nothing was learned from; None where there are none.

    Args:
        folders: Of the model before and after training.
        dialogues: With the rows.
        settings: Of the phase.
    """
    if not len(dialogues.apart):
        return None
    rows = dialogues.rows(dialogues.apart)
    before, after = (_perplexity(folder, rows, settings) for folder in folders)
    return Perplexity(rows=len(rows), tokens=sum(len(row.predicted) for row in rows), before=before, after=after)


@torch.no_grad()
def _perplexity(folder: Path, rows: Sequence[Dialogue], settings: Contrastive) -> float:
    model, device = load_model(folder), device_of(0)
    writing = writing_of(model, folder, settings).to(device)
    encoder = chunked_encoder(model.to(device), settings)
    each = writing.settings.model_copy(update={"mean": "token"})
    budget = budget_of(settings.chunk_tokens, device)

    def loss(some: Sequence[Dialogue]) -> Tensor:
        found: Tensor = writing(encoder, make_writing(some, each, budget).to(device))
        return found

    return round(math.exp(mean_loss(rows, [len(row.predicted) for row in rows], loss)), 4)
