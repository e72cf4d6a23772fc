"""The proof of the engine: gradients of chunked, recomputed training equal those of the plain big batch, in float64."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from variants import VARIANTS, batches_of_two_sources, contrastive_settings

from raysberta.models.load import load_encoder
from raysberta.models.model import load_model
from raysberta.training.batches import ContrastivePlan
from raysberta.training.chunks import Budget, make_chunks, plan_chunks, share
from raysberta.training.contrastive import ContrastiveModel, make_batch
from raysberta.training.encode import ChunkedEncoder

CPU = torch.device("cpu")


def cost(chunks, lengths, budget):
    return sum(len(rows) * max(lengths[row] for row in rows) + budget.chunk for rows in chunks)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.builds(Budget, st.integers(1, 100), st.integers(0, 50)))
def test_chunks_hold_every_text_once_within_the_budget(lengths, budget):
    chunks = plan_chunks(np.asarray(lengths), budget)
    assert sorted(np.concatenate(chunks).tolist()) == list(range(len(lengths)))
    widths = [max(lengths[row] for row in rows) for rows in chunks]
    assert widths == sorted(widths, reverse=True)
    assert all(len(rows) == 1 or width * len(rows) <= budget.tokens for rows, width in zip(chunks, widths, strict=True))
    assert cost(chunks, lengths, budget) <= cost(as_full_as_can_be(lengths, budget), lengths, budget)


def as_full_as_can_be(lengths, budget):
    order, chunks = sorted(range(len(lengths)), key=lambda row: -lengths[row]), []
    while order:
        size = max(1, budget.tokens // lengths[order[0]])
        chunks.append(order[:size])
        del order[:size]
    return chunks


@given(st.lists(st.integers(1, 12), min_size=1, max_size=9, unique=True), st.builds(Budget, st.integers(12, 60), st.integers(0, 30)))
def test_no_other_cut_costs_less(lengths, budget):
    """All ways to cut: with distinct lengths every place is a candidate."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    ways = []
    for chosen in range(2 ** (len(order) - 1)):
        cuts = [0, *(place + 1 for place in range(len(order) - 1) if chosen >> place & 1), len(order)]
        parts = [order[begin:end] for begin, end in itertools.pairwise(cuts)]
        if all(len(rows) * lengths[rows[0]] <= budget.tokens for rows in parts):
            ways.append(cost(parts, lengths, budget))
    assert cost(plan_chunks(np.asarray(lengths), budget), lengths, budget) == min(ways)


