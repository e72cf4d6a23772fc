"""Whole short runs of both phases, in one process: they learn, resume bit for bit, and stop at NaN."""

import json
import logging
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raysberta.encoder.load import load_encoder, load_tokenizer
from raysberta.errors import InputError
from raysberta.prefixes import Prefixes
from raysberta.recipe import RetroMae
from raysberta.training.checkpoint import NotSaved, last_whole
from raysberta.training.contrastive import train_contrastive
from raysberta.training.engine import NotFinite
from raysberta.training.examples import prepare, ragged, tokenise
from raysberta.training.loop import Work, train
from raysberta.training.mlm import train_mlm
from raysberta.training.schedule import learning_rate


def weights(folder):
    return load_encoder(folder).state_dict()


def named(kept):
    """Names of a module's weights that are the encoder's, with its own names."""
    return [(name, name.split("encoder.encoder.", 1)[1]) for name in kept if "encoder.encoder." in name]


def comparable(curve):
    return [{key: point[key] for key in ("step", "loss", "learning_rate", "gradient_norm", "tokens")} for point in curve]


@pytest.mark.parametrize("phase", ["contrastive", "mlm", "retromae"])
def test_a_run_learns_and_a_killed_one_goes_on_bit_for_bit(phase, recipe, tiny, table, examples, tmp_path):
    """Dropout is on (the base's own 0.1): a resumed step draws the masks it would have drawn."""
    texts = ragged(tokenise(load_tokenizer(tiny), [(text, 16) for text in table["positive"].to_pylist()]))

    def run(output, **more):
        if phase == "contrastive":
            return train_contrastive(recipe, tiny, examples, tmp_path / output, **more)
        decoder = RetroMae() if phase == "retromae" else None
        chosen = recipe.model_copy(update={"mlm": recipe.mlm.model_copy(update={"retromae": decoder})})
        return train_mlm(chosen, tiny, texts, tmp_path / output, **more)

    steps = 20 if phase == "contrastive" else 12
    seen = []
    whole = run("whole", steps=steps, on_step=lambda metrics, total: seen.append((metrics.step, total)))
    assert seen == [(step + 1, steps) for step in range(steps)]
    first, last = (sum(point["loss"] for point in part) / 4 for part in (whole[:4], whole[-4:]))
    assert last < first - 0.05

    def kill(folder, step):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("killed", steps=steps, checkpoints=tmp_path / "checkpoints", on_checkpoint=kill)
    assert not (tmp_path / "killed").exists()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000006"]
    resumed = run("resumed", steps=steps, resume=tmp_path / "checkpoints" / "step-00000006")
    assert comparable(resumed) == comparable(whole)
    left, right = weights(tmp_path / "resumed"), weights(tmp_path / "whole")
    assert all(torch.equal(left[name], right[name]) for name in right)
    assert any(not torch.equal(right[name], value) for name, value in weights(tiny).items())
    kept = load_file(tmp_path / "checkpoints" / "step-00000006" / "weights.safetensors")
    plain = weights(tmp_path / "checkpoints" / "step-00000006" / "model")
    assert plain.keys() == right.keys()
    assert len(named(kept)) == len(plain) and all(torch.equal(kept[name], plain[own]) for name, own in named(kept))
    assert any(name.startswith("decoder.") for name in kept) == (phase == "retromae")
    assert load_file(tmp_path / "whole" / "model.safetensors").keys() == load_file(tiny / "model.safetensors").keys()


def test_a_damaged_or_foreign_checkpoint_is_refused(recipe, tiny, examples, tmp_path):
    train_contrastive(recipe, tiny, examples, None, steps=4, checkpoints=tmp_path)
    folder = tmp_path / "step-00000003"
    with pytest.raises(InputError, match="no training checkpoint"):
        train_contrastive(recipe, tiny, examples, None, steps=4, resume=tmp_path / "none")
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="weights do not fit"):
        train_contrastive(recipe, tiny, examples, None, steps=4, resume=folder)
    (folder / "weights.safetensors").write_bytes(whole)
    state = json.loads((folder / "state.json").read_text())
    assert state["step"] == 3 and len(state["curve"]) == 3
    texts = ragged(tokenise(load_tokenizer(tiny), [("мост у реки", 16)] * 40))
    with pytest.raises(InputError, match="weights do not fit"):
        train_mlm(recipe, tiny, texts, None, steps=4, resume=folder)


