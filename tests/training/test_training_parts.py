"""LoRA: only the adapters move, a killed run goes on bit for bit, and what is saved is a plain encoder."""

import pytest
import torch
from safetensors.torch import load_file
from variants import SEED

from raysberta.errors import InputError
from raysberta.training.contrastive import train_contrastive
from raysberta.training.settings import Lora


def with_lora(settings, **changes):
    return settings.model_copy(update={"lora": Lora(rank=2, **changes)})


def test_adapters_learn_and_are_merged_into_a_plain_encoder(contrastive, tiny, examples, tmp_path):
    adapted = with_lora(contrastive)
    whole = train_contrastive(adapted, tiny, examples, tmp_path / "whole", seed=SEED, steps=12, checkpoints=tmp_path)
    assert sum(point["loss"] for point in whole[-4:]) < sum(point["loss"] for point in whole[:4]) - 0.1
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors")
    assert before.keys() == after.keys(), "no trace of adapters"
    for name, weight in after.items():
        change = (weight - before[name]).double()
        if ("attention" in name or "dense" in name) and weight.ndim == 2:
            values = torch.linalg.svdvals(change)
            assert values[0] > 0 and values[2] < 1e-3 * values[0], f"{name}: a change of rank 2"
            continue
        assert change.abs().max() == 0, f"{name} stays"
    midway = load_file(tmp_path / "step-00000006" / "model" / "model.safetensors")
    assert midway.keys() == before.keys() and any(not torch.equal(midway[name], before[name]) for name in before)
    train_contrastive(adapted, tiny, examples, tmp_path / "resumed", seed=SEED, steps=12, resume=tmp_path / "step-00000006")
    resumed = load_file(tmp_path / "resumed" / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in after.items())


def test_named_layers_alone_get_adapters(contrastive, tiny, examples, tmp_path):
    train_contrastive(with_lora(contrastive, targets=("query",)), tiny, examples, tmp_path / "model", seed=SEED, steps=2)
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved == {name for name in after if name.endswith("query.weight")}
    with pytest.raises(InputError, match=r"lora\.targets: no layer .* there are dense, key, query, value"):
        train_contrastive(with_lora(contrastive, targets=("q_proj",)), tiny, examples, None, seed=SEED, steps=2)
