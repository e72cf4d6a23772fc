"""RetroMAE against a slow reading of the paper: one text, one position and one head at a time, in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import ModernBertConfig, ModernBertModel, XLMRobertaConfig, XLMRobertaModel
from two_processes import farthest

from raysberta.errors import InputError
from raysberta.models.head import load_head
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.model import Model
from raysberta.training.arrays import Tokens, tokens_of
from raysberta.training.chunks import Budget
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.masks import IGNORED, Pieces, mask, pieces_of, visible, word_of
from raysberta.training.mlm import MlmModel, RetroMaeBatch, RetroMaeModel, make_batch, reconstructed
from raysberta.training.retromae import embedded, fresh_decoder
from raysberta.training.survey import tokenise

SMALL = Pieces(4, np.arange(5), np.arange(5, 20), np.arange(20) % 3 != 0)
"""Of the ordinary ids 5 to 19, those that 3 divides begin no word."""


@pytest.fixture(scope="module")
def texts(tiny, table) -> Tokens:
    return tokens_of(tokenise(load_tokenizer(tiny), [(text, 16) for text in table["positive"].to_pylist()]))


@pytest.fixture(scope="module")
def pieces(tiny):
    return pieces_of(load_tokenizer(tiny), whole_words=True)


def model(tiny, recompute=False, dropout=0.0, pooling="mean", precision="fp32", dtype=torch.float64) -> RetroMaeModel:
    encoder = load_encoder(tiny, dropout=dropout).to(dtype)
    mlm = MlmModel(ChunkedEncoder(Model(encoder, pooling), precision, recompute), load_head(tiny, encoder).to(dtype))
    return RetroMaeModel(mlm, fresh_decoder(encoder, 3).to(dtype)).train()


def batch(texts, rows, pieces, chunk_tokens, rank=0, world=1, hidden=0.5) -> RetroMaeBatch:
    masked = make_batch(texts, rows, pieces, 0.3, (0, 7, 1), Budget(chunk_tokens, 8), rank, world)
    return reconstructed(masked, texts, rows, pieces, hidden, (0, 7, 2), Budget(chunk_tokens, 8), rank, world)


def gradients(module, batches):
    module.zero_grad()
    loss = sum(module(batch) for batch in batches) / len(batches)
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


@given(st.lists(st.integers(0, 19), min_size=1, max_size=30), st.floats(0, 1), st.booleans(), st.integers(0, 1000))
def test_each_position_sees_the_vector_and_never_its_own_word(tokens, hidden, whole_words, seed):
    tokens = np.asarray(tokens)
    pieces = SMALL if whole_words else Pieces(SMALL.mask, SMALL.special, SMALL.ordinary)
    seen = visible(tokens, pieces, hidden, np.random.default_rng(seed))
    assert seen.dtype == bool and seen.shape == (len(tokens), len(tokens))
    assert seen[:, 0].all()
    word = word_of(tokens, pieces)
    assert whole_words or (word == np.arange(len(tokens))).all()
    for row in range(len(tokens)):
        assert not seen[row, [place for place in range(1, len(tokens)) if word[place] == word[row]]].any()
        for first in set(word.tolist()) - {0}:
            assert len(set(seen[row, word == first].tolist())) == 1, "a word seen in part"
    others = (word[:, None] != word) & (np.arange(len(tokens)) > 0)
    if hidden in (0, 1):
        assert (seen[others] == (hidden == 0)).all()
    assert (seen == visible(tokens, pieces, hidden, np.random.default_rng(seed))).all()


@pytest.mark.parametrize("hidden", [0.5, 0.7])
def test_each_position_hides_its_share_and_another_one_than_its_neighbours(hidden):
    tokens = np.tile([0, *range(5, 20), 2], 12)
    seen = visible(tokens, Pieces(4, SMALL.special, SMALL.ordinary), hidden, np.random.default_rng(1))[:, 1:]
    others = ~np.eye(len(tokens), dtype=bool)[:, 1:]
    shares = [1 - row[there].mean() for row, there in zip(seen, others, strict=True)]
    assert np.mean(shares) == pytest.approx(hidden, abs=0.01)
    assert np.std(shares) == pytest.approx((hidden * (1 - hidden) / len(tokens)) ** 0.5, rel=0.2)
    both = (seen[1:] & seen[:-1]).mean()
    assert both == pytest.approx((1 - hidden) ** 2, abs=0.02), "neighbours see the same"


def test_the_loss_and_its_gradient_are_those_of_a_plain_loop_over_positions(tiny, texts, pieces):
    rows = np.arange(0, 60, 5)
    module = model(tiny)
    module.mlm.head.bias.data.normal_(generator=torch.Generator().manual_seed(0))
    loss, found = gradients(module, [batch(texts, rows, pieces, 48)])

    encoder, head, decoder = module.mlm.encoder.model.encoder, module.mlm.head, module.decoder
    layer, table = encoder.embeddings, encoder.get_input_embeddings().weight
    width = decoder.query.out_features // decoder.heads
    masked = np.split(
        np.stack(mask(np.concatenate([texts[row] for row in rows]), pieces, 0.3, np.random.default_rng((0, 7, 1)))),
        np.cumsum([len(texts[row]) for row in rows])[:-1],
        axis=1,
    )

    def normed(vector, norm):
        centred = vector - vector.mean()
        return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias

    def reconstruct(place, vector, context, seen):
        query = vector + layer.position_embeddings.weight[place]
        looked_at = [context[other] for other in range(len(context)) if seen[other]]
        heads = []
        for number in range(decoder.heads):
            part = slice(number * width, (number + 1) * width)
            asked = decoder.query(query)[part]
            weights = torch.stack([asked @ decoder.key(state)[part] / width**0.5 for state in looked_at]).softmax(0)
            heads.append(sum(weight * decoder.value(state)[part] for weight, state in zip(weights, looked_at, strict=True)))
        state = normed(query + decoder.mix(torch.cat(heads)), decoder.mixed_norm)
        return normed(state + decoder.narrow(F.gelu(decoder.widen(state))), decoder.norm)

    module.zero_grad()
    encoded, decoded = [], []
    for row, (read, labels) in zip(rows, masked, strict=True):
        tokens = texts[row].astype(np.int64)
        hidden = encoder(input_ids=torch.from_numpy(read)[None]).last_hidden_state[0]
        encoded += [F.cross_entropy(head(hidden[i], table), torch.tensor(labels[i])) for i in np.flatnonzero(labels != IGNORED)]
        context = [hidden.mean(0)]
        for i in range(1, len(tokens)):
            plain = table[tokens[i]] + layer.token_type_embeddings.weight[0] + layer.position_embeddings.weight[i]
            context.append(normed(plain, layer.LayerNorm))
        seen = visible(tokens, pieces, 0.5, np.random.default_rng((0, 7, 2, int(row))))
        for i in range(len(tokens)):
            if tokens[i] not in pieces.special:
                state = reconstruct(i, context[0], context, seen[i])
                decoded.append(F.cross_entropy(head(state, table), torch.tensor(tokens[i])))
    slow = torch.stack(encoded).mean() + torch.stack(decoded).mean()
    slow.backward()
    assert len(decoded) > len(encoded) > 10
    assert loss == pytest.approx(slow.item(), rel=1e-12)
    assert farthest(found, {name: parameter.grad for name, parameter in module.named_parameters()}) < 1e-9


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_chunks_and_recomputing_do_not_change_the_gradient(tiny, texts, pieces, pooling):
    rows = np.arange(40)
    whole, expected = gradients(model(tiny, pooling=pooling), [batch(texts, rows, pieces, 10**6)])
    loss, found = gradients(model(tiny, True, pooling=pooling), [batch(texts, rows, pieces, 64)])
    assert loss == pytest.approx(whole, rel=1e-12) and farthest(found, expected) < 1e-9


def test_recomputing_replays_dropout(tiny, texts, pieces):
    found = []
    for recompute in (False, True):
        torch.manual_seed(1)
        found.append(gradients(model(tiny, recompute, 0.2), [batch(texts, np.arange(24), pieces, 64)]))
    (kept, left), (replayed, right) = found
    assert kept == replayed and farthest(right, left) < 1e-9
    assert abs(kept - gradients(model(tiny), [batch(texts, np.arange(24), pieces, 64)])[0]) > 1e-3, "dropout had no effect"


def test_workers_share_one_step(tiny, texts, pieces):
    rows = np.arange(40)
    whole, expected = gradients(model(tiny), [batch(texts, rows, pieces, 64)])
    shared, found = gradients(model(tiny), [batch(texts, rows, pieces, 96, rank, 3) for rank in range(3)])
    assert shared == pytest.approx(whole, rel=1e-12) and farthest(found, expected) < 1e-9


def test_what_the_encoder_reads_owes_nothing_to_the_decoder(texts, pieces):
    alone = make_batch(texts, np.arange(20), pieces, 0.3, (0, 7, 1), Budget(64, 8))
    some, most = (batch(texts, np.arange(20), pieces, 64, hidden=hidden) for hidden in (0.5, 0.7))
    for found in (some.masked, most.masked):
        assert found.scale == alone.scale and torch.equal(found.labels, alone.labels)
        for left, right in zip(found.chunks.chunks, alone.chunks.chunks, strict=True):
            assert torch.equal(found.chunks.vocabulary[left.tokens], alone.chunks.vocabulary[right.tokens])
    assert any(not torch.equal(left, right) for left, right in zip(some.visible, most.visible, strict=True))


def test_bf16_is_near(tiny, texts, pieces):
    step = batch(texts, np.arange(16), pieces, 64)
    exact, expected = gradients(model(tiny, dtype=torch.float32), [step])
    loss, found = gradients(model(tiny, precision="bf16", dtype=torch.float32), [step])
    assert loss == pytest.approx(exact, rel=0.01)
    name = "decoder.value.weight"
    assert found[name].dtype == torch.float32 and F.cosine_similarity(found[name].flatten(), expected[name].flatten(), dim=0) > 0.99


def test_positions_are_those_of_the_encoder(tiny):
    small = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": 50}
    for encoder in (load_encoder(tiny), XLMRobertaModel(XLMRobertaConfig(**small, pad_token_id=1)).eval()):
        ids = torch.tensor([[0, 7, 9, 8, 2], [0, 5, 5, 6, 2]])
        with torch.no_grad():
            tokens, positions = embedded(encoder, encoder.get_input_embeddings()(ids))
            layer = encoder.embeddings
            assert torch.allclose(tokens, layer(input_ids=ids), atol=1e-6)
            plain = encoder.get_input_embeddings()(ids) + layer.token_type_embeddings.weight[0] + positions
            assert torch.allclose(tokens, layer.LayerNorm(plain), atol=1e-6)


def test_a_decoder_follows_from_its_seed_and_an_encoder_without_positions_is_refused(tiny):
    encoder = load_encoder(tiny, dropout=0.3)
    torch.manual_seed(1)
    first = fresh_decoder(encoder, 5)
    torch.manual_seed(2)
    again, other = fresh_decoder(encoder, 5).state_dict(), fresh_decoder(encoder, 6).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.state_dict().items())
    assert not torch.equal(again["query.weight"], other["query.weight"])
    assert first.dropout.p == 0.3 and first.widen.weight.std().item() == pytest.approx(0.02, rel=0.01) and not first.mix.bias.any()
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ModernBertConfig(vocab_size=60, pad_token_id=1, **small)
    with pytest.raises(InputError, match=r"^retromae: .*bert, roberta, xlm-roberta.*modernbert"):
        fresh_decoder(ModernBertModel(config), 0)
