"""Alignment: the loss is transformers' own, no token sees what it must not, and only what may learn does."""

import numpy as np
import pytest
import torch
from alignments import align_settings
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from raysberta.aligning.align import AlignModel, Texts, aligned, decoder_hash, measure, train_align, written_states
from raysberta.aligning.batch import make_batch, rows_of
from raysberta.errors import InputError
from raysberta.models.attention import set_attention
from raysberta.models.load import load_tokenizer
from raysberta.models.model import load_model, save_model
from raysberta.training import language
from raysberta.training.chunks import Budget
from raysberta.training.parts import trainable

SEED = 42
CPU = torch.device("cpu")


@pytest.fixture
def texts(examples, written, generator) -> Texts:
    return Texts(examples, written, load_tokenizer(generator), align_settings(), SEED)


def module(joined, generator, attention="bidirectional", **changes) -> AlignModel:
    settings = align_settings(**changes)
    model = trainable(load_model(joined, dropout=0.0), settings, SEED, ("encoder", "connector"))
    set_attention(model.parts[1].model, attention)
    return aligned(model, generator, settings, CPU).double()


def gradients(model, batches) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = sum(model(batch) for batch in batches) / len(batches)
    loss.backward()
    return loss.item(), {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def same(found, expected, tolerance=1e-5) -> None:
    """Transformers' decoders normalise and turn in float32, whatever the rest is in."""
    assert found.keys() == expected.keys() and any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= tolerance * gradient.abs().max() + 1e-12, name


def test_the_loss_and_its_gradient_are_those_of_a_causal_language_model_text_by_text(joined, generator, texts):
    """transformers' own loss over [E; t; y], without padding, labels on y alone; nothing hidden."""
    rows = texts.rows(texts.learned[:9], np.arange(9) % 2 == 0, (1,))
    rows = rows_of([row.text for row in rows], [row.written for row in rows], 0.0, (1,))
    model = module(joined, generator, "causal", recompute=True)
    loss, found = gradients(model, [make_batch(rows, 0, Budget(60, 1))])

    model.zero_grad()
    whole = AutoModelForCausalLM.from_pretrained(generator, dtype=torch.float32).double().requires_grad_(False)
    connector, encoder = model.encoder.model.parts[0], model.encoder.model.encoder
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for row in rows:
        text, line = torch.from_numpy(row.text.astype(np.int64))[None], torch.from_numpy(row.written)[None]
        states, mask = connector(encoder(input_ids=text, attention_mask=torch.ones_like(text)).last_hidden_state, torch.ones_like(text))
        assert mask.all() and states.shape[1] == text.shape[1] + 1
        both = torch.cat([states, whole.get_input_embeddings()(line)], 1)
        labels = torch.cat([torch.full(mask.shape, -100), line], 1)
        total = total + whole(inputs_embeds=both, labels=labels).loss.double() * line.shape[1]
        tokens += line.shape[1]
    (total / tokens).backward()
    assert loss == pytest.approx((total / tokens).item(), rel=1e-6)
    expected = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    same(found, expected)
    assert {name.split(".")[2] for name in expected} == {"encoder", "parts"}
    assert not any(name.startswith(("encoder.model.parts.1", "head")) for name in expected), "the decoder does not learn"


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_chunks_recomputing_logits_in_parts_and_workers_change_nothing(joined, generator, texts, attention, monkeypatch):
    rows = texts.rows(texts.learned[:20], np.arange(20) % 2 == 0, (1,))
    plain = module(joined, generator, attention)
    whole, expected = gradients(plain, [make_batch(rows, 0, Budget(10**6, 10**6))])
    monkeypatch.setattr(language, "MOST_LOGITS", 700 * 5)
    same(gradients(module(joined, generator, attention, recompute=True), [make_batch(rows, 0, Budget(60, 1))])[1], expected)
    for even in (False, True):
        parts = [make_batch(rows, 0, Budget(60, 1), rank, 3, even) for rank in range(3)]
        assert not even or len({(len(part.lines), len(part.labels)) for part in parts}) == 1
        loss, found = gradients(plain, parts)
        assert loss == pytest.approx(whole, rel=1e-6)
        same(found, expected)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_what_is_written_sees_nothing_later_and_nothing_hidden(joined, generator, texts, attention):
    """Another token at a place moves the states from there on, those before it not; hidden, it moves its own alone."""
    decoder = module(joined, generator, attention).decoder
    width, rng = decoder.width, torch.Generator().manual_seed(0)
    given = torch.randn(2, 5, width, generator=rng, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    line = np.arange(20, 27)

    def states(line, hidden=(), given=given):
        barred = np.isin(np.arange(len(line)), hidden)
        rows = [rows_of([np.arange(3)], [line], 0.0, (0,))[0] for _ in range(2)]
        rows = [type(row)(row.text, row.written, barred) for row in rows]
        lines = make_batch(rows, 3, Budget(10**6, 1)).lines[0]
        return written_states(decoder, given, mask, lines).detach().unflatten(0, (2, -1))

    for hidden in ((), (2,)):
        before, other = states(line, hidden), line.copy()
        other[3] = 99
        moved = (states(other, hidden) - before).abs().amax(-1) > 1e-6
        assert moved.tolist() == [[False] * 4 + [True] * 3] * 2, "the state after the place is the first that may know it"
    other = line.copy()
    other[2] = 99
    assert torch.equal(states(other, (2,)), states(line, (2,))), "what stands at a hidden place is not read at all"
    assert ((states(line, (2,)) - states(line)).abs().amax(-1) > 1e-6).tolist() == [[False] * 3 + [True] * 4] * 2
    padded = given.clone()
    padded[1, 3:] = 7.0
    assert torch.equal(states(line, given=padded)[1], states(line)[1]), "padding between text and line is not read"
    shorter = written_states(
        decoder, given[1:, :3], mask[1:, :3], make_batch([rows_of([np.arange(3)], [line], 0.0, (0,))[0]], 3, Budget(99, 1)).lines[0]
    )
    assert torch.allclose(states(line)[1], shorter.detach(), atol=1e-6), "positions count what is no padding"


def test_half_of_what_was_written_is_hidden_and_rows_do_not_depend_on_workers(texts):
    rows = texts.rows(np.resize(texts.learned, 2000), np.resize([True, False], 2000), (1,))
    assert np.concatenate([row.hidden for row in rows]).mean() == pytest.approx(0.5, abs=0.01)
    end = texts.tokenizer.eos_token_id
    assert all((row.written[-1] == end) == (len(row.written) < 40) and (row.written[:-1] != end).all() for row in rows[:50])
    step = texts.step(np.arange(8), 3)
    assert [row.text.tolist() for row in step] == [row.text.tolist() for row in texts.step(np.arange(8), 3)]


def test_rows_set_apart_share_no_text_and_no_group_with_the_others(texts, examples):
    assert len(texts.apart) >= 2 and not np.intersect1d(examples.group[texts.apart], examples.group[texts.learned]).size

    def known(rows):
        return set(examples.raw[np.concatenate([examples.query[rows], examples.positive[rows]])].tolist())

    assert not known(texts.apart) & known(texts.learned)


def test_only_encoder_and_connector_learn_and_a_killed_run_goes_on_bit_for_bit(joined, generator, examples, written, texts, tmp_path):
    settings = align_settings(lora={"rank": 2, "alpha": 4})

    def run(name, **more):
        return train_align(settings, joined, generator, examples, written, tmp_path / name, seed=SEED, steps=12, **more)

    curve = run("whole", checkpoints=tmp_path)
    assert sum(point["loss"] for point in curve[-3:]) < sum(point["loss"] for point in curve[:3])
    resumed = run("resumed", resume=tmp_path / "step-00000006")
    assert [point["loss"] for point in resumed] == [point["loss"] for point in curve]
    before, midway, after, again = (
        {file.relative_to(folder).as_posix(): load_file(file) for file in sorted(folder.rglob("*.safetensors"))}
        for folder in (joined, tmp_path / "step-00000006" / "model", tmp_path / "whole", tmp_path / "resumed")
    )
    assert before.keys() == after.keys() == midway.keys()
    moved = {place for place in after if any(not torch.equal(value, before[place][name]) for name, value in after[place].items())}
    assert moved == {"model.safetensors", "1_Connector/model.safetensors"}
    assert all(torch.equal(value, after[place][name]) for place in again for name, value in again[place].items())
    assert decoder_hash(joined) == decoder_hash(tmp_path / "whole") == decoder_hash(tmp_path / "resumed")
    first, last = measure(joined, generator, texts), measure(tmp_path / "whole", generator, texts)
    assert first is not None and last is not None and last.reconstruction.own < first.reconstruction.own and last.rows == len(texts.apart)


def test_the_hash_knows_one_weight(joined, tmp_path):
    model = load_model(joined)
    with torch.no_grad():
        model.parts[1].model.layers[0].mlp.up_proj.weight[0, 0] += 1e-6
    save_model(model, load_tokenizer(joined), tmp_path / "moved")
    (tmp_path / "moved" / "modules.json").write_text((joined / "modules.json").read_text())
    assert decoder_hash(tmp_path / "moved") != decoder_hash(joined)


def test_what_cannot_be_aligned_is_refused(joined, generator, small_folder, examples, written):
    def ask(folder=joined, llm=generator, **changes):
        return train_align(align_settings(**changes), folder, llm, examples, written, None, seed=SEED, steps=1)

    with pytest.raises(InputError, match=r"^from: the model has an encoder; right would be one of an encoder and one decoder"):
        ask(folder=small_folder)
    with pytest.raises(InputError, match=r"^decoder: llm is a bert of \d+ pieces, the decoder a llama of 700"):
        ask(llm=small_folder)
    with pytest.raises(InputError, match=r"^parts\.decoder: this phase does not read it"):
        ask(parts={"decoder": "trained"})
    with pytest.raises(ValueError, match="there are no trials of an alignment"):
        align_settings(search={"over": {"learning_rate": [1e-5]}})
