"""What states go through: against plain references in float64, wherever the padding is."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.models import Dense as TheirDense
from torch import nn

from raysberta.errors import InputError
from raysberta.models.folder import Part
from raysberta.models.model import load_part, save_part
from raysberta.models.parts import Connector, Dense, LatentAttention, appended, dense_of, positions_of
from raysberta.models.pool import pool

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def masked(lengths: list[int], side: str, extra: int = 0) -> torch.Tensor:
    width = max(lengths) + extra
    rows = [[1] * length + [0] * (width - length) for length in lengths]
    return torch.tensor([row if side == "right" else row[::-1] for row in rows])


@given(LENGTHS, st.sampled_from(["left", "right"]), st.integers(0, 3), st.integers(0, 2))
def test_tokens_follow_each_text_wherever_padding_is(lengths: list[int], side: str, tokens: int, extra: int) -> None:
    mask = masked(lengths, side, extra)
    states = torch.randn(*mask.shape, 4, dtype=torch.float64)
    added = torch.randn(tokens, 4, dtype=torch.float64)
    found, longer = appended(states, mask, added)
    assert found.shape == (len(lengths), mask.shape[1] + tokens, 4) and longer.dtype == mask.dtype
    for row, length in enumerate(lengths):
        expected = torch.cat([states[row][mask[row].bool()], added])
        assert torch.equal(found[row][longer[row].bool()], expected)
        assert longer[row].sum() == length + tokens
        assert positions_of(longer)[row][longer[row].bool()].tolist() == list(range(length + tokens))


@given(LENGTHS, st.sampled_from(["left", "right"]), st.sampled_from(["mean", "cls", "last"]))
def test_pooling_reads_the_text_wherever_padding_is(lengths: list[int], side: str, how: str) -> None:
    mask = masked(lengths, side, 1)
    states = torch.randn(*mask.shape, 3, dtype=torch.float64)
    for row, vector in enumerate(pool(states, mask, how)):
        text = states[row][mask[row].bool()]
        assert torch.allclose(vector, {"mean": text.mean(0), "cls": text[0], "last": text[-1]}[how], atol=1e-12)


def test_a_connector_is_two_layers_and_a_token() -> None:
    torch.manual_seed(0)
    connector = Connector(6, 5, 4).double()
    states, mask = torch.randn(2, 3, 6, dtype=torch.float64), torch.tensor([[1, 1, 1], [1, 1, 0]])
    found, longer = connector(states, mask)
    first, second = connector.first, connector.second
    plain = (states @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    assert torch.allclose(found[0], torch.cat([plain[0], connector.added]), atol=1e-12)
    assert torch.allclose(found[1, :3], torch.cat([plain[1, :2], connector.added]), atol=1e-12)
    assert longer.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_gradients_reach_the_token_once_for_each_text() -> None:
    torch.manual_seed(0)
    connector = Connector(6, 5, 4).double()
    states = torch.randn(3, 4, 6, dtype=torch.float64)
    found, longer = connector(states, masked([4, 2, 1], "right"))
    (found * longer[..., None]).sum().backward()
    assert torch.equal(connector.added.grad, torch.full((1, 4), 3.0, dtype=torch.float64))


def test_latent_attention_is_that_of_its_formula() -> None:
    """PreNorm cross-attention and a GEGLU layer, both beside what they are given, head by head and token by token."""
    torch.manual_seed(0)
    part = LatentAttention(6, latents=5, heads=2, head_width=3, factor=2).double()
    states, mask = torch.randn(2, 4, 6, dtype=torch.float64), masked([4, 2], "right")
    found, same = part(states, mask)
    assert torch.equal(same, mask)
    keys, values = part.keys_values(part.latent_norm(part.latents)).split(6, dim=-1)
    for row, place in ((0, 0), (0, 3), (1, 1)):
        state = states[row, place]
        query = part.queries(part.norm(state))
        heads = []
        for head in (slice(0, 3), slice(3, 6)):
            weights = torch.softmax(keys[:, head] @ query[head] / math.sqrt(3), dim=0)
            heads.append(weights @ values[:, head])
        state = part.out(torch.cat(heads)) + state
        wide, gate = part.up(part.second_norm(state)).split(12)
        assert torch.allclose(found[row, place], part.down(wide * F.gelu(gate)) + state, atol=1e-12)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Identity(), nn.ReLU(), nn.GELU(), nn.SiLU()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("bias", [True, False])
def test_dense_layers_of_sentence_transformers_are_read_and_written(activation: nn.Module, bias: bool, tmp_path: Path) -> None:
    theirs = TheirDense(6, 4, bias=bias, activation_function=activation)
    (tmp_path / "theirs").mkdir()
    theirs.save(str(tmp_path / "theirs"))
    ours = load_part(Part("Dense", tmp_path / "theirs"))
    vectors = torch.randn(3, 6)
    expected = theirs({"sentence_embedding": vectors})["sentence_embedding"]
    assert torch.equal(ours(vectors), expected)
    save_part(ours, tmp_path / "ours")
    again = TheirDense.load(str(tmp_path / "ours"))
    assert torch.equal(again({"sentence_embedding": vectors})["sentence_embedding"], expected)


@pytest.mark.parametrize("part", [Connector(4, 5, 6, 2), LatentAttention(4, 3, 2, 2), Dense(4, 3)], ids=lambda part: type(part).__name__)
def test_parts_come_back_to_the_bit(part: nn.Module, tmp_path: Path) -> None:
    again = load_part(save_part(part, tmp_path / "part"))
    assert type(again) is type(part) and again.config == part.config
    for name, weights in part.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])


@pytest.mark.parametrize(
    "changes", [{"activation_function": "mine.Own"}, {"use_residual": True}, {"module_input_name": "token_embeddings"}], ids=str
)
def test_a_dense_layer_that_is_not_known_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="place: a dense layer that is not read; there are those of vectors that end with Identity, Tanh"):
        dense_of({"in_features": 2, "out_features": 2, **changes}, "place")


def test_weights_of_another_part_are_refused_in_one_line(tmp_path: Path) -> None:
    place = save_part(Connector(4, 5, 6), tmp_path / "part")
    save_part(Dense(4, 5), tmp_path / "other")
    (tmp_path / "part" / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"part: holds no Connector that can be read: .") as caught:
        load_part(place)
    assert "\n" not in str(caught.value)
