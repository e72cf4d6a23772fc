import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from raysberta.encoder.load import load_encoder, load_tokenizer
from raysberta.errors import InputError
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.examples import Ragged, ragged, tokenise
from raysberta.training.heads import load_head
from raysberta.training.masks import IGNORED, mask, pieces_of
from raysberta.training.mlm import MlmModel, make_batch


@pytest.fixture(scope="module")
def texts(tiny, table) -> Ragged:
    return ragged(tokenise(load_tokenizer(tiny), [(text, 16) for text in table["positive"].to_pylist()]))


@pytest.fixture(scope="module")
def pieces(tiny):
    return pieces_of(load_tokenizer(tiny))


def model(tiny, recompute=False, dropout=0.0) -> MlmModel:
    encoder = load_encoder(tiny, dropout=dropout).double()
    return MlmModel(ChunkedEncoder(encoder, "fp32", recompute), load_head(tiny, encoder).double()).train()


def gradients(module, batches):
    module.zero_grad()
    loss = sum(module(batch) for batch in batches) / len(batches)
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def test_masks_take_their_shares_and_spare_special_tokens(pieces):
    tokens = np.tile(np.asarray([0, 5, 6, 7, 8, 9, 10, 11, 12, 2]), 5000)
    read, labels = mask(tokens, pieces, 0.3, np.random.default_rng(0))
    chosen = labels != IGNORED
    assert not chosen[np.isin(tokens, pieces.special)].any()
    assert chosen[~np.isin(tokens, pieces.special)].mean() == pytest.approx(0.3, abs=0.01)
    assert (labels[chosen] == tokens[chosen]).all() and (read[~chosen] == tokens[~chosen]).all()
    masked, kept = (read[chosen] == pieces.mask).mean(), (read[chosen] == tokens[chosen]).mean()
    assert masked == pytest.approx(0.8, abs=0.01) and kept == pytest.approx(0.1, abs=0.01)
    assert not np.isin(read[chosen & (read != pieces.mask)], pieces.special).any()


def test_masks_are_drawn_in_the_order_that_runs_were_made_with(pieces):
    """Which tokens, their fates, their replacements: another order would be another model from the same seed."""
    tokens = np.tile(np.asarray([0, 5, 6, 7, 8, 9, 10, 11, 12, 2]), 50)
    read, labels = mask(tokens, pieces, 0.3, np.random.default_rng((3, 1, 4)))
    draws = np.random.default_rng((3, 1, 4))
    chosen, fate, strange = draws.random(500), draws.random(500), draws.choice(pieces.ordinary, 500)
    for place, token in enumerate(tokens):
        predicted = chosen[place] < 0.3 and token not in (0, 2)
        assert labels[place] == (token if predicted else IGNORED)
        assert read[place] == (token if not predicted or 0.1 <= fate[place] < 0.2 else strange[place] if fate[place] < 0.1 else pieces.mask)


def test_whole_words_are_chosen_with_all_their_pieces(tiny, table):
    tokenizer = load_tokenizer(tiny)
    pieces = pieces_of(tokenizer, whole_words=True)
    texts = ragged(tokenise(tokenizer, [(text, 64) for text in table["query"].to_pylist()] * 40))
    tokens = texts.values
    read, labels = mask(tokens, pieces, 0.3, np.random.default_rng(0))
    chosen, special = labels != IGNORED, np.isin(tokens, pieces.special)
    names = tokenizer.convert_ids_to_tokens(tokens.tolist())
    inside = 0
    for place in range(1, len(tokens)):
        if not special[place] and not special[place - 1] and not names[place].startswith("▁"):
            inside += 1
            assert chosen[place] == chosen[place - 1]
    assert inside > 1000 and not chosen[special].any()
    assert chosen[~special].mean() == pytest.approx(0.3, abs=0.03)
    single = mask(tokens, pieces_of(tokenizer), 0.3, np.random.default_rng(0))[1] != IGNORED
    assert (single != chosen).any() and (read[chosen] == pieces.mask).mean() == pytest.approx(0.8, abs=0.03)


