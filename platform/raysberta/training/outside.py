"""GPU memory of a training phase, from the sizes of its model alone: what a dry run says before anything is started. No torch here.

As if every text were as long as allowed. What is counted of a layer are the tensors that autograd keeps of it (a test counts them);
attention is FlashAttention's, which keeps no matrix of weights. A step takes no less than that, so what is refused does not fit; what is
let through may not fit either: on a processor a step took 1.0 to 2.3 times the estimate, and no GPU was at hand.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysberta.training.settings import Contrastive, Distil, Mlm

GIB = 2**30
CONTEXT = GIB
"""Of CUDA, its libraries and the workspace of matrix products."""
BUCKET = 5 * 10**8
"""Gradients that DeepSpeed sums up at once, in two buffers."""
LOGITS = 2048
"""Predictions that the masked-language-model head makes at once where it is recomputed."""
UNEVEN = 1.1
"""The allocator's blocks are not filled to the end."""


@dataclass(frozen=True)
class Sizes:
    """Of an encoder."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int
    positions: int
    gated: bool
    """Whether its feed-forward layers have a gate, a second matrix in."""

    @property
    def layer(self) -> int:
        """Weights of a layer."""
        into = 2 if self.gated else 1
        return 4 * self.hidden**2 + (into + 1) * self.hidden * self.inner + 9 * self.hidden + self.inner

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
    positions = 0 if kind in ("modernbert", "t5") else config.get("max_position_embeddings", 0)
    gated = kind == "modernbert" or "num_key_value_heads" in config or "gated" in config.get("feed_forward_proj", "")
    return Sizes(hidden, inner, layers, vocabulary, positions, gated)


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


def memory_of(phase: Mlm | Contrastive | Distil, sizes: Sizes, workers: int) -> Memory:
    """What a phase takes of each GPU.

    Args:
        phase: Its settings.
        sizes: Of the encoder that it trains.
        workers: GPUs.
    """
    trained = _trained(phase, sizes)
    stage = phase.zero_stage
    weights = 4 * sizes.weights // (workers if stage == 3 else 1)
    weights += 4 * trained // (workers if stage >= 2 else 1)
    if stage in (1, 2):
        weights += 4 * trained // workers + 2 * 4 * BUCKET
    moments = 0 if phase.offload else 8 * trained // (workers if stage else 1)
    return Memory(weights, moments, activations_of(phase, sizes, workers))


def activations_of(phase: Mlm | Contrastive | Distil, sizes: Sizes, workers: int) -> int:
    """Bytes of activations and logits at their peak."""
    longest, tokens = _tokens(phase, workers)
    chunk = min(tokens, max(phase.chunk_tokens, longest))
    held = min(tokens, chunk + phase.kept_tokens) if phase.recompute else tokens
    width = 2 if phase.precision == "bf16" else 4
    whole = held * sizes.layers * token_bytes(sizes, phase.precision, _dropout(phase))
    one = chunk * token_bytes(sizes, phase.precision, _dropout(phase))
    if phase.recompute_layers:
        whole = held * sizes.layers * 4 * sizes.hidden + one
    copies = math.ceil(held / chunk) * width * sizes.layers * sizes.layer if width == 2 else 0  # each chunk casts the weights for itself
    return whole + copies + _states(chunk, sizes) + _logits(phase, sizes, tokens)


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


def _logits(phase: Mlm | Contrastive | Distil, sizes: Sizes, tokens: int) -> int:
    if not isinstance(phase, Mlm):
        return 0
    predicted = tokens if phase.retromae else math.ceil(tokens * phase.mask_probability)
    at_once = min(predicted, LOGITS)
    kept = at_once if phase.recompute else predicted
    width = 2 if phase.precision == "bf16" else 4
    return (kept * (4 + width) + at_once * 8) * sizes.vocabulary


def _tokens(phase: Mlm | Contrastive | Distil, workers: int) -> tuple[int, int]:
    """The longest text, and a worker's tokens of a step."""
    if not isinstance(phase, Contrastive):
        return phase.max_tokens, math.ceil(phase.batch_size / workers) * phase.max_tokens
    row = phase.query_tokens + (1 + phase.negatives) * phase.document_tokens
    return max(phase.query_tokens, phase.document_tokens), math.ceil(phase.batch_size * phase.device_batches * row / workers)


def _trained(phase: Mlm | Contrastive | Distil, sizes: Sizes) -> int:
    """Weights that are trained."""
    if phase.lora is not None:
        into = 2 if sizes.gated else 1
        return phase.lora.rank * sizes.layers * (8 * sizes.hidden + (into + 1) * (sizes.hidden + sizes.inner))
    return sizes.weights - (sizes.embeddings if phase.freeze_embeddings else 0)


def _dropout(phase: Mlm | Contrastive | Distil) -> bool:
    return phase.dropout != 0
