"""What is added to InfoNCE: a distance to a teacher's vectors, the spread-out term, weights of hard negatives. Against plain loops."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from variants import SEED, batches_of_two_sources, contrastive_settings

from raysberta.errors import InputError
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.model import load_model
from raysberta.models.pool import pool
from raysberta.parsing import load
from raysberta.prefixes import E5, Prefixes
from raysberta.training.contrastive import ContrastiveModel, make_batch, train_contrastive
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.examples import Examples, prepare_tables
from raysberta.training.objectives import hard_of, info_nce, spread
from raysberta.training.survey import Held, hashes, known, reading_of
from raysberta.training.teacher import projection, teacher_hashes, teacher_texts

CPU = torch.device("cpu")
TOGETHER = {"cross_device_negatives": True, "same_tower": True, "dimensions": (48,), "margin": 0.1}


@pytest.fixture(scope="module")
def ordered(table) -> list[str]:
    """What the teacher reads, in an order of its own."""
    reading = reading_of({"query": 16, "document": 16}, E5, [E5], sys.maxsize)
    found = teacher_texts(Held(table), reading, teacher_hashes(Held(table), reading))
    return sorted(text for part in found for text in part["text"].to_pylist())


@pytest.fixture(scope="module")
def learned(table, tiny, ordered) -> Examples:
    """The sentences, each with the row of its teacher's vector."""
    return prepare_tables([table], load_tokenizer(tiny), Prefixes(), 16, 16, 2, None, known(E5, hashes(ordered)))


def vectors_of(ordered: list[str], width: int) -> np.ndarray:
    """A direction for each text; what a real teacher's are does not matter to a gradient."""
    return np.random.default_rng(3).normal(size=(len(ordered), width)).astype(np.float16)


def model_of(tiny, settings, bridge=None) -> ContrastiveModel:
    return ContrastiveModel(ChunkedEncoder(load_model(tiny, dropout=0.0).double(), "fp32", True), settings, bridge).double().train()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def embed(model, tokens) -> torch.Tensor:
    tokens = torch.from_numpy(tokens.astype(np.int64))[None]
    there = torch.ones_like(tokens)
    return F.normalize(pool(model.encoder.model.encoder(input_ids=tokens, attention_mask=there).last_hidden_state, there, "mean")[0], dim=0)


def same(found, expected):
    floor = 1e-6 * max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-9 * gradient.abs().max().clamp(min=floor), name


@pytest.mark.parametrize(("loss", "width"), [("cosine", 384), ("squared", 40)])
def test_the_term_is_that_of_a_loop_over_all_texts_of_the_step(loss, width, tiny, learned, ordered, table):
    vectors, batches = vectors_of(ordered, width), batches_of_two_sources(learned)
    plain = contrastive_settings(temperature=0.05, chunk_tokens=96)
    settings = contrastive_settings(temperature=0.05, chunk_tokens=96, distil={"teacher": "e5", "weight": 0.7, "loss": loss})
    bridge = projection(384, width, seed=1)
    model = model_of(tiny, settings, bridge)
    found = model(make_batch(learned, batches, settings, CPU, teacher=vectors))
    of_found = gradients(model, found)
    rows = np.concatenate(batches)
    sequences = {*learned.query[rows].tolist(), *learned.positive[rows].tolist()}
    sequences.update(each for row in rows for each in learned.negatives[row].tolist())
    assert len(sequences) > len(rows) * 2, "hard negatives are among them"
    texts = {number: text for text, number in zip(table["query"].to_pylist(), learned.query.tolist(), strict=True)}
    query = int(learned.query[batches[0][0]])
    assert ordered[learned.taught[query]].endswith(f": {texts[query]}")
    terms = []
    for sequence in sorted(sequences):
        own = embed(model, learned.tokens[sequence])
        if bridge is not None:
            own = F.normalize(bridge.linear.weight @ own, dim=0)
        aim = torch.from_numpy(vectors[learned.taught[sequence]]).double()
        aim = F.normalize(aim.float(), dim=0).double()
        terms.append(1 - own @ aim if loss == "cosine" else ((own - aim) ** 2).sum())
    term = 0.7 * torch.stack(terms).mean()
    model.settings = plain
    expected = model(make_batch(learned, batches, plain, CPU)) + term
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    same(of_found, gradients(model, expected))


