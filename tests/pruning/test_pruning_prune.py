"""Measurement by kept states against whole forwards of the encoder put together anew, and the greedy choice against brute force."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from raysberta.errors import InputError
from raysberta.models.pool import pool
from raysberta.pruning import prune
from raysberta.pruning.layers import encoder_of, fits, layers_of
from raysberta.pruning.prune import Batch, Stack, batches, check_apart, removals, similarity, vectors

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 80}
TYPES = ["bert", "xlm-roberta", "modernbert"]


def an_encoder(kind: str, tokenizer: PreTrainedTokenizerFast, layers: int = 5, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """With weights so large that layers matter, each its own amount."""
    given = {**SIZES, "vocab_size": len(tokenizer), "num_hidden_layers": layers, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(3)
    if kind == "modernbert":
        pattern = ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
        config = ModernBertConfig(**given, local_attention=6, layer_types=pattern[:layers], bos_token_id=0, eos_token_id=2)
        model: PreTrainedModel = ModernBertModel(config)
    elif kind == "xlm-roberta":
        model = XLMRobertaModel(XLMRobertaConfig(**given), add_pooling_layer=False)
    else:
        model = BertModel(BertConfig(**given), add_pooling_layer=False)
    with torch.no_grad():
        for number, layer in enumerate(layers_of(model)[1]):
            for weights in layer.parameters():
                weights.add_((0.05 + 0.1 * (number * 7 % 5)) * torch.randn_like(weights))
    return model.to(dtype=dtype).eval()


@pytest.fixture
def given(unigram: PreTrainedTokenizerFast, russian: list[str], english: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Several batches of texts of unequal length."""
    monkeypatch.setattr(prune, "BATCH_TOKENS", 100)
    return batches(unigram, russian[:8] + english[:8], 40)


@torch.no_grad()
def plainly(model: PreTrainedModel, given: Sequence[Batch]) -> Tensor:
    """Vectors of an untouched model's own forward."""
    found = [pool(model(input_ids=each.tokens, attention_mask=each.mask).last_hidden_state, each.mask, "mean") for each in given]
    return torch.nn.functional.normalize(torch.cat(found), dim=-1)


