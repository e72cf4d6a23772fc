"""GPU memory of a training phase, from the sizes of its model alone: what a dry run says before anything is started. No torch here.

As if every text were as long as allowed. What is counted of a layer are the tensors that autograd keeps of it (a test counts them);
attention is FlashAttention's, which keeps no matrix of weights. A step takes no less than that, so what is refused does not fit; what is
let through may not fit either: on a processor a step took 1.0 to 2.3 times the estimate, and no GPU was at hand.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysberta.aligning.settings import Align
from raysberta.training.settings import HEAD_ROWS, MOST_LOGITS, Contrastive, Distil, Freedom, Mlm, PartName

GIB = 2**30
CONTEXT = GIB
"""Of CUDA, its libraries and the workspace of matrix products."""
BUCKET = 5 * 10**8
"""Gradients that DeepSpeed sums up at once, in two buffers."""
FROZEN = 0.5
"""Share of a layer's activations that are kept at least where its weights learn nothing, but what is before it does."""
UNEVEN = 1.1
"""The allocator's blocks are not filled to the end."""


@dataclass(frozen=True)
class Sizes:
    """Of an encoder, and of the decoder behind it where there is one."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int
    positions: int
    gated: bool
    """Whether its feed-forward layers have a gate, a second matrix in."""
    key_value: int | None = None
    """Width of keys, and of values, where that is not `hidden`: heads share them."""
    decoder: "Sizes | None" = None
    """Of what reads its states, in a model of both."""

    @property
    def layer(self) -> int:
        """Weights of a layer."""
        into = 2 if self.gated else 1
        attention = 2 * self.hidden * (self.hidden + (self.key_value or self.hidden))
        return attention + (into + 1) * self.hidden * self.inner + 9 * self.hidden + self.inner

    @property
    def embeddings(self) -> int:
        """Weights of the embeddings of pieces."""
        return self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        """Of the whole encoder."""
        return self.embeddings + self.positions * self.hidden + 4 * self.hidden + self.layers * self.layer


def sizes_of(config: Mapping[str, Any]) -> Sizes | None:
    """The sizes in a config.json; None where it names them otherwise."""

    def first(*names: str) -> Any:
        return next((config[name] for name in names if name in config), None)

    kind = config.get("model_type", "")
    hidden, inner = first("hidden_size", "d_model"), first("intermediate_size", "d_ff")
    layers, vocabulary = first("num_hidden_layers", "num_layers"), first("vocab_size")
    if not all(isinstance(value, int) for value in (hidden, inner, layers, vocabulary)):
        return None
    heads, shared = first("num_attention_heads"), config.get("num_key_value_heads")
    positions = 0 if kind in ("modernbert", "t5") or shared else config.get("max_position_embeddings", 0)  # rotary: nothing is learned
    gated = kind == "modernbert" or shared is not None or "gated" in config.get("feed_forward_proj", "")
    of_head = config.get("head_dim") or (hidden // heads if isinstance(heads, int) and heads else None)
    width = of_head * shared if isinstance(of_head, int) and isinstance(shared, int) else None
    return Sizes(hidden, inner, layers, vocabulary, positions, gated, width)


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: int
    """With their gradients and what stands beside them to reduce those."""
    optimizer: int
    activations: int
    """At their peak, logits of masked language modelling included."""

    @property
    def total(self) -> int:
        """Of everything."""
        return round((self.weights + self.optimizer + self.activations) * UNEVEN) + CONTEXT


Phase = Mlm | Contrastive | Distil | Align


def memory_of(phase: Phase, sizes: Sizes, workers: int) -> Memory:
    """What a phase takes of each GPU.

    Args:
        phase: Its settings.
        sizes: Of the model that it trains.
        workers: GPUs.
    """
    trained = sum(_trained(phase, part, name) for name, part in _transformers(sizes))
    stage = phase.zero_stage
    weights = 4 * sum(part.weights for _, part in _transformers(sizes)) // (workers if stage == 3 else 1)
    weights += 4 * trained // (workers if stage >= 2 else 1)
    if stage in (1, 2):
        weights += 4 * trained // workers + 2 * 4 * BUCKET
    moments = 0 if phase.offload else 8 * trained // (workers if stage else 1)
    return Memory(weights, moments, activations_of(phase, sizes, workers))


def activations_of(phase: Phase, sizes: Sizes, workers: int) -> int:
    """Bytes of activations and logits at their peak."""
    longest, tokens = _tokens(phase, workers)
    found = 0
    for name, part in _transformers(sizes):
        more = (phase.max_tokens + phase.written_tokens) / phase.max_tokens if name == "decoder" and isinstance(phase, Align) else 1.0
        found += _kept(phase, part, name, round(more * longest), round(more * tokens), round(more * phase.chunk_tokens))
    return found + _logits(phase, sizes, tokens)


def _kept(phase: Phase, sizes: Sizes, name: PartName, longest: int, tokens: int, chunk_tokens: int) -> int:
    """Of one transformer, which reads so many tokens of a step, the longest text's at once; nothing of one before which nothing learns."""
    frozen = _freedom(phase, name) == "frozen"
    if frozen and name == "encoder":
        return 0
    chunk = min(tokens, max(chunk_tokens, longest))
    held = min(tokens, chunk + phase.kept_tokens) if phase.recompute else tokens
    width = 2 if phase.precision == "bf16" else 4
    of_token = round(token_bytes(sizes, phase.precision, phase.dropout != 0) * (FROZEN if frozen else 1))
    whole = held * sizes.layers * of_token
    if phase.recompute_layers:
        whole = held * sizes.layers * 4 * sizes.hidden + chunk * of_token
    copies = math.ceil(held / chunk) * width * sizes.layers * sizes.layer if width == 2 else 0  # each chunk casts the weights for itself
    return whole + copies + _states(chunk, sizes)


