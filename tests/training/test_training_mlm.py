import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM, RobertaConfig, RobertaForMaskedLM
from variants import SEED

from raysberta.errors import InputError
from raysberta.models.head import MlmHead, load_head, save_head
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.model import Model
from raysberta.training.arrays import Tokens, tokens_of
from raysberta.training.batches import TextPlan
from raysberta.training.chunks import Budget, budget_of
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.masks import IGNORED, mask, pieces_of
from raysberta.training.mlm import MlmModel, make_batch, train_mlm
from raysberta.training.survey import tokenise


@pytest.fixture(scope="module")
def texts(tiny, table) -> Tokens:
    return tokens_of(tokenise(load_tokenizer(tiny), [(text, 16) for text in table["positive"].to_pylist()]))


@pytest.fixture(scope="module")
def pieces(tiny):
    return pieces_of(load_tokenizer(tiny))


def model(tiny, recompute=False, dropout=0.0) -> MlmModel:
    encoder = load_encoder(tiny, dropout=dropout).double()
    return MlmModel(ChunkedEncoder(Model(encoder, "mean"), "fp32", recompute), load_head(tiny, encoder).double()).train()


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
    texts = tokens_of(tokenise(tokenizer, [(text, 64) for text in table["query"].to_pylist()] * 40))
    tokens = np.concatenate([texts[row] for row in range(len(texts))])
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
    batch = make_batch(texts, rows, pieces, 0.3, (0, 7), Budget(64, 8))
    loss, found = gradients(module, [batch])

    encoder = module.encoder.model.encoder
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
    whole, expected = gradients(model(tiny), [make_batch(texts, rows, pieces, 0.15, (0, 0), Budget(10**6, 8))])
    for chunk_tokens, recompute in ((64, False), (64, True)):
        loss, found = gradients(model(tiny, recompute), [make_batch(texts, rows, pieces, 0.15, (0, 0), Budget(chunk_tokens, 8))])
        assert loss == pytest.approx(whole, rel=1e-12)
        assert max(float((found[name] - expected[name]).abs().max()) for name in found) < 1e-12
    torch.manual_seed(1)
    kept = gradients(model(tiny, False, 0.2), [make_batch(texts, rows, pieces, 0.15, (0, 0), Budget(64, 8))])
    torch.manual_seed(1)
    replayed = gradients(model(tiny, True, 0.2), [make_batch(texts, rows, pieces, 0.15, (0, 0), Budget(64, 8))])
    assert kept[0] == replayed[0] and all(torch.allclose(kept[1][name], replayed[1][name], rtol=1e-9) for name in kept[1])


def test_workers_share_texts_and_masks_of_one_step(tiny, texts, pieces):
    """The mean over three workers is the loss of one: each divides by the step's masked tokens, not by its own."""
    rows = np.arange(40)
    whole, expected = gradients(model(tiny), [make_batch(texts, rows, pieces, 0.15, (3, 1), Budget(64, 8))])
    shared, found = gradients(model(tiny), [make_batch(texts, rows, pieces, 0.15, (3, 1), Budget(64, 8), rank, 3) for rank in range(3)])
    assert shared == pytest.approx(whole, rel=1e-12)
    assert max(float((found[name] - expected[name]).abs().max()) for name in found) < 1e-12


def test_nothing_masked_gives_loss_zero(tiny, texts, pieces):
    loss, found = gradients(model(tiny), [make_batch(texts, np.arange(4), pieces, 1e-9, (0, 0), Budget(64, 8))])
    assert loss == 0 and all((gradient == 0).all() for gradient in found.values())


@pytest.mark.parametrize(
    ("config", "kind"),
    [(BertConfig, BertForMaskedLM), (RobertaConfig, RobertaForMaskedLM), (ModernBertConfig, ModernBertForMaskedLM)],
)
def test_the_head_of_a_checkpoint_is_used(tmp_path, config, kind):
    """Logits are those of the whole model that was saved; and still, once the head is kept in a file of its own."""
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    whole = kind(config(**sizes, **ids, max_position_embeddings=64, layer_norm_eps=1e-5)).eval()
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter)  # biases are 0 in a fresh one
    whole.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    head = load_head(tmp_path, encoder)
    tokens = torch.tensor([[0, 5, 9, 30, 2]])
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        expected, states = whole(input_ids=tokens).logits, encoder(input_ids=tokens).last_hidden_state
        assert torch.allclose(head(states, table), expected, rtol=1e-3, atol=1e-3)
    encoder.save_pretrained(tmp_path / "alone")
    assert load_head(tmp_path / "alone", encoder).dense is None
    save_head(head, tmp_path / "alone")
    assert all(torch.equal(value, load_head(tmp_path / "alone", encoder).state_dict()[name]) for name, value in head.state_dict().items())
    assert all(torch.equal(value, load_encoder(tmp_path / "alone").state_dict()[name]) for name, value in encoder.state_dict().items())
    encoder.config.tie_word_embeddings = False
    assert load_head(tmp_path, encoder).dense is None, "a decoder that is no embedding table is not read as one"


def test_a_head_for_another_vocabulary_is_refused(tiny, tmp_path):
    encoder = load_encoder(tiny)
    pieces, width = encoder.get_input_embeddings().weight.shape
    save_file(load_file(tiny / "model.safetensors"), tmp_path / "model.safetensors")
    save_head(MlmHead(width, pieces + 1, True, 1e-12), tmp_path)
    with pytest.raises(InputError, match=rf"has {pieces + 1} pieces, its embeddings have {pieces}"):
        load_head(tmp_path, encoder)


def test_training_starts_from_the_head_beside_the_encoder(tiny, tmp_path, mlm, texts, pieces):
    encoder = load_encoder(tiny)
    head = MlmHead(encoder.config.hidden_size, encoder.config.vocab_size, True, 1e-12)
    torch.nn.init.normal_(head.bias, std=3)
    shutil.copytree(tiny, tmp_path / "model")
    save_head(head, tmp_path / "model")
    settings = mlm.model_copy(update={"dropout": 0.0})
    curve = train_mlm(settings, tmp_path / "model", texts, None, seed=SEED, steps=1)
    rows = TextPlan(len(texts), settings.batch_size, SEED).step(0)
    first = make_batch(texts, rows, pieces, settings.mask_probability, (SEED, 0, 1), budget_of(settings.chunk_tokens, torch.device("cpu")))
    with torch.no_grad():
        expected = MlmModel(ChunkedEncoder(Model(encoder, "mean"), "fp32", False), head)(first).item()
        without = MlmModel(ChunkedEncoder(Model(encoder, "mean"), "fp32", False), load_head(tiny, encoder))(first).item()
    assert abs(without - expected) > 0.1
    assert curve[0]["loss"] == pytest.approx(expected, rel=1e-4)
