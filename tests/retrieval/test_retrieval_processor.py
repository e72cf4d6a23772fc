"""Arithmetic arranged for a processor against torch's own."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from raysberta.models.load import load_encoder
from raysberta.retrieval.processor import LARGEST, arranged, attention


@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    scaling=st.sampled_from([0.1, 1.0, 30.0, 300.0]),
    masked=st.booleans(),
)
def test_attention_is_softmax_whatever_the_scores(seed: int, lengths: list[int], scaling: float, masked: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    shape = (len(lengths), 2, max(lengths), 4)
    query, key, value = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(3))
    real = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    mask = real[:, None, None, :] if masked else None
    found, _ = attention(nn.Identity(), query, key, value, mask, scaling)
    right = F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


def test_sums_of_the_largest_exponentials_are_finite_in_bf16() -> None:
    ones = torch.full((1, 1, 8192, 1), (LARGEST - 1) ** 0.5, dtype=torch.bfloat16)
    found, _ = attention(nn.Identity(), ones, ones, ones, None, 1.0)
    assert torch.isfinite(found).all() and (found - ones[0, 0, 0, 0]).abs().max() < 0.1


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bf16 in oneDNN on this processor")
def test_weights_in_blocks_give_the_same_bits(e5_folder: Path) -> None:
    plain, fast = (nn.Module.to(load_encoder(e5_folder), dtype=torch.bfloat16) for _ in range(2))
    arranged(fast, 2048)
    assert not any(type(module) is nn.Linear for module in fast.modules())
    layers = plain.encoder.layer[0].intermediate.dense, fast.encoder.layer[0].intermediate.dense
    states = torch.randn(3, 7, 384, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert (layers[0](states) == layers[1](states)).all()
