"""GRIT: writing is causal whatever embedding is, its loss is transformers' own, and both losses' gradients add up."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from variants import SEED, batches_of_two_sources, contrastive_settings

from decoders import generator  # noqa: F401 - a fixture
from raysberta.composing.compose import composed, write
from raysberta.composing.settings import Compose
from raysberta.errors import InputError
from raysberta.models.attention import sees_later_tokens
from raysberta.models.load import load_tokenizer
from raysberta.models.model import load_model
from raysberta.prefixes import NONE
from raysberta.publishing.export import export
from raysberta.training.chunks import Budget
from raysberta.training.contrastive import ContrastiveModel, make_batch, train_contrastive
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.examples import prepare, prepare_tables
from raysberta.training.generation import Dialogues, check_writes, make_writing, perplexity, reading_of_dialogues, writing_of
from raysberta.training.parts import trainable
from raysberta.training.settings import Generation
from raysberta.training.survey import Held, pieces
from small_models import english, russian  # noqa: F401 - fixtures

CPU = torch.device("cpu")


def settings(**changes):
    written = {
        "examples": ["drawn"],
        "batch_size": 6,
        "question": "<|user|>\n",
        "answer": "\n<|assistant|>\n",
        "question_tokens": 24,
        "answer_tokens": 24,
    }
    given = Generation.model_validate({**written, **changes.pop("generation", {})})
    short = {"batch_size": 8, "device_batches": 2, "negatives": 2, "temperature": 0.05, "chunk_tokens": 96, "precision": "fp32"}
    more = {"learning_rate": 5e-4, "warmup_steps": 2, "checkpoint_every": 3, "dropout": 0.0}
    return contrastive_settings(**{**short, **more, **changes}, generation=given)


@pytest.fixture(scope="module")
def decoder(generator, tmp_path_factory):  # noqa: F811
    """A decoder alone that sees both ways and pools by the mean."""
    wanted = Compose(kind="compose", decoder="llm", attention="bidirectional", pooling="mean", prefixes="none", pad_token="</s>")
    folder = tmp_path_factory.mktemp("decoder")
    write(composed(wanted, None, generator, seed=7), folder, generator)
    return folder


@pytest.fixture(scope="module")
def examples(table, decoder):
    return prepare_tables([table], load_tokenizer(decoder), NONE, 24, 24, 2)


@pytest.fixture(scope="module")
def dialogues(table, decoder):
    given, tokenizer = settings().generation, load_tokenizer(decoder)
    reading = reading_of_dialogues(given)
    read = prepare([Held(table)], reading, lambda _, unit, wanted: pieces(unit, reading, wanted, tokenizer))
    return Dialogues(read, decoder, given, SEED)


def module(decoder, given):
    model = trainable(load_model(decoder, dropout=0.0), given, SEED)
    writing = writing_of(model, decoder, given)
    return ContrastiveModel(ChunkedEncoder(model, "fp32", True), given, writing=writing).double().train()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def same(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= tolerance * gradient.abs().max() + 1e-12, name


@pytest.mark.parametrize("mean", ["token", "sample"])
def test_the_loss_of_writing_is_that_of_a_causal_language_model_whose_answers_are_labelled(decoder, generator, dialogues, mean):  # noqa: F811
    given = settings(generation={"mean": mean})
    model, rows = module(decoder, given), dialogues.rows(dialogues.learned[:7])
    loss = model.writing(model.encoder, make_writing(rows, given.generation, Budget(40, 1)))
    found = gradients(model, loss)

    whole = AutoModelForCausalLM.from_pretrained(generator, dtype=torch.float32).double()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in rows:
        ids = torch.from_numpy(row.ids)[None]
        labels = torch.where(torch.arange(len(row.ids)) < row.first, -100, ids)
        worth = len(row.predicted) if mean == "token" else 1
        total, count = total + whole(input_ids=ids, labels=labels).loss.double() * worth, count + worth
    expected = gradients(whole, total / count)
    assert loss.item() == pytest.approx((total / count).item(), rel=1e-6)
    named = {name.replace("encoder.model.encoder.", "model.").replace("writing.head.", "lm_head."): value for name, value in found.items()}
    same(named, expected)


def test_questions_and_markers_are_not_predicted_and_answers_end(dialogues):
    tokenizer = dialogues.tokenizer
    for row in dialogues.rows(dialogues.learned[:20]):
        asked, written = tokenizer.decode(row.ids[: row.first]), tokenizer.decode(row.predicted)
        assert asked.startswith("<|user|>\n") and asked.endswith("\n<|assistant|>\n") and "<|" not in written
        assert written.endswith("</s>") or len(row.ids) >= 24


def test_the_joint_gradient_is_the_sum_and_the_mean_over_workers_is_one(decoder, examples, dialogues):
    given = settings(generation={"weight": 0.3})
    model, rows = module(decoder, given), dialogues.rows(dialogues.learned[:9])
    batch = make_batch(examples, batches_of_two_sources(examples), given, CPU)
    whole = make_writing(rows, given.generation, Budget(40, 1))
    embedding = gradients(model, model(batch))
    writing = gradients(model, model.writing(model.encoder, whole))
    both = gradients(model, model(type(batch)(**{**vars(batch), "writing": whole})))
    assert set(both) == set(writing) > set(embedding), "the head learns from writing alone"
    same(both, {name: 0.3 * value + embedding.get(name, 0.0) for name, value in writing.items()}, 1e-9)
    for even in (False, True):
        parts = [make_writing(rows, given.generation, Budget(40, 1), rank, 3, even) for rank in range(3)]
        assert not even or len({(len(part.places), len(part.labels)) for part in parts}) == 1
        shares = [model.writing(model.encoder, part) for part in parts]
        same(gradients(model, torch.stack(shares).mean()), writing)


def test_a_later_token_is_seen_where_vectors_are_made_and_not_where_text_is_written(decoder, tiny):
    model = load_model(decoder)
    assert sees_later_tokens(model.encoder, 0) and sees_later_tokens(model.encoder, 2)
    check_writes(model)
    with pytest.raises(InputError, match=r"^generation: this bert is an encoder, which does not write"):
        check_writes(load_model(tiny))


def test_what_is_trained_is_published_with_its_head_and_goes_on_after_a_kill(decoder, examples, dialogues, tmp_path):
    given = settings()

    def run(name, **more):
        return train_contrastive(given, decoder, examples, tmp_path / name, None, dialogues, seed=SEED, steps=6, **more)

    curve = run("whole", checkpoints=tmp_path)
    assert [point["loss"] for point in run("resumed", resume=tmp_path / "step-00000003")] == [point["loss"] for point in curve]
    found = perplexity((decoder, tmp_path / "whole"), dialogues, given)
    assert found is not None and found.rows == len(dialogues.apart) > 2 and found.after < found.before < 2000
    midway = perplexity((tmp_path / "step-00000003" / "model", tmp_path / "resumed"), dialogues, given)
    assert midway is not None and found.after < midway.before < found.before and midway.after == found.after

    assert export(tmp_path / "whole", tmp_path / "published").difference < 1e-5
    whole, total, tokens = AutoModelForCausalLM.from_pretrained(tmp_path / "published", is_causal=True).eval(), 0.0, 0
    for row in dialogues.rows(dialogues.apart):
        ids = torch.from_numpy(row.ids)[None]
        labels = torch.where(torch.arange(len(row.ids)) < row.first, -100, ids)
        total += float(whole(input_ids=ids, labels=labels).loss.detach()) * len(row.predicted)
        tokens += len(row.predicted)
    assert tokens == found.tokens and math.exp(total / tokens) == pytest.approx(found.after, rel=1e-4)
    assert np.isfinite([point["loss"] for point in curve]).all()


def test_a_model_that_cannot_write_is_refused(tiny, examples, dialogues):
    with pytest.raises(InputError, match=r"^generation"):
        train_contrastive(settings(), tiny, examples, None, None, dialogues, seed=SEED, steps=1)
    with pytest.raises(ValueError, match="trials do not write"):
        contrastive_settings(generation=settings().generation, search={"over": {"temperature": [0.1]}})