def test_nan_stops_with_step_and_rows_named(recipe, tiny, examples):
    pattern = r"contrastive: step 1 of 4: loss is nan; batch: [a-z]+/[a-z]+ pairs 0000.*; last good checkpoint: none"
    with pytest.raises(NotFinite, match=pattern):
        train_contrastive(recipe, tiny, examples, None, temperature=float("nan"), steps=4)


class Exploding(torch.nn.Module):
    """A parabola whose loss is infinite from the batch 4 on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, batch):
        return (self.weight**2).sum() * (float("inf") if batch >= 4 else 1.0)


def test_an_infinite_loss_leaves_the_weights_and_names_the_checkpoint(recipe, tmp_path):
    module = Exploding()

    def work(step, rank, world):
        return Work(step, 1, f"row {step}")

    with pytest.raises(NotFinite, match=r"toy: step 5 of 9: loss is inf; batch: row 4; last good checkpoint: .*step-00000003"):
        train("toy", module, work, recipe.mlm, 9, 0, torch.device("cpu"), checkpoints=tmp_path)
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


def test_texts_that_do_not_fit_the_model_are_refused(recipe, tiny, e5_folder, table, examples):
    others = prepare([table], load_tokenizer(e5_folder), Prefixes(), 16, 16, 2)
    with pytest.raises(InputError, match=r"contrastive: the texts hold token \d+, the model has \d+ pieces: the vocabulary is not its own"):
        train_contrastive(recipe, tiny, others, None, steps=1)
    long = ragged([[0, *[5] * 600, 2]] * 40)
    with pytest.raises(InputError, match="mlm: a text of 602 tokens, the model takes 512"):
        train_mlm(recipe, tiny, long, None, steps=1)
    wide = recipe.model_copy(update={"contrastive": recipe.contrastive.model_copy(update={"dimensions": (384,)})})
    with pytest.raises(InputError, match=r"contrastive\.dimensions: 384 of vectors of 384"):
        train_contrastive(wide, tiny, examples, None, steps=1)


def test_objectives_name_sources_that_have_what_they_learn_from(recipe, tiny, examples):
    def ask(objectives, found=examples):
        chosen = recipe.model_copy(update={"contrastive": recipe.contrastive.model_copy(update={"objectives": objectives})})
        return train_contrastive(chosen, tiny, found, None, steps=1)

    with pytest.raises(InputError, match=r"contrastive\.objectives: no examples of 'nope/qa'; there are few/same, questions/qa"):
        ask({"nope/qa": "cosent"})
    unscored = replace(examples, positive_score=np.full(len(examples), np.nan, np.float32))
    with pytest.raises(InputError, match="cosent learns from scores, and no positive of questions/qa has one"):
        ask({"questions/qa": "cosent"}, unscored)


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(recipe, tiny, examples, tmp_path):
    """The limit on file sizes stands for the full disk: the same calls fail at the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(metrics, steps):
        if metrics.step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))

    try:
        with pytest.raises(
            NotSaved, match=r"contrastive: step 6 of 9: .*step-00000006: no checkpoint written: .*; last good checkpoint: .*step-00000003"
        ):
            train_contrastive(recipe, tiny, examples, None, steps=9, checkpoints=tmp_path, on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert last_whole([tmp_path / "step-00000003"]) == tmp_path / "step-00000003"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(recipe, tiny, examples, tmp_path, caplog):
    whole = train_contrastive(recipe, tiny, examples, None, steps=9, checkpoints=tmp_path)
    newest, before = tmp_path / "step-00000006", tmp_path / "step-00000003"
    assert last_whole([newest, before]) == newest
    moments = newest / "moments.safetensors"
    data = bytearray(moments.read_bytes())
    data[-5] ^= 1
    moments.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = last_whole([newest, before])
    assert found == before and "step-00000006: damaged (moments.safetensors changed since)" in caplog.text
    assert comparable(train_contrastive(recipe, tiny, examples, None, steps=9, resume=found)) == comparable(whole)
    (before / "state.json").write_text("{")
    assert last_whole([newest, before]) is None