def brute(model: PreTrainedModel, given: Sequence[Batch], kept: Sequence[int]) -> float:
    """The similarity, by another encoder and another formula."""
    found, whole = plainly(encoder_of(model, kept), given), plainly(model, given)
    a, b = found - found.mean(0, keepdim=True), whole - whole.mean(0, keepdim=True)
    return float(((a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()).mean())


def test_texts_are_batched_by_length(unigram: PreTrainedTokenizerFast, given: list[Batch]) -> None:
    assert len(given) > 2 and sum(len(batch.tokens) for batch in given) == 16
    assert all(batch.tokens.numel() <= 100 or len(batch.tokens) == 1 for batch in given)
    assert all(a.mask.sum(1).max() <= b.mask.sum(1).min() for a, b in pairwise(given))
    assert any((batch.mask == 0).any() for batch in given), "some padding, else masks are not tried"
    assert all((batch.tokens[batch.mask == 0] == unigram.pad_token_id).all() for batch in given)


@pytest.mark.parametrize("kind", TYPES)
def test_kept_states_give_what_the_encoder_put_together_anew_gives(kind: str, unigram: PreTrainedTokenizerFast, given: list[Batch]) -> None:
    model, touched = an_encoder(kind, unigram), an_encoder(kind, unigram)
    stack, whole = Stack(touched, "mean"), plainly(model, given)
    assert torch.equal(vectors(stack, given, stack.all), whole)
    for kept in ([0, 1, 2, 3, 4], [0, 2, 4]):
        assert (vectors(stack, given, kept) - plainly(encoder_of(model, kept), given)).abs().max() <= 1e-9
        for without in kept[1:]:
            rest = [layer for layer in kept if layer != without]
            expected = plainly(encoder_of(model, rest), given)
            states = [(batch, stack.vectors(batch, kept)[1]) for batch in given]
            found = torch.cat([stack.vectors_from(batch, kept, without, inputs[without]) for batch, inputs in states])
            assert (found - expected).abs().max() <= 1e-9
            assert (found - whole).abs().max() > 1e-3, "the layer does something"


def test_only_the_layers_behind_are_computed(unigram: PreTrainedTokenizerFast, given: list[Batch]) -> None:
    model, ran = an_encoder("bert", unigram), []
    for number, layer in enumerate(layers_of(model)[1]):
        layer.attention.register_forward_hook(lambda *_, number=number: ran.append(number))
    stack = Stack(model, "mean")
    _, inputs = stack.vectors(given[0], stack.all)
    assert ran == [0, 1, 2, 3, 4] and set(inputs) == set(ran)
    ran.clear()
    stack.vectors_from(given[0], [0, 1, 2, 4], 1, inputs[1])
    assert ran == [2, 4]


@pytest.mark.parametrize("kind", TYPES)
def test_the_greedy_choice_is_that_of_brute_force(kind: str, unigram: PreTrainedTokenizerFast, given: list[Batch]) -> None:
    model, kept = an_encoder(kind, unigram), list(range(5))
    order = []
    for removal in removals(Stack(an_encoder(kind, unigram), "mean"), given, 2):
        fixed = kind == "modernbert"
        expected = {layer: brute(model, given, [other for other in kept if other != layer]) for layer in kept if layer or not fixed}
        assert removal.similarities == pytest.approx(expected, abs=1e-9)
        assert removal.layer == max(expected, key=expected.__getitem__)
        kept.remove(removal.layer)
        order.append(removal.layer)
    assert len(order) == 3 and order != [4, 3, 2], "not just the last ones"


def test_a_layer_that_does_nothing_goes_first(unigram: PreTrainedTokenizerFast, given: list[Batch]) -> None:
    model = an_encoder("modernbert", unigram)
    with torch.no_grad():
        planted = model.layers[3]
        planted.attn.Wo.weight.zero_()
        planted.mlp.Wo.weight.zero_()
    first = next(removals(Stack(model, "mean"), given, 4))
    assert first.layer == 3 and first.similarities[3] == pytest.approx(1, abs=1e-12)


def test_what_all_vectors_share_counts_for_nothing() -> None:
    torch.manual_seed(0)
    shared, own, other = 100 * torch.ones(8), torch.randn(2000, 8), torch.randn(2000, 8)
    assert torch.nn.functional.cosine_similarity(shared + own, shared + other).mean() > 0.99
    assert abs(similarity(shared + own, shared + other)) < 0.05
    assert similarity(shared + own, 3 * shared + own) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_all_layers_are_the_same_model_bit_by_bit(kind: str, unigram: PreTrainedTokenizerFast, given: list[Batch]) -> None:
    model = an_encoder(kind, unigram, dtype=torch.float32)
    same = encoder_of(model, range(5))
    assert {**same.config.to_dict(), "dtype": None} == {**model.config.to_dict(), "dtype": None}
    state = same.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(plainly(same, given), plainly(model, given))
    assert not list(removals(Stack(same, "mean"), given, 5))


def test_layers_are_numbered_anew_with_their_kinds(unigram: PreTrainedTokenizerFast) -> None:
    model = an_encoder("modernbert", unigram)
    smaller = encoder_of(model, [0, 2, 3])
    assert smaller.config.num_hidden_layers == 3
    assert smaller.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert model.config.num_hidden_layers == 5, "the model that is given stays as it is"
    assert [layer.attn.layer_idx for layer in smaller.layers] == [0, 1, 2]
    assert not fits(model.layers, [1, 2])
    with pytest.raises(InputError, match=r"^layers: .*modernbert .*right would be to keep layer 0$"):
        encoder_of(model, [1, 2])


def test_unknown_models_are_refused_in_one_line(unigram: PreTrainedTokenizerFast, given: list[Batch]) -> None:
    shared = AlbertModel(AlbertConfig(**SIZES, vocab_size=len(unigram), num_hidden_layers=4, embedding_size=8))
    with pytest.raises(InputError, match=r"^from: a model of type albert is not known .*right would be") as refused:
        layers_of(shared)
    assert "\n" not in str(refused.value)
    strange = an_encoder("bert", unigram)
    strange.config.widths = [1, 2, 3, 4, 5]
    with pytest.raises(InputError, match=r"^from: config.json .* has 5 entries under widths, .*right would be"):
        encoder_of(strange, [0, 1])


def test_what_passes_from_layer_to_layer_beside_the_states_is_noticed(unigram: PreTrainedTokenizerFast, given: list[Batch]) -> None:
    model, seen = an_encoder("bert", unigram), []

    def remembers(layer: torch.nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(len(seen))
        return output * (1 + 0.1 * len(seen))

    for layer in layers_of(model)[1]:
        layer.attention.register_forward_hook(lambda layer, given, output: (remembers(layer, given, output[0]), *output[1:]))
    with pytest.raises(InputError, match=r"^from: the layers of a model of type bert do not run apart; right would be"):
        check_apart(Stack(model, "mean"), given[0])
