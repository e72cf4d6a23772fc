"""Whole short runs of both phases, without Ray: they learn, resume bit for bit after a kill, and stop at NaN."""

import json
import logging
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from processes import in_a_process
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from variants import SEED, comparable

from raysberta.errors import InputError
from raysberta.models.describe import Description, describe
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.prefixes import E5, Prefixes
from raysberta.training.arrays import tokens_of
from raysberta.training.checkpoint import NotSaved, last_whole
from raysberta.training.contrastive import train_contrastive
from raysberta.training.engine import NotFinite
from raysberta.training.examples import prepare_tables
from raysberta.training.loop import Part, train
from raysberta.training.mlm import train_mlm
from raysberta.training.schedule import learning_rate
from raysberta.training.settings import RetroMae
from raysberta.training.survey import tokenise


def weights(folder):
    return load_encoder(folder).state_dict()


def named(kept):
    """Names of a module's weights that are the encoder's, with its own names."""
    return [(name, name.split("encoder.model.encoder.", 1)[1]) for name in kept if "encoder.model.encoder." in name]


@pytest.mark.parametrize("kind", ["contrastive", "mlm", "retromae"])
def test_a_run_learns_and_a_killed_one_goes_on_bit_for_bit(kind, contrastive, mlm, tiny, table, examples, tmp_path):
    """The system kills it while it writes its third checkpoint, and another process goes on from the second.

    Dropout is on (the base's own 0.1): a resumed step draws the masks it would have drawn.
    """
    texts = tokens_of(tokenise(load_tokenizer(tiny), [(text, 16) for text in table["positive"].to_pylist()]))
    steps = 20 if kind == "contrastive" else 12
    seen = []
    watched = {"seed": SEED, "on_step": lambda metrics, total: seen.append((metrics.step, total))}
    if kind == "contrastive":
        settings = contrastive.model_copy(update={"steps": steps})
        examples.save(f"{tmp_path}/data")
        whole = train_contrastive(settings, tiny, examples, tmp_path / "whole", **watched)
    else:
        settings = mlm.model_copy(update={"steps": steps, "retromae": RetroMae() if kind == "retromae" else None})
        texts.save(f"{tmp_path}/data")
        whole = train_mlm(settings, tiny, texts, tmp_path / "whole", **watched)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    assert seen == [(step + 1, steps) for step in range(steps)]
    first, last = (sum(point["loss"] for point in part) / 4 for part in (whole[:4], whole[-4:]))
    assert last < first - 0.05

    assert in_a_process(tmp_path, tiny) == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    saved = tmp_path / "checkpoints"
    assert sorted(path.name for path in saved.iterdir()) == ["step-00000003", "step-00000006", "step-00000009.aside"]
    second = saved / "step-00000006"
    assert last_whole([saved / "step-00000009.aside", second]) == second
    assert in_a_process(tmp_path, tiny, second) == 0
    assert comparable(json.loads((tmp_path / "curve.json").read_text())) == comparable(whole)
    left, right = weights(tmp_path / "resumed"), weights(tmp_path / "whole")
    assert all(torch.equal(left[name], right[name]) for name in right)
    assert any(not torch.equal(right[name], value) for name, value in weights(tiny).items())
    kept, plain = load_file(second / "weights.safetensors"), weights(second / "model")
    assert plain.keys() == right.keys()
    assert len(named(kept)) == len(plain) and all(torch.equal(kept[name], plain[own]) for name, own in named(kept))
    assert any(name.startswith("decoder.") for name in kept) == (kind == "retromae")
    assert load_file(tmp_path / "whole" / "model.safetensors").keys() == load_file(tiny / "model.safetensors").keys()
    for folder in (second / "model", tmp_path / "resumed"):
        assert describe(folder) == describe(tiny), "a model in training and a trained one say how they are used"


