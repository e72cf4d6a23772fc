"""What a decoder's token sees, by family and implementation: later tokens if and only if attention is bidirectional, padding never."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, MambaConfig, MambaModel, PreTrainedModel

from decoders import FAMILIES, a_decoder
from raysberta.errors import InputError
from raysberta.models.attention import attention_of, check_attention, set_attention
from raysberta.models.load import load_transformer
from raysberta.models.model import Model
from raysberta.models.parts import Decoder

LENGTH, PADDING = 9, 4


@pytest.fixture(params=FAMILIES)
def decoder(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(5)
    return AutoModel.from_config(a_decoder(request.param)).eval()


def padded(ids: Tensor, side: str, padding: int = PADDING) -> tuple[Tensor, Tensor]:
    """The texts with other tokens where padding is, and the mask."""
    noise = torch.full((len(ids), padding), 17)
    parts = [(ids, torch.ones_like(ids)), (noise, torch.zeros_like(noise))]
    return tuple(torch.cat(each, 1) for each in zip(*(parts if side == "right" else parts[::-1]), strict=True))  # type: ignore[return-value]


@torch.no_grad()
def states(decoder: PreTrainedModel, ids: Tensor, mask: Tensor, by: str) -> Tensor:
    """As the first transformer of a model (tokens), or as a part behind another one (states in place of embeddings)."""
    if by == "tokens":
        return decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return Decoder(decoder)(decoder.get_input_embeddings()(ids), mask)[0]


@pytest.mark.parametrize("by", ["tokens", "states"])
@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_later_token_changes_an_earlier_state_if_and_only_if_attention_is_bidirectional(
    decoder: PreTrainedModel, attention: str, implementation: str, side: str, by: str
) -> None:
    decoder.set_attn_implementation(implementation)
    set_attention(decoder, attention)
    ids = torch.randint(2, 700, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    start = PADDING if side == "left" else 0
    whole = padded(ids, side, 0 if side == "none" else PADDING)
    before = states(decoder, *whole, by=by)[:, start : start + LENGTH]
    for place in range(1, LENGTH):
        other = ids.clone()
        other[0, place] = (other[0, place] + 1 - 2) % 698 + 2
        after = states(decoder, *padded(other, side, 0 if side == "none" else PADDING), by=by)[:, start : start + LENGTH]
        moved = (after[0] - before[0]).norm(dim=-1) / before[0].norm(dim=-1)
        if attention == "bidirectional":
            assert moved[:place].min() > 1e-5, f"token {place} is not seen from before it"
        else:
            assert moved[:place].max() == 0, f"token {place} is seen from before it"
        assert moved[place:].min() > 1e-5
        assert torch.equal(after[1], before[1]), "another text of the batch moved"


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_padding_left_or_right_or_none_gives_one_vector(
    decoder: PreTrainedModel, attention: str, implementation: str, pooling: str
) -> None:
    decoder.set_attn_implementation(implementation)
    set_attention(decoder, attention)
    model = Model(decoder, pooling)
    ids = torch.randint(2, 700, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = torch.cat([model(torch.ones_like(row[None]), input_ids=row[None]) for row in ids])
        for side in ("left", "right"):
            tokens, mask = padded(ids, side)
            assert (model(mask, input_ids=tokens) - alone).abs().max() < 1e-5
            behind, _ = Decoder(decoder)(decoder.get_input_embeddings()(tokens), mask)
            assert (Model.vectors(Model(decoder, pooling), behind, mask) - alone).abs().max() < 1e-5


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_the_config_remembers_and_the_proof_agrees(decoder: PreTrainedModel, attention: str, tmp_path: Path) -> None:
    set_attention(decoder, attention)
    check_attention(decoder, "llm")
    decoder.save_pretrained(tmp_path)
    again = load_transformer(tmp_path)
    assert attention_of(again) == attention
    check_attention(again, "llm")
    ids = torch.arange(2, 2 + LENGTH)[None]
    with torch.no_grad():
        assert torch.equal(states(again, ids, torch.ones_like(ids), "tokens"), states(decoder, ids, torch.ones_like(ids), "tokens"))


def test_a_decoder_that_cannot_look_ahead_is_refused() -> None:
    """A state space model goes from left to right, whatever its config says."""
    torch.manual_seed(1)
    recurrent = MambaModel(MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1)).eval()
    check_attention(recurrent, "llm")
    set_attention(recurrent, "bidirectional")
    with pytest.raises(
        InputError, match="attention: bidirectional: llm is of type mamba, which does not attend so; right would be another"
    ):
        check_attention(recurrent, "llm")