@given(st.lists(st.integers(1, 500), min_size=8, max_size=80), st.integers(1, 8))
def test_workers_have_equally_much_to_do(lengths, world):
    shares = [share(np.asarray(lengths), rank, world) for rank in range(world)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    tokens = [sum(lengths[row] for row in rows) for rows in shares]
    assert max(tokens) - min(tokens) <= max(lengths)


def test_chunks_read_back_as_the_texts_they_were_made_of():
    texts = [np.asarray(text) for text in ([7, 9, 7], [5], [9, 5], [8, 8, 8, 8])]
    chunks = make_chunks(texts, plan_chunks(np.asarray([3, 1, 2, 4]), Budget(6, 1)))
    laid = [
        chunks.vocabulary[row[: int(length)]].tolist()
        for chunk in chunks.chunks
        for row, length in zip(chunk.tokens, chunk.mask.sum(1), strict=True)
    ]
    assert [laid[place] for place in chunks.order] == [text.tolist() for text in texts]
    assert chunks.real == 10 and chunks.padded >= 10 and len(chunks.vocabulary) == 4


def gradients(tiny, examples, dropout, chunk_tokens, recompute, pooling="mean", layers=False, **settings):
    chosen = contrastive_settings(temperature=0.05, chunk_tokens=chunk_tokens, **settings)
    encoder = ChunkedEncoder(load_model(tiny, dropout, pooling=pooling).double(), "fp32", recompute, recompute_layers=layers)
    model = ContrastiveModel(encoder, chosen).train()
    batch = make_batch(examples, batches_of_two_sources(examples), chosen, CPU)
    assert any((part.relations == 0).any() for part in batch.batches), "nothing masked: the test would prove too little"
    torch.manual_seed(5)
    loss = model(batch)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def farthest(left, right) -> float:
    """The largest relative difference of a parameter's gradient; the key biases' own are 0 but for rounding, so there is a floor."""
    floor = 1e-6 * max(float(gradient.abs().max()) for gradient in right.values())
    return max(float((left[name] - right[name]).abs().max() / right[name].abs().max().clamp(min=floor)) for name in right)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_chunks_and_recomputing_do_not_change_the_gradient(tiny, examples, pooling):
    whole, expected = gradients(tiny, examples, 0.0, 10**6, False, pooling)
    for chunk_tokens, recompute in ((96, False), (96, True), (10**6, True)):
        loss, found = gradients(tiny, examples, 0.0, chunk_tokens, recompute, pooling)
        assert loss == pytest.approx(whole, rel=1e-12)
        assert farthest(found, expected) < 1e-9


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_recomputing_layers_does_not_change_the_gradient(tiny, examples, dropout, recompute):
    """With or without chunks recomputed; the dropout is that of the first time. What is kept is less: the test sees to that."""
    whole, expected = gradients(tiny, examples, dropout, 96, False)
    loss, found = gradients(tiny, examples, dropout, 96, recompute, layers=True)
    assert loss == pytest.approx(whole, rel=1e-12)
    assert farthest(found, expected) < 1e-9
    plain, saved = (kept_bytes(tiny, examples, dropout, layers) for layers in (False, True))
    assert saved < 0.5 * plain


def kept_bytes(tiny, examples, dropout, layers) -> int:
    """What a forward pass leaves for the backward one, weights left out."""
    encoder = ChunkedEncoder(load_model(tiny, dropout), "fp32", False, recompute_layers=layers).train()
    weights, found = {value.untyped_storage().data_ptr() for value in encoder.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes(), tensor  # held, so that no other takes its place
        return tensor

    chunks = make_batch(examples, batches_of_two_sources(examples), contrastive_settings(), CPU).chunks
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = encoder.embed(chunks)
    assert states.requires_grad
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_no_objective_notices_chunks_and_recomputing(tiny, examples, settings):
    whole, expected = gradients(tiny, examples, 0.0, 10**6, False, **settings)
    plain, _ = gradients(tiny, examples, 0.0, 10**6, False)
    assert (whole == plain) == (not settings), "the setting has no effect"
    loss, found = gradients(tiny, examples, 0.0, 96, True, **settings)
    assert loss == pytest.approx(whole, rel=1e-12)
    assert farthest(found, expected) < 1e-9


def test_only_chunks_that_are_not_kept_are_encoded_twice(tiny, examples):
    settings = contrastive_settings(temperature=0.05, chunk_tokens=96)
    batch = make_batch(examples, batches_of_two_sources(examples), settings, CPU)
    sizes = [chunk.tokens.numel() for chunk in batch.chunks.chunks]
    found = []
    for recompute, kept in ((False, 0), (True, 0), (True, sum(sizes[2:])), (True, 10**6)):
        model = ContrastiveModel(ChunkedEncoder(load_model(tiny, dropout=0.2).double(), "fp32", recompute, kept), settings).train()
        times: list[int] = []
        model.encoder.model.encoder.register_forward_pre_hook(lambda *arguments, times=times: times.append(1))
        torch.manual_seed(5)
        model(batch).backward()
        found.append((len(times), {name: parameter.grad for name, parameter in model.named_parameters()}))
    assert [times for times, _ in found] == [len(sizes), 2 * len(sizes), len(sizes) + 2, len(sizes)]
    assert all(farthest(gradients, found[0][1]) < 1e-9 for _, gradients in found[1:])


def test_recomputing_replays_dropout(tiny, examples):
    """With dropout chunks draw other masks than one batch, so the same chunks are compared, kept and recomputed."""
    loss, expected = gradients(tiny, examples, 0.2, 96, False)
    again, found = gradients(tiny, examples, 0.2, 96, True)
    assert again == loss and farthest(found, expected) < 1e-9
    assert abs(loss - gradients(tiny, examples, 0.0, 96, False)[0]) > 1e-3, "dropout had no effect"


def test_the_loss_is_that_of_a_plain_loop_over_the_texts(tiny, examples):
    """One text at a time through the encoder, pooled, normalised, cross entropy by hand: nothing of the engine."""
    encoder = load_encoder(tiny).double()
    plan = ContrastivePlan(examples, 8, 1, {}, seed=0)
    rows = next(rows for rows in plan.epoch(0) if examples.source[rows[0]] == 1)
    settings = contrastive_settings(temperature=0.05, chunk_tokens=96)
    loss = ContrastiveModel(ChunkedEncoder(load_model(tiny).double(), "fp32", False), settings)(make_batch(examples, [rows], settings, CPU))

    def vector(sequence):
        tokens = torch.tensor(examples.tokens[sequence][None].astype(np.int64))
        return F.normalize(encoder(input_ids=tokens).last_hidden_state[0].mean(0), dim=-1)

    losses = []
    for row in rows:
        known = set(examples.friends[examples.raw[examples.query[row]]].tolist())
        documents = dict.fromkeys([*examples.positive[rows].tolist(), *(int(text) for other in rows for text in examples.negatives[other])])
        known |= {text for text in range(len(examples.groups)) if examples.group[row] in examples.groups[text]}
        wrong = [document for document in documents if int(examples.raw[document]) not in known]
        scores = torch.stack([vector(examples.query[row]) @ vector(document) for document in (examples.positive[row], *wrong)]) / 0.05
        losses.append(torch.logsumexp(scores, 0) - scores[0])
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-9)


def test_bf16_sums_gradients_in_float32(tiny, examples):
    settings = contrastive_settings(temperature=0.05, chunk_tokens=96)
    model = ContrastiveModel(ChunkedEncoder(load_model(tiny, dropout=0.0), "bf16", False), settings).train()
    plan = ContrastivePlan(examples, 8, 1, {}, seed=0)
    batch = make_batch(examples, plan.step(0), settings, CPU)
    model(batch).backward()
    exact = ContrastiveModel(ChunkedEncoder(load_model(tiny, dropout=0.0), "fp32", False), settings).train()
    exact(batch).backward()
    name = "encoder.model.encoder.encoder.layer.0.intermediate.dense.weight"
    ours, theirs = (dict(one.named_parameters())[name].grad.flatten() for one in (model, exact))
    assert ours.dtype == torch.float32 and len(torch.unique(ours.bfloat16().float() - ours)) > 1
    assert F.cosine_similarity(ours, theirs, dim=0) > 0.99
