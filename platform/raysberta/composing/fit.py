"""How a connector begins: with states as large as its decoder's embeddings, or with the closed form of what those embeddings would be.

Closed form: each piece that an encoder cuts a text into has a state, and what the decoder reads in its place is the mean of its own
embeddings of the same characters. Ridge regression of the second layer, over a first one that is drawn at random, says the one by the
other. Nothing is trained by that, and a decoder that never changes is given from the start what looks like text to it.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.composing.facts import Fitted
from raysberta.models.parts import Connector

APART = 16
"""Of so many texts one is not learned from, but tells how well the others did."""
BATCH = 16
"""Texts that an encoder reads at once, of about one length."""
MAX_TOKENS = 128
"""Most of a text that are read."""
RIDGE = 0.01
"""Of the mean square of what comes out of the first layer."""
Pair = tuple[Tensor, Tensor]
"""States [n, H] and what they are to become [n, D]."""


@torch.no_grad()
def centre(connector: Connector, states: Tensor, size: float) -> None:
    """Let what comes out of a connector lie about zero and be as large as what its decoder is used to.

    Most of an encoder's states is the same in each of them: after a layer drawn at random 8 % of the square of what comes out of
    multilingual-e5-small's tells tokens of a text apart, and training makes that less. So biases take away the mean before each layer, and
    each number that goes in is as large as the others.

    Args:
        connector: Whose layers are drawn at random.
        states: [tokens, H] of some texts.
        size: Root mean square of a decoder's embeddings.
    """
    first, second = connector.first, connector.second
    first.weight.div_(states.std(0).clamp_min(torch.finfo(states.dtype).eps))
    first.bias.sub_(first.weight @ states.mean(0))
    found, _ = connector(states[None], torch.ones(1, len(states), dtype=torch.long))
    given = found[0, : len(states)]
    second.bias.sub_(given.mean(0))
    factor = size / rms(given - given.mean(0))
    for weights in second.parameters():
        weights.mul_(factor)
    connector.added.mul_(size)


@torch.no_grad()
def regress(connector: Connector, pairs: Iterable[Pair]) -> None:
    """Let a connector's second layer say what its states are to become, by ridge regression in float64.

    Args:
        connector: Whose first layer stays; nothing of the second is read.
        pairs: In batches, read once.
    """
    hidden, width = connector.config["hidden"], connector.width
    gram, cross = torch.zeros(hidden + 1, hidden + 1, dtype=torch.float64), torch.zeros(hidden + 1, width, dtype=torch.float64)
    for states, wanted in pairs:
        felt = F.pad(F.relu(connector.first(states)).double(), (0, 1), value=1.0)
        gram += felt.T @ felt
        cross += felt.T @ wanted.double()
    penalty = torch.full([hidden + 1], RIDGE * float(gram.diagonal()[:-1].mean()), dtype=torch.float64)
    penalty[-1] = 0.0  # of the bias
    found = torch.linalg.solve(gram + penalty.diag(), cross)
    connector.second.weight.copy_(found[:-1].T)
    connector.second.bias.copy_(found[-1])


def say_text(
    connector: Connector,
    reads: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    writes: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    texts: Sequence[str],
    max_tokens: int,
) -> Fitted:
    """Fit a connector to texts; its trained tokens begin as the decoder's token that ends a text.

    Args:
        connector: After `centre`.
        reads: An encoder and its tokenizer.
        writes: A decoder and its own.
        texts: Different ones.
        max_tokens: That the encoder reads of a text; of more than MAX_TOKENS that many.
    """
    max_tokens = min(max_tokens, MAX_TOKENS)
    apart = texts[::APART] if len(texts) > APART else []
    learned = [text for number, text in enumerate(texts) if number % APART or not apart]
    pieces = 0

    def counted() -> Iterator[Pair]:
        nonlocal pieces
        for pair in state_pairs(reads, writes, learned, max_tokens):
            pieces += len(pair[0])
            yield pair

    regress(connector, counted())
    _, tokenizer = writes
    if tokenizer.eos_token_id is not None:
        connector.added.data.copy_(_embeddings(writes[0], [tokenizer.eos_token_id]).expand_as(connector.added))
    return Fitted(texts=len(texts), pieces=pieces, explained=_explained(connector, list(state_pairs(reads, writes, apart, max_tokens))))


@torch.no_grad()
def state_pairs(
    reads: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    writes: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    texts: Sequence[str],
    max_tokens: int,
) -> Iterator[Pair]:
    """Of each piece with characters its state and the mean embedding of the same characters, a batch of texts at a time.

    Args:
        reads: An encoder and its tokenizer.
        writes: A decoder and its own.
        texts: Of which the beginning is read.
        max_tokens: So many of the encoder's tokens.
    """
    (encoder, cuts), (decoder, theirs) = reads, writes
    ordered = sorted(texts, key=len)
    for some in (ordered[begin : begin + BATCH] for begin in range(0, len(ordered), BATCH)):
        batch = cuts(some, return_offsets_mapping=True, truncation=True, max_length=max_tokens, padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        states = encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        found = []
        for text, row, spans in zip(some, states, batch["offset_mapping"], strict=True):
            written = theirs(text, return_offsets_mapping=True, add_special_tokens=False, return_tensors="pt")
            shares = shared(spans, written["offset_mapping"][0])
            known = shares.sum(1) > 0
            weights = shares[known] / shares[known].sum(1, keepdim=True)
            found.append((row[known], weights @ _embeddings(decoder, written["input_ids"][0].tolist())))
        yield torch.cat([pair[0] for pair in found]), torch.cat([pair[1] for pair in found])


def shared(ours: Tensor, theirs: Tensor) -> Tensor:
    """How many characters each of our pieces [n, 2] (begin, end) has in common with each of theirs [m, 2], float32 [n, m]."""
    begins, ends = torch.maximum(ours[:, None, 0], theirs[None, :, 0]), torch.minimum(ours[:, None, 1], theirs[None, :, 1])
    return (ends - begins).clamp_min(0).float()


def _explained(connector: Connector, pairs: Sequence[Pair]) -> float | None:
    if not pairs:
        return None
    states, wanted = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    with torch.no_grad():
        said = connector.second(F.relu(connector.first(states)))
    spread = (wanted - wanted.mean(0)).square().sum()
    return round(1 - float((said - wanted).square().sum() / spread), 4) if spread > 0 else None


def _embeddings(decoder: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    with torch.no_grad():
        rows: Tensor = decoder.get_input_embeddings()(torch.tensor(tokens, dtype=torch.long))
    return rows.float()


def rms(rows: Tensor) -> float:
    """Root mean square of the numbers."""
    return float(rows.float().square().mean().sqrt())