def test_the_spread_out_term_is_that_of_loops_over_different_texts(tiny, learned):
    """A device batch that stands twice, and two of different sources: each text counts once."""
    batches = batches_of_two_sources(learned)
    batches.append(batches[0][:3])
    plain = contrastive_settings(temperature=0.05, chunk_tokens=96)
    settings = contrastive_settings(temperature=0.05, chunk_tokens=96, spread_out=3.0)
    model = model_of(tiny, settings)
    found = model(make_batch(learned, batches, settings, CPU))
    of_found = gradients(model, found)
    rows, term = np.concatenate(batches), 0.0
    for column in (learned.query, learned.positive):
        each = {int(learned.raw[sequence]): int(sequence) for sequence in column[rows][::-1]}
        vectors = [embed(model, learned.tokens[sequence]) for sequence in each.values()]
        pairs = [(left, right) for left in range(len(vectors)) for right in range(len(vectors)) if left != right]
        term = term + sum((vectors[left] @ vectors[right]) ** 2 for left, right in pairs) / len(pairs)
    model.settings = plain
    expected = model(make_batch(learned, batches, plain, CPU)) + 3.0 * term
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    same(of_found, gradients(model, expected))
    assert spread(torch.ones(1, 4)).item() == 0


def test_hard_negatives_are_weighted_by_a_constant():
    draw = torch.Generator().manual_seed(0)
    queries, documents = (F.normalize(torch.randn(rows, 6, generator=draw, dtype=torch.float64), dim=1).requires_grad_() for rows in (4, 7))
    relations = torch.full((4, 7), -1, dtype=torch.int8)
    relations[torch.arange(4), torch.arange(4)] = 1
    relations[1, 6] = 0
    hard = torch.zeros(4, 7, dtype=torch.bool)
    hard[0, 4] = hard[1, 5] = hard[1, 6] = hard[3, 4] = True
    found = info_nce(queries, documents, relations, 0.05, 0.0, None, hard, 5.0)
    terms = []
    for row in range(4):
        cosines = [queries[row] @ documents[column] for column in range(7)]
        parts = [torch.exp(cosines[row] / 0.05)]
        for column in range(7):
            if relations[row, column] < 0:
                weight = np.exp(5.0 * cosines[column].item()) if hard[row, column] else 1.0
                parts.append(weight * torch.exp(cosines[column] / 0.05))
        terms.append(-torch.log(parts[0] / torch.stack(parts).sum()))
    expected = torch.stack(terms).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(loss, (queries, documents)) for loss in (found, expected))
    assert all(torch.allclose(left, right, rtol=1e-10, atol=1e-12) for left, right in zip(ours, theirs, strict=True))
    assert found.item() != info_nce(queries, documents, relations, 0.05).item()


def test_hard_negatives_are_a_rows_own(numbers):
    examples = numbers([(0, 0, 10), (0, 1, 11)], negatives=[[20, 21], [21, 10]])
    assert hard_of(examples, np.arange(2), np.asarray([10, 11, 20, 21])).tolist() == [[0, 0, 1, 1], [1, 0, 0, 1]]


def test_all_of_it_resumes_bit_for_bit_and_stays_out_of_the_model(tiny, learned, ordered, tmp_path):
    more = {"spread_out": 0.5, "hardness": 5.0, "distil": {"teacher": "e5", "loss": "squared"}, **TOGETHER}
    short = {"precision": "fp32", "checkpoint_every": 2, "warmup_steps": 1, "batch_size": 4, "device_batches": 2, "chunk_tokens": 96}
    settings, vectors = contrastive_settings(**more, **short), vectors_of(ordered, 40)
    run = {"seed": SEED, "steps": 3, "teacher": vectors}
    learned.save(f"{tmp_path}/data")
    again = Examples.load(f"{tmp_path}/data")
    whole = train_contrastive(settings, tiny, learned, tmp_path / "whole", **run, checkpoints=tmp_path)
    on = train_contrastive(settings, tiny, again, tmp_path / "resumed", **run, resume=tmp_path / "step-00000002")
    assert [point["loss"] for point in on] == [point["loss"] for point in whole]
    left, right = (load_encoder(tmp_path / name).state_dict() for name in ("whole", "resumed"))
    assert all(torch.equal(left[name], right[name]) for name in left) and left.keys() == load_encoder(tiny).state_dict().keys()


def test_a_distillation_is_not_searched(tmp_path):
    text = "{kind: distil, from: a, teacher: a, search: {over: {learning_rate: [1e-5, 2e-5]}}}"
    (tmp_path / "recipe.yaml").write_text(f"name: x\nsources: {{s: {{kind: rl_wsd}}}}\nphases: {{p: {text}}}\n")
    with pytest.raises(InputError, match="trials are not given a teacher's vectors; right would be null"):
        load(tmp_path / "recipe.yaml")
