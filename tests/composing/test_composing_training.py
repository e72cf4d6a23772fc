"""A decoder alone is trained as any encoder is: gradients in chunks, recomputed or not, are those of plain calls text by text."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, PreTrainedModel

from decoders import FAMILIES, a_decoder
from raysberta.models.attention import set_attention
from raysberta.models.model import Model
from raysberta.training.chunks import Budget, make_chunks, plan_chunks
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.parts import merged, trainable
from raysberta.training.settings import Distil

LENGTHS = (3, 9, 1, 14, 9, 6)


def decoder(family: str, attention: str) -> PreTrainedModel:
    torch.manual_seed(2)
    made = AutoModel.from_config(a_decoder(family)).eval().double()
    set_attention(made, attention)
    return made


def texts() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(2, 700, length) for length in LENGTHS]


def loss(vectors: torch.Tensor) -> torch.Tensor:
    """Neighbours pulled together, others pushed apart: every vector has a gradient."""
    return sum((5 * (1 - first @ second) for first, second in pairwise(vectors)), (vectors @ vectors.T).exp().mean())


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model.encoder."): weights.grad for name, weights in model.named_parameters() if weights.grad is not None}


def plain(family: str, attention: str, pooling: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One text at a time, without padding."""
    model = Model(decoder(family, attention), pooling)  # type: ignore[arg-type]
    each = [torch.from_numpy(text)[None] for text in texts()]
    vectors = F.normalize(torch.cat([model(torch.ones_like(ids), input_ids=ids) for ids in each]), dim=-1)
    loss(vectors).backward()
    return vectors.detach(), gradients(model.encoder)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize(("tokens", "recompute", "pooling"), [(20, True, "last"), (20, False, "mean"), (1000, True, "mean")])
def test_gradients_of_chunks_are_those_of_each_text_alone(family: str, attention: str, tokens: int, recompute: bool, pooling: str) -> None:
    expected, wanted = plain(family, attention, pooling)
    chunked = ChunkedEncoder(Model(decoder(family, attention), pooling), "fp32", recompute)  # type: ignore[arg-type]
    chunks = make_chunks(texts(), plan_chunks(np.asarray(LENGTHS), Budget(tokens, tokens)))
    assert (len(chunks.chunks) > 1) == (tokens == 20)
    vectors = chunked.embed(chunks)
    loss(vectors).backward()
    assert torch.allclose(vectors, expected, atol=1e-6)  # transformers' decoders normalise and turn in float32, whatever the rest is in
    found = gradients(chunked)
    assert found.keys() == wanted.keys() and any(gradient.abs().max() > 1e-3 for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


def test_adapters_alone_learn_and_are_merged_to_the_same_vectors() -> None:
    whole = Model(decoder("llama", "bidirectional"), "last")
    before = {name: weights.clone() for name, weights in whole.state_dict().items()}
    lora = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "down_proj"]}
    trainable(whole, Distil.model_validate({"kind": "distil", "from": "llm", "teacher": "e5", "lora": lora}), seed=1)
    chunked = ChunkedEncoder(whole, "fp32", recompute=True)
    learning = [weights for weights in chunked.parameters() if weights.requires_grad]
    assert sum(weights.numel() for weights in learning) < 0.1 * sum(weights.numel() for weights in chunked.parameters())
    optimizer = torch.optim.Adam(learning, lr=1e-2)
    chunks = make_chunks(texts(), plan_chunks(np.asarray(LENGTHS), Budget(20, 1)))
    losses = []
    for _ in range(8):
        losses.append(loss(chunked.embed(chunks)))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.5
    vectors = chunked.embed(chunks).detach()
    plain = merged(whole)
    assert torch.allclose(ChunkedEncoder(plain, "fp32", recompute=False).embed(chunks), vectors, atol=1e-8)
    moved = {name for name, weights in plain.state_dict().items() if not torch.allclose(weights, before[name], atol=1e-8)}
    assert moved == {name for name in before if any(target in name for target in ("q_proj", "v_proj", "down_proj"))}