def token_bytes(sizes: Sizes, precision: str, dropout: bool) -> int:
    """What autograd keeps of a token in a layer, attention's matrices left out.

    In bf16 the states between layers are float32, and each product keeps the bf16 copy of its input that autocast made for it.
    """
    hidden, inner = sizes.hidden, (4 if sizes.gated else 2) * sizes.inner
    masks = 2 * hidden if dropout else 0
    if precision == "bf16":
        return (20 if sizes.gated else 24) * hidden + 2 * inner + masks  # with a gate come query, key and value of one product
    return 32 * hidden + 4 * inner + masks


def _states(chunk: int, sizes: Sizes) -> int:
    """Of a chunk's embeddings and last states, and the gradients that a layer's backward pass holds."""
    return chunk * 4 * (6 * sizes.hidden + 2 * sizes.inner)


def _logits(phase: Phase, sizes: Sizes, tokens: int) -> int:
    width = 2 if phase.precision == "bf16" else 4
    if isinstance(phase, Align) and sizes.decoder is not None:
        pieces = sizes.decoder.vocabulary
        return min(tokens * phase.written_tokens // phase.max_tokens, MOST_LOGITS // pieces) * (12 + width) * pieces
    if not isinstance(phase, Mlm):
        return 0
    predicted = tokens if phase.retromae else math.ceil(tokens * phase.mask_probability)
    at_once = min(predicted, HEAD_ROWS)
    kept = at_once if phase.recompute else predicted
    return (kept * (4 + width) + at_once * 8) * sizes.vocabulary


def _tokens(phase: Phase, workers: int) -> tuple[int, int]:
    """The longest text, and a worker's tokens of a step."""
    if not isinstance(phase, Contrastive):
        return phase.max_tokens, math.ceil(phase.batch_size / workers) * phase.max_tokens
    row = phase.query_tokens + (1 + phase.negatives) * phase.document_tokens
    return max(phase.query_tokens, phase.document_tokens), math.ceil(phase.batch_size * phase.device_batches * row / workers)


def _transformers(sizes: Sizes) -> list[tuple[PartName, Sizes]]:
    encoder: tuple[PartName, Sizes] = ("encoder", sizes)
    return [encoder, ("decoder", sizes.decoder)] if sizes.decoder else [encoder]


def _freedom(phase: Phase, name: PartName) -> Freedom:
    """What becomes of the weights of a transformer: alignment does not read its decoder's."""
    return "frozen" if isinstance(phase, Align) and name == "decoder" else phase.freedom(name)


def _trained(phase: Phase, sizes: Sizes, name: PartName) -> int:
    """Weights of a transformer that are trained; the embeddings of a decoder that is given states are not."""
    how = _freedom(phase, name)
    if how == "frozen":
        return 0
    if how == "lora" and phase.lora is not None:
        into = 2 if sizes.gated else 1
        return phase.lora.rank * sizes.layers * (8 * sizes.hidden + (into + 1) * (sizes.hidden + sizes.inner))
    return sizes.weights - (sizes.embeddings if phase.freeze_embeddings or name == "decoder" else 0)
