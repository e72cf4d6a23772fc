"""Two processes that each hold half of the weights (DeepSpeed ZeRO 3) give the run of one process with plain torch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import run_both
from transformers import LlamaConfig, LlamaModel
from variants import SEED
from zero3_processes import FREEDOM

from raysberta.models.describe import describe, write_description
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.models.model import Model, load_model, save_model
from raysberta.models.parts import Connector, Decoder, Dense
from raysberta.training.chunks import Budget, make_chunks, most_chunks, plan_chunks, share
from raysberta.training.contrastive import train_contrastive
from raysberta.training.mlm import train_mlm

TOLERANCE = 1e-3
SCRIPT = Path(__file__).with_name("zero3_processes.py")


@pytest.fixture(scope="module")
def still(contrastive, mlm):
    """Settings of both phases without dropout, of which one process and two draw different masks."""
    changes = {"dropout": 0.0, "chunk_tokens": 192, "checkpoint_every": 1}
    return [settings.model_copy(update=changes) for settings in (contrastive, mlm)]


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    """One layer: each brings the workers together several times a chunk."""
    folder = tmp_path_factory.mktemp("one-layer")
    save(load_encoder(tiny, layers=1), load_tokenizer(tiny), folder)
    write_description(folder, describe(tiny))
    return folder


@pytest.fixture(scope="module")
def runs(still, base, examples, tmp_path_factory):
    """The folder of all runs."""
    folder = tmp_path_factory.mktemp("zero3")
    contrastive, mlm = still
    one = train_contrastive(contrastive, base, examples, folder / "one" / "model", seed=SEED, steps=2, checkpoints=folder / "one")
    other = train_mlm(mlm, base, examples.tokens, folder / "one-mlm", seed=SEED, steps=2)
    start = joined(folder / "joined", base)
    free = {
        name: train_contrastive(contrastive.model_copy(update=changes), start, examples, folder / f"one-{name}", seed=SEED, steps=2)
        for name, changes in FREEDOM.items()
    }
    (folder / "alone.json").write_text(json.dumps({"contrastive": one, "mlm": other, **free}))
    for settings in still:
        (folder / f"{settings.kind}.json").write_text(settings.model_dump_json())
    examples.save(f"{folder}/data")
    run_both(SCRIPT, folder, base)
    return folder


def joined(folder: Path, base: Path) -> Path:
    """An encoder, a connector, a decoder of one layer and a dense layer."""
    torch.manual_seed(1)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
    encoder, decoder = load_encoder(base), LlamaModel(LlamaConfig(vocab_size=50, hidden_size=24, is_causal=False, **shape))
    parts = [Connector(encoder.config.hidden_size, 16, 24), Decoder(decoder)]
    save_model(Model(encoder, "mean", parts, [Dense(24, 16)]).eval(), load_tokenizer(base), folder)
    write_description(folder, describe(base))
    return folder


def read(folder: Path, name: str):
    return json.loads((folder / f"{name}.json").read_text())


def apart(left: Path, right: Path, start: Path) -> float:
    """Length of the difference to that of what training changed: single weights differ more where AdamW makes steps of rounding."""
    one, other, before = (load_model(folder).state_dict() for folder in (left, right, start))
    lengths = [torch.stack([(one[name] - to[name]).norm() for name in one]).norm() for to in (other, before)]
    return float(lengths[0] / lengths[1])


@pytest.mark.parametrize("kind", ["contrastive", "offloaded", "lower", "parts", "adapters", "mlm"])
def test_two_processes_with_parted_weights_are_one(runs, base, kind):
    what = kind if kind in ("mlm", *FREEDOM) else "contrastive"
    alone = read(runs, "alone")[what]
    together = read(runs, "rank0")[kind]
    assert [point["loss"] for point in together] == [point["loss"] for point in read(runs, "rank1")[kind]]
    assert [point["loss"] for point in together] == pytest.approx([point["loss"] for point in alone], rel=1e-5)
    assert [point["gradient_norm"] for point in together] == pytest.approx([point["gradient_norm"] for point in alone], rel=1e-4)
    start = runs / "joined" if what in FREEDOM else base
    assert apart(runs / ("one/model" if what == "contrastive" else f"one-{what}"), runs / kind, start) < TOLERANCE


def test_the_gradient_is_that_of_one(runs):
    """In float32, as DeepSpeed reduces, against float64."""
    assert read(runs, "gradient") < 1e-5


def test_one_process_goes_on_from_their_checkpoint(runs, still, base, examples, tmp_path):
    curve = train_contrastive(still[0], base, examples, tmp_path / "model", seed=SEED, steps=2, resume=runs / "two" / "step-00000001")
    assert curve[-1]["loss"] == pytest.approx(read(runs, "alone")["contrastive"][-1]["loss"], rel=1e-5)
    assert apart(runs / "one" / "model", tmp_path / "model", base) < TOLERANCE


@given(st.lists(st.integers(1, 40), min_size=8, max_size=60), st.builds(Budget, st.integers(1, 100), st.integers(0, 50)), st.integers(1, 8))
def test_all_workers_make_as_many_chunks(lengths, budget, world):
    """What makes up the rest is not read back."""
    known = np.asarray(lengths)
    most = most_chunks(known, world, budget)
    for rank in range(world):
        mine = share(known, rank, world)
        planned = plan_chunks(known[mine], budget)
        chunks = make_chunks([np.full(lengths[place], place) for place in mine], planned, most)
        assert len(chunks.chunks) == most and chunks.real == known[mine].sum()
        laid = [chunks.vocabulary[row[0]].item() for chunk in chunks.chunks for row in chunk.tokens]
        assert [laid[place] for place in chunks.order] == mine.tolist()
        assert all(torch.equal(chunk.places, chunk.mask.flatten().nonzero()[:, 0]) for chunk in chunks.chunks)