def test_contrastive_training_says_what_the_model_learned_to_read_and_how_it_pools(contrastive, tiny, examples, tmp_path):
    changed = contrastive.model_copy(update={"prefixes": E5, "pooling": "cls", "checkpoint_every": 1})
    plain, other = (train_contrastive(one, tiny, examples, None, seed=SEED, steps=1) for one in (contrastive, changed))
    assert plain[0]["loss"] != other[0]["loss"], "what is pooled otherwise has another loss"
    train_contrastive(changed, tiny, examples, tmp_path / "model", seed=SEED, steps=2, checkpoints=tmp_path)
    asked = Description("cls", E5, describe(tiny).max_tokens)
    assert describe(tmp_path / "step-00000001" / "model") == describe(tmp_path / "model") == asked
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    encoder, tokenizer = load_encoder(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    with torch.no_grad():
        first = encoder(**tokenizer("query: мост", return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0, 0]
    found = loaded.encode("мост", prompt_name="search_query")
    assert np.allclose(found, torch.nn.functional.normalize(first, dim=0).numpy(), atol=1e-5)


def test_a_damaged_or_foreign_checkpoint_is_refused(contrastive, mlm, tiny, examples, tmp_path):
    train_contrastive(contrastive, tiny, examples, None, seed=SEED, steps=4, checkpoints=tmp_path)
    folder = tmp_path / "step-00000003"
    with pytest.raises(InputError, match="no training checkpoint"):
        train_contrastive(contrastive, tiny, examples, None, seed=SEED, steps=4, resume=tmp_path / "none")
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="weights do not fit"):
        train_contrastive(contrastive, tiny, examples, None, seed=SEED, steps=4, resume=folder)
    (folder / "weights.safetensors").write_bytes(whole)
    state = json.loads((folder / "state.json").read_text())
    assert state["step"] == 3 and len(state["curve"]) == 3
    texts = tokens_of(tokenise(load_tokenizer(tiny), [("мост у реки", 16)] * 40))
    with pytest.raises(InputError, match="weights do not fit"):
        train_mlm(mlm, tiny, texts, None, seed=SEED, steps=4, resume=folder)


def test_nan_stops_with_step_and_rows_named(contrastive, tiny, examples):
    pattern = r"step 1 of 4: loss is nan; batch: [a-z]+/[a-z]+ pairs 0000.*; last good checkpoint: none"
    with pytest.raises(NotFinite, match=pattern):
        train_contrastive(contrastive.model_copy(update={"temperature": float("nan")}), tiny, examples, None, seed=SEED, steps=4)


class Exploding(torch.nn.Module):
    """A parabola whose loss is infinite from the batch 4 on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, batch):
        return (self.weight**2).sum() * (float("inf") if batch >= 4 else 1.0)


def test_an_infinite_loss_leaves_the_weights_and_names_the_checkpoint(mlm, tmp_path):
    module = Exploding()

    def part_of(step, rank, world):
        return Part(step, 1, f"row {step}")

    with pytest.raises(NotFinite, match=r"^step 5 of 9: loss is inf; batch: row 4; last good checkpoint: .*step-00000003"):
        train(module, part_of, mlm, 9, torch.device("cpu"), {"seed": 0, "checkpoints": tmp_path})
    assert torch.isfinite(module.weight).all()


def test_the_rate_rises_peaks_and_falls():
    rates = [learning_rate(step, 10, 1.0, 4, "linear") for step in range(10)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and rates[-1] == pytest.approx(1 / 6)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(9, 10, 1.0, 4, "constant") == 1.0
    cosine = [learning_rate(step, 10, 2.0, 0, "cosine") for step in range(10)]
    assert cosine[0] == 2.0 and cosine[5] == pytest.approx(1.0) and 0 < cosine[9] < 0.1
    assert learning_rate(0, 1, 1.0, 200, "linear") == 1.0
    assert max(learning_rate(step, 20, 1.0, 200, "linear") for step in range(20)) == 1.0


def test_texts_that_do_not_fit_the_model_are_refused(contrastive, mlm, tiny, e5_folder, table, examples):
    others = prepare_tables([table], load_tokenizer(e5_folder), Prefixes(), 16, 16, 2)
    with pytest.raises(InputError, match=r"^the texts hold token \d+, the model has \d+ pieces: the vocabulary is not its own"):
        train_contrastive(contrastive, tiny, others, None, seed=SEED, steps=1)
    long = tokens_of([[0, *[5] * 600, 2]] * 40)
    with pytest.raises(InputError, match=r"^a text of 602 tokens, the model takes 512"):
        train_mlm(mlm, tiny, long, None, seed=SEED, steps=1)
    wide = contrastive.model_copy(update={"dimensions": (384,)})
    with pytest.raises(InputError, match=r"^dimensions: 384 of vectors of 384"):
        train_contrastive(wide, tiny, examples, None, seed=SEED, steps=1)


def test_objectives_name_sources_that_have_what_they_learn_from(contrastive, tiny, examples):
    def ask(objectives, found=examples):
        chosen = contrastive.model_copy(update={"objectives": objectives})
        return train_contrastive(chosen, tiny, found, None, seed=SEED, steps=1)

    with pytest.raises(InputError, match=r"^objectives: no examples of 'nope/qa'; there are few/same, questions/qa"):
        ask({"nope/qa": "cosent"})
    unscored = replace(examples, positive_score=np.full(len(examples), np.nan, np.float32))
    with pytest.raises(InputError, match="cosent learns from scores, and no positive of questions/qa has one"):
        ask({"questions/qa": "cosent"}, unscored)


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(contrastive, tiny, examples, tmp_path):
    """The limit on file sizes stands for the full disk: the same calls fail at the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(metrics, steps):
        if metrics.step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))

    try:
        with pytest.raises(
            NotSaved, match=r"^step 6 of 9: .*step-00000006: no checkpoint written: .*; last good checkpoint: .*step-00000003"
        ):
            train_contrastive(contrastive, tiny, examples, None, seed=SEED, steps=9, checkpoints=tmp_path, on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert last_whole([tmp_path / "step-00000003"]) == tmp_path / "step-00000003"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(contrastive, tiny, examples, tmp_path, caplog):
    whole = train_contrastive(contrastive, tiny, examples, None, seed=SEED, steps=9, checkpoints=tmp_path)
    newest, before = tmp_path / "step-00000006", tmp_path / "step-00000003"
    assert last_whole([newest, before]) == newest
    moments = newest / "moments.safetensors"
    data = bytearray(moments.read_bytes())
    data[-5] ^= 1
    moments.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = last_whole([newest, before])
    assert found == before and "step-00000006: damaged (moments.safetensors changed since)" in caplog.text
    assert comparable(train_contrastive(contrastive, tiny, examples, None, seed=SEED, steps=9, resume=found)) == comparable(whole)
    (before / "state.json").write_text("{")
    assert last_whole([newest, before]) is None


def test_frozen_embeddings_stay_as_they_are_and_a_resumed_run_is_the_same(contrastive, mlm, tiny, table, examples, tmp_path):
    """The other weights learn; a run that goes on from a checkpoint ends with the same bits."""
    settings = contrastive.model_copy(update={"steps": 6, "checkpoint_every": 3, "freeze_embeddings": True})
    kept = tmp_path / "checkpoints"
    whole = train_contrastive(settings, tiny, examples, tmp_path / "whole", seed=SEED, checkpoints=kept)
    again = train_contrastive(settings, tiny, examples, tmp_path / "again", seed=SEED, resume=kept / "step-00000003")
    assert comparable(again) == comparable(whole)
    first, left, right = (weights(folder) for folder in (tiny, tmp_path / "whole", tmp_path / "again"))
    assert all(torch.equal(left[name], right[name]) for name in left)
    pieces = "embeddings.word_embeddings.weight"
    assert torch.equal(left[pieces], first[pieces])
    assert all(not torch.equal(left[name], first[name]) for name in left if name.endswith("query.weight"))
    texts = tokens_of(tokenise(load_tokenizer(tiny), [(text, 16) for text in table["positive"].to_pylist()]))
    train_mlm(mlm.model_copy(update={"steps": 2, "freeze_embeddings": True}), tiny, texts, tmp_path / "masked", seed=SEED)
    assert torch.equal(weights(tmp_path / "masked")[pieces], first[pieces])
