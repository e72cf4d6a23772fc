"""The first stage of LUSIFER (arXiv 2501.00874): an encoder and a connector learn what a frozen decoder needs to be told.

The decoder reads the states of a text, [E; t] of n + 1 places, and after them the text that it writes, y. The state before each y_i gives
its logits; the loss is their mean cross entropy. Places of [E; t] see one another as the decoder's config has it, those of y see all of
[E; t] and what comes before them, but for what is hidden. Positions count what is no padding.

Rows of a step, which of a row is read and which tokens are hidden are drawn for all workers at once: their number changes nothing.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from raysberta.aligning.batch import AlignBatch, Lines, Row, make_batch, rows_of
from raysberta.aligning.facts import Losses, Written
from raysberta.aligning.settings import Align
from raysberta.errors import InputError
from raysberta.models.describe import describe, positions
from raysberta.models.folder import parts_of
from raysberta.models.language_head import LanguageHead, embedding_table, load_language_head
from raysberta.models.load import hash_tensors, load_tokenizer
from raysberta.models.model import Model, load_model
from raysberta.models.parts import Connector, Decoder, ends, positions_of
from raysberta.training.arrays import Tokens
from raysberta.training.batches import TextPlan
from raysberta.training.checkpoint import export_of, save_trained
from raysberta.training.chunks import Chunk, budget_of
from raysberta.training.encode import ChunkedEncoder, chunked_encoder
from raysberta.training.engine import device_of, workers
from raysberta.training.examples import Examples, check_fits
from raysberta.training.language import answer_of, mean_loss, set_apart, written_loss
from raysberta.training.loop import Part, Running, train
from raysberta.training.parts import trainable
from raysberta.training.settings import PartName

LEARNING: tuple[PartName, ...] = ("encoder", "connector")


class AlignModel(nn.Module):
    """A model of parts and its decoder's head: forward takes an AlignBatch, gives the worker's share of the mean loss of all tokens."""

    def __init__(self, encoder: ChunkedEncoder, head: LanguageHead) -> None:
        """Over a model that has a decoder.

        Args:
            encoder: With the model; of its decoder, and of the head, no weights require gradients.
            head: The decoder's.

        Raises:
            InputError: the model has no decoder behind what reads tokens, or two.
        """
        super().__init__()
        self.encoder = encoder
        self.head = head
        decoder_of(encoder.model)  # there is one

    @property
    def decoder(self) -> Decoder:
        """The part that writes."""
        return decoder_of(self.encoder.model)[1]

    def forward(self, batch: AlignBatch) -> Tensor:
        """A scalar."""
        encoder, chunks = self.encoder, batch.chunks
        rows, keeps = encoder.rows(chunks), encoder.kept(chunks)
        parts = zip(chunks.chunks, batch.lines, keeps, strict=True)
        states = torch.cat([encoder.run(self._states, rows, chunk, lines, keep=keep) for chunk, lines, keep in parts])
        pieces = self.decoder.model.config.vocab_size
        weights = batch.weights.to(states.dtype)
        return written_loss(self.head, embedding_table(self.decoder.model), states, batch.labels, weights, encoder.cast, pieces)

    def _states(self, rows: Tensor, chunk: Chunk, lines: Lines) -> Tensor:
        """The decoder's states [tokens, H] that the tokens of a chunk's lines are written from."""
        states, mask = self.encoder.hidden(rows, chunk), chunk.mask
        with self.encoder.cast(rows.device):
            place, decoder = decoder_of(self.encoder.model)
            for part in list(self.encoder.model.parts)[:place]:
                states, mask = part(states, mask)
            found = written_states(decoder, states, mask, lines)
        return found.to(torch.promote_types(found.dtype, torch.float32))


def written_states(decoder: Decoder, states: Tensor, mask: Tensor, lines: Lines) -> Tensor:
    """A decoder's states [tokens, H] before each token that it is to write.

    Args:
        decoder: Whatever its config says, what it writes sees nothing that comes later.
        states: [B, T, H]: what it is given of each text.
        mask: int64 [B, T] of 0 and 1.
        lines: What is to be written.
    """
    model = decoder.model
    words = model.get_input_embeddings()(lines.read).to(states.dtype)
    sees = seen_by(mask, lines, bidirectional=not getattr(model.config, "is_causal", True))
    barred = torch.zeros(sees.shape, dtype=states.dtype, device=sees.device).masked_fill(~sees, torch.finfo(states.dtype).min)
    counted = positions_of(torch.cat([mask, lines.there], 1))
    whole = torch.cat([states, words], 1)
    found = model(inputs_embeds=whole, attention_mask=barred[:, None], position_ids=counted, use_cache=False).last_hidden_state
    last = found[torch.arange(len(mask), device=mask.device), ends(mask) - 1]
    return torch.cat([last[:, None], found[:, mask.shape[1] :]], 1).flatten(0, 1)[lines.places]


def seen_by(mask: Tensor, lines: Lines, bidirectional: bool) -> Tensor:
    """Which places each place sees, bool [B, T + W, T + W]: each at least itself, for a softmax over nothing is NaN.

    Args:
        mask: int64 [B, T] of the texts.
        lines: What is written after them, W places.
        bidirectional: Whether places of a text see later ones of it.
    """
    text, width = mask.shape[1], mask.shape[1] + lines.read.shape[1]
    seen = torch.cat([mask, lines.seen], 1).bool()
    earlier = torch.ones(width, width, dtype=torch.bool, device=mask.device).tril()
    reach = earlier.clone()
    if bidirectional:
        reach[:text, :text] = True
    itself = torch.eye(width, dtype=torch.bool, device=mask.device)
    return (seen[:, None, :] & reach) | itself


def decoder_of(model: Model) -> tuple[int, Decoder]:
    """A model's decoder, and which of its parts that is.

    Raises:
        InputError: none is, or several are.
    """
    found = [(place, part) for place, part in enumerate(model.parts) if isinstance(part, Decoder)]
    if len(found) != 1:
        there = ", ".join(["an encoder", *(type(part).__name__ for part in model.parts)])
        raise InputError(f"from: the model has {there}; right would be one of an encoder and one decoder, by a phase of kind compose")
    return found[0]


class Texts:
    """What steps are made of: texts by the encoder's tokens, and the same texts by the decoder's."""

    def __init__(self, examples: Examples, written: Tokens, tokenizer: PreTrainedTokenizerFast, settings: Align, seed: int) -> None:
        """Rows to learn from, rows to measure on.

        Args:
            examples: Queries and positives by the encoder's tokens.
            written: The same sequences by the decoder's.
            tokenizer: The decoder's.
            settings: Of the phase.
            seed: Of all draws.

        Raises:
            InputError: the tokenizer has no end token.
        """
        if tokenizer.eos_token_id is None:
            raise InputError(f"decoder: the tokenizer of {settings.decoder} names no end token; right would be a generator that has one")
        self.examples, self.tokens, self.tokenizer, self.settings, self.seed = examples, written, tokenizer, settings, seed
        self.learned, self.apart = set_apart(examples)
        unknown = tokenizer.unk_token_id
        self.placeholder: int = tokenizer.eos_token_id if unknown is None else unknown

    def step(self, rows: np.ndarray, step: int) -> list[Row]:
        """The rows of a step."""
        own = np.random.default_rng((self.seed, step, 0)).random(len(rows)) < self.settings.reconstruction
        return self.rows(self.learned[rows], own, (self.seed, step, 1))

    def rows(self, rows: np.ndarray, own: np.ndarray, draw: tuple[int, ...], moved: int = 0) -> list[Row]:
        """Rows of the examples.

        Args:
            rows: Which.
            own: bool, of each whether its positive is reconstructed.
            draw: Seeds what is hidden.
            moved: The encoder reads the text of the row so many places on.
        """
        examples = self.examples
        read = np.roll(np.where(own, examples.positive[rows], examples.query[rows]), -moved)
        written = [answer_of(self.tokens[text], self.tokenizer, self.settings.written_tokens) for text in examples.positive[rows].tolist()]
        return rows_of([examples.tokens[text] for text in read.tolist()], written, self.settings.mask_probability, draw)


def train_align(
    settings: Align,
    start: Path,
    generator: Path,
    examples: Examples,
    written: Tokens,
    output: Path | None,
    **running: Unpack[Running],
) -> list[dict[str, float]]:
    """Align a model; needs no Ray. In an initialised process group all workers call it, and DeepSpeed does the steps.

    Args:
        settings: How; where the examples come from is not read.
        start: Folder of a model of an encoder and a decoder.
        generator: Folder of the decoder with its head and tokenizer.
        examples: Prepared with the model's tokenizer.
        written: The sequences of the examples, by the generator's tokenizer.
        output: Model folder to write (by the first worker), described as the one to start from.
        running: See `loop.Running`.

    Returns:
        The curve, as train_contrastive gives it.

    Raises:
        InputError: the model has no decoder, the generator is another, there are fewer rows than workers, texts do not fit.
        NotFinite: the loss or gradient is NaN or infinite.
    """
    seed = running["seed"]
    rank, world = workers()
    device, description = device_of(rank), describe(start)
    texts = Texts(examples, written, load_tokenizer(generator), settings, seed)
    if min(len(texts.learned), settings.batch_size) < world:
        raise InputError(f"{len(texts.learned)} rows in steps of {settings.batch_size} are too few for {world} workers")
    plan = TextPlan(len(texts.learned), settings.batch_size, seed)
    loaded = trainable(load_model(start, dropout=settings.dropout), settings, seed, LEARNING)
    check_fits(examples.tokens, loaded)
    _check_room(loaded, examples.tokens, written)
    module = aligned(loaded, generator, settings, device)

    def part_of(step: int, rank: int, world: int) -> Part:
        chosen = plan.step(step)
        rows, budget = texts.step(chosen, step), budget_of(settings.chunk_tokens, device)
        batch = make_batch(rows, texts.placeholder, budget, rank, world, settings.zero_stage == 3)
        shown = ", ".join(examples.ids[row].decode() for row in texts.learned[chosen[:4]])
        return Part(batch.to(device), batch.chunks.real + int((batch.weights > 0).sum()), f"pairs {shown}, ...")

    export = export_of(start, description, settings, seed, LEARNING)
    total = running.get("steps") or settings.steps or plan.steps(settings.epochs)
    curve = train(module, part_of, settings, total, device, {"name": "align", **running}, export)
    if output is not None and rank == 0:
        save_trained(loaded.cpu(), start, output, description)
    return curve


def _check_room(model: Model, texts: Tokens, written: Tokens) -> None:
    """See that the decoder has positions for a text and what is written after it."""
    _, decoder = decoder_of(model)
    most = positions(decoder.model.config.to_dict())
    longest = int(texts.lengths.max(initial=0)) + int(written.lengths.max(initial=0)) + 1
    longest += sum(part.config["tokens"] for part in model.parts if isinstance(part, Connector))
    if most is not None and longest > most:
        raise InputError(
            f"max_tokens: with what is written after it a text takes {longest} places, the decoder has {most}; right would be less"
        )


def aligned(model: Model, generator: Path, settings: Align, device: torch.device) -> AlignModel:
    """A model with the head of its decoder, on a device.

    Raises:
        InputError: it has no decoder, or the generator is another.
    """
    _, decoder = decoder_of(model)
    head = load_language_head(generator, decoder.model, f"decoder: {settings.decoder}").requires_grad_(False)
    return AlignModel(chunked_encoder(model.to(device), settings), head.to(device))


def measure(folder: Path, generator: Path, texts: Texts) -> Written | None:
    """What a model's decoder writes from its own states and from another row's, on rows set apart; None where there are none.

    Args:
        folder: Of the model.
        generator: Of the decoder.
        texts: With the rows.
    """
    if len(texts.apart) < 2:
        return None
    device = device_of(0)
    module = aligned(load_model(folder), generator, texts.settings, device).eval()

    def losses(own: bool) -> Losses:
        kinds = np.full(len(texts.apart), own)
        read, other = (texts.rows(texts.apart, kinds, (texts.seed, 2), moved) for moved in (0, 1))
        return Losses(own=_mean(module, read, texts, device), shuffled=_mean(module, other, texts, device))

    return Written(rows=len(texts.apart), reconstruction=losses(True), completion=losses(False))


@torch.no_grad()
def _mean(module: AlignModel, rows: Sequence[Row], texts: Texts, device: torch.device) -> float:
    """Mean loss of a token."""
    budget = budget_of(texts.settings.chunk_tokens, device)

    def loss(some: Sequence[Row]) -> Tensor:
        found: Tensor = module(make_batch(some, texts.placeholder, budget).to(device))
        return found

    return round(mean_loss(rows, [len(row.written) for row in rows], loss), 6)


def decoder_hash(folder: Path) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the weights of a model's decoder."""
    found = hashlib.sha256()
    for part in parts_of(folder):
        if part.kind == "Decoder":
            hash_tensors(found, part.folder)
    return found.hexdigest()