def test_the_head_at_masked_positions_only_gives_the_dense_cross_entropy(tiny, texts, pieces):
    rows = np.arange(24)
    module = model(tiny)
    module.head.bias.data.normal_(generator=torch.Generator().manual_seed(0))
    batch = make_batch(texts, rows, pieces, 0.3, (0, 7), 64)
    loss, found = gradients(module, [batch])

    encoder = module.encoder.encoder
    module.zero_grad()
    read, labels = mask(np.concatenate([texts[row] for row in rows]), pieces, 0.3, np.random.default_rng((0, 7)))
    cuts = np.cumsum([len(texts[row]) for row in rows])[:-1]
    tokens, wanted = (
        torch.nn.utils.rnn.pad_sequence([torch.from_numpy(part) for part in np.split(values, cuts)], batch_first=True, padding_value=fill)
        for values, fill in ((read, 1), (labels, IGNORED))
    )
    there = torch.nn.utils.rnn.pad_sequence([torch.ones(len(texts[row])) for row in rows], batch_first=True).long()
    hidden = encoder(input_ids=tokens, attention_mask=there).last_hidden_state
    logits = hidden @ encoder.get_input_embeddings().weight.T + module.head.bias
    dense = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
    dense.backward()
    assert loss == pytest.approx(dense.item(), rel=1e-12)
    for name, parameter in module.named_parameters():
        assert (found[name] - parameter.grad).abs().max() <= 1e-9 * parameter.grad.abs().max() + 1e-15, name


def test_chunks_and_recomputing_do_not_change_the_gradient(tiny, texts, pieces):
    rows = np.arange(40)
    whole, expected = gradients(model(tiny), [make_batch(texts, rows, pieces, 0.15, (0, 0), 10**6)])
    for chunk_tokens, recompute in ((64, False), (64, True)):
        loss, found = gradients(model(tiny, recompute), [make_batch(texts, rows, pieces, 0.15, (0, 0), chunk_tokens)])
        assert loss == pytest.approx(whole, rel=1e-12)
        assert max(float((found[name] - expected[name]).abs().max()) for name in found) < 1e-12
    torch.manual_seed(1)
    kept = gradients(model(tiny, False, 0.2), [make_batch(texts, rows, pieces, 0.15, (0, 0), 64)])
    torch.manual_seed(1)
    replayed = gradients(model(tiny, True, 0.2), [make_batch(texts, rows, pieces, 0.15, (0, 0), 64)])
    assert kept[0] == replayed[0] and all(torch.allclose(kept[1][name], replayed[1][name], rtol=1e-9) for name in kept[1])


def test_workers_share_texts_and_masks_of_one_step(tiny, texts, pieces):
    """The mean over three workers is the loss of one: each divides by the step's masked tokens, not by its own."""
    rows = np.arange(40)
    whole, expected = gradients(model(tiny), [make_batch(texts, rows, pieces, 0.15, (3, 1), 64)])
    shared, found = gradients(model(tiny), [make_batch(texts, rows, pieces, 0.15, (3, 1), 64, rank, 3) for rank in range(3)])
    assert shared == pytest.approx(whole, rel=1e-12)
    assert max(float((found[name] - expected[name]).abs().max()) for name in found) < 1e-12


def test_nothing_masked_gives_loss_zero(tiny, texts, pieces):
    loss, found = gradients(model(tiny), [make_batch(texts, np.arange(4), pieces, 1e-9, (0, 0), 64)])
    assert loss == 0 and all((gradient == 0).all() for gradient in found.values())


@pytest.mark.parametrize(
    ("dense", "norm", "bias"),
    [
        ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
        ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    ],
)
def test_the_head_of_a_checkpoint_is_used(tiny, tmp_path, dense, norm, bias):
    encoder = load_encoder(tiny)
    rows, width = encoder.get_input_embeddings().weight.shape
    parts = {f"{dense}.weight": torch.randn(width, width), f"{dense}.bias": torch.randn(width), bias: torch.randn(rows)}
    parts |= {f"{norm}.weight": torch.ones(width), f"{norm}.bias": torch.zeros(width)}
    save_file(load_file(tiny / "model.safetensors") | parts, tmp_path / "model.safetensors")
    head = load_head(tmp_path, encoder)
    states = torch.randn(3, width)
    table = encoder.get_input_embeddings().weight
    inner = F.layer_norm(F.gelu(states @ parts[f"{dense}.weight"].T + parts[f"{dense}.bias"]), (width,), eps=encoder.config.layer_norm_eps)
    assert torch.allclose(head(states, table), inner @ table.T + parts[bias], atol=1e-3)
    save_file(load_file(tmp_path / "model.safetensors") | {bias: torch.randn(rows + 1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"has {rows + 1} pieces, its embeddings have {rows}"):
        load_head(tmp_path, encoder)
