"""Two processes under DeepSpeed ZeRO 0, 1 and 2 give the run of one process with plain torch."""

import json
from pathlib import Path

import pytest
import torch
from processes import run_both
from variants import SEED, VARIANTS

from raysberta.models.load import load_encoder
from raysberta.training.contrastive import train_contrastive
from raysberta.training.mlm import train_mlm
from raysberta.training.settings import RetroMae

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def runs(contrastive, mlm, tiny, examples, tmp_path_factory):
    """The folder of all runs; dropout is off, since one process and two draw different masks."""
    folder = tmp_path_factory.mktemp("processes")
    still = contrastive.model_copy(update={"dropout": 0.0})
    reconstructing = mlm.model_copy(update={"dropout": 0.0, "retromae": RetroMae()})
    curve = train_contrastive(still, tiny, examples, folder / "one" / "model", seed=SEED, steps=4, checkpoints=folder / "one")
    (folder / "one.json").write_text(json.dumps(curve))
    curve = train_mlm(reconstructing, tiny, examples.tokens, folder / "one-retromae", seed=SEED, steps=4)
    (folder / "one-retromae.json").write_text(json.dumps(curve))
    (folder / "contrastive.json").write_text(still.model_dump_json())
    (folder / "mlm.json").write_text(reconstructing.model_dump_json())
    examples.save(f"{folder}/data")
    run_both(SCRIPT, folder, tiny)
    return folder


def curves(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def same_weights(left: Path, right: Path) -> bool:
    one, other = load_encoder(left).state_dict(), load_encoder(right).state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stage", ["0", "1", "2", "elastic", "offloaded"])
def test_two_processes_are_one(runs, stage):
    """Losses, gradient norms and weights: the reduction is the mean over workers, each with half of the device batches."""
    alone, together = curves(runs, "one"), curves(runs, "rank0")[stage]
    assert len(together) == len(alone) == 4
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
    expected = load_encoder(runs / "one" / "model").state_dict()
    folder = {"elastic": "elastic", "offloaded": "offloaded/model"}.get(stage, f"zero{stage}/model")
    found = load_encoder(runs / folder).state_dict()
    for name, weight in expected.items():
        # softmax does not notice a key's bias: its gradient is 0 but for rounding, and AdamW makes steps of that, up to the learning rate
        idle = name.endswith("key.bias")
        assert torch.allclose(found[name], weight, atol=4 * 5e-4 if idle else 2e-5), name


@pytest.mark.parametrize("way", ["ddp", "zero0", "zero1", "zero2"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_of_two_processes_is_that_of_one(runs, variant, way):
    """In float64, each process with half of the texts of both device batches, whatever is minimised and whoever reduces."""
    assert json.loads((runs / "gradients.json").read_text())[way][variant] < 1e-9


def test_two_processes_reconstruct_as_one(runs):
    """RetroMAE: which tokens are masked, and what the decoder sees of each text, is the same for any number of workers."""
    alone, together = curves(runs, "one-retromae"), curves(runs, "rank0")["retromae"]
    assert [point["loss"] for point in together] == pytest.approx([point["loss"] for point in alone], rel=1e-5)
    assert [point["gradient_norm"] for point in together] == pytest.approx([point["gradient_norm"] for point in alone], rel=1e-4)
    found = load_encoder(runs / "retromae").state_dict()
    for name, weight in load_encoder(runs / "one-retromae").state_dict().items():
        assert torch.allclose(found[name], weight, atol=2e-5), name
    assert json.loads((runs / "gradients.json").read_text())["ddp"]["retromae"] < 1e-9


def test_both_processes_see_the_same_numbers(runs):
    left, right = curves(runs, "rank0"), curves(runs, "rank1")
    for name in left:
        assert [point["loss"] for point in left[name]] == [point["loss"] for point in right[name]]


def test_two_processes_resume_bit_for_bit(runs):
    found = curves(runs, "rank0")
    assert [point["loss"] for point in found["1 resumed"]] == [point["loss"] for point in found["1"]]
    assert same_weights(runs / "resumed", runs / "zero1" / "model")
