"""Compiled layers train as others do, and are themselves again when training is over.

Their graphs are captured and differentiated as for a GPU; what is left out is the generated code, which would take longer than all other
tests of this room.
"""

from functools import partial

import pytest
import torch
from variants import SEED

from raysberta.models.load import load_encoder
from raysberta.training.contrastive import train_contrastive


def test_compiled_layers_give_the_same_run(contrastive, tiny, examples, tmp_path, monkeypatch):
    captured = []
    by_hand = torch.compile

    def backend(graph, inputs):
        captured.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(by_hand, backend=backend))
    changes = {"dropout": 0.0, "recompute": True, "device_batches": 1}
    curves = []
    for compiled in (False, True):
        changed = contrastive.model_copy(update={**changes, "compile": compiled})
        curves.append(train_contrastive(changed, tiny, examples, tmp_path / str(compiled), seed=SEED, steps=2))
    assert captured, "nothing was compiled"
    plain, found = curves
    assert [point["loss"] for point in found] == pytest.approx([point["loss"] for point in plain], rel=1e-6)
    expected = load_encoder(tmp_path / "False").state_dict()
    for name, weight in load_encoder(tmp_path / "True").state_dict().items():
        assert torch.allclose(weight, expected[name], atol=1e-6), name
