"""SLERP against its closed form."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given
from hypothesis.extra.numpy import array_shapes, arrays

from raysberta.merging.slerp import slerp

VALUES = st.floats(-10, 10, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-3)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    first, second = (torch.from_numpy(draw(arrays("float64", shape, elements=VALUES))) for _ in range(2))
    return first, second


def angle_of(first: torch.Tensor, second: torch.Tensor) -> float:
    """By the half-angle formula of Kahan, which needs neither acos nor a threshold."""
    one, two = first / first.norm(), second / second.norm()
    return 2 * math.atan2(float((one - two).norm()), float((one + two).norm()))


@given(pairs(), st.floats(0, 1))
def test_closed_form(tensors: tuple[torch.Tensor, torch.Tensor], weight: float) -> None:
    first, second = tensors
    assume(first.norm() > 0 and second.norm() > 0)
    angle = angle_of(first, second)
    assume(abs(math.cos(angle)) < 0.9994)
    mixed, cosine = slerp(first, second, weight)
    expected = (math.sin((1 - weight) * angle) * first + math.sin(weight * angle) * second) / math.sin(angle)
    assert cosine == pytest.approx(math.cos(angle), abs=1e-12)
    assert mixed.shape == first.shape and torch.allclose(mixed, expected, rtol=1e-9, atol=1e-9)


@given(pairs(), st.floats(0, 1))
def test_ends_and_symmetry(tensors: tuple[torch.Tensor, torch.Tensor], weight: float) -> None:
    first, second = tensors
    assert torch.allclose(slerp(first, second, 0.0)[0], first) and torch.allclose(slerp(first, second, 1.0)[0], second)
    assert torch.allclose(slerp(first, second, weight)[0], slerp(second, first, 1 - weight)[0], atol=1e-9)


@given(pairs(), st.floats(0, 1))
def test_equal_norms_stay(tensors: tuple[torch.Tensor, torch.Tensor], weight: float) -> None:
    first, second = tensors
    assume(first.norm() > 0 and second.norm() > 0)
    first, second = first / first.norm(), second / second.norm()
    mixed, cosine = slerp(first, second, weight)
    assume(cosine > -0.9995)
    assert float(mixed.norm()) == pytest.approx(1.0, abs=1.3e-4)  # theta^2 / 8 at the threshold


def turned(angle: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([3.0, 0.0], dtype=torch.float64), torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64) * 3


def test_threshold_parts_the_branches() -> None:
    for angle, linear in ((0.0315, True), (0.0317, False), (math.pi - 0.0317, False), (math.pi - 0.0315, True)):
        first, second = turned(angle)
        mixed, cosine = slerp(first, second, 0.25)
        straight = 0.75 * first + 0.25 * second
        assert (abs(cosine) > 0.9995) is linear and torch.equal(mixed, straight) is linear
        assert linear or not torch.allclose(mixed, straight, rtol=1e-6)


def test_the_edges_of_the_definition() -> None:
    vector, zero = torch.tensor([1.0, -2.0, 2.0]), torch.zeros(3)
    mixed, cosine = slerp(zero, vector, 0.5)
    assert cosine == 0.0 and torch.allclose(mixed, vector * math.sqrt(0.5))
    assert torch.equal(slerp(zero, zero, 0.3)[0], zero)
    assert torch.equal(slerp(vector, -vector, 0.5)[0], zero)
    tiny = vector * 1e-10  # below the guard it is not normalised, so it counts as at a right angle
    assert abs(slerp(tiny, vector, 0.5)[1]) < 1e-8


def test_dtype_comes_back_and_the_sum_is_exact() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(300, 300), torch.randn(300, 300)
    half, _ = slerp(first.bfloat16(), second.bfloat16(), 0.25)
    exact, _ = slerp(first.bfloat16().double(), second.bfloat16().double(), 0.25)
    assert half.dtype == torch.bfloat16 and torch.allclose(half.double(), exact, rtol=2**-8, atol=1e-5)
    single, cosine = slerp(first, second, 0.25)
    double, precise = slerp(first.double(), second.double(), 0.25)
    assert single.dtype == torch.float32 and abs(cosine - precise) < 1e-6 and torch.allclose(single.double(), double, atol=1e-5)
