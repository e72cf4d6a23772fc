"""Weights learned by gradient: slopes against differences in float64, a planted optimum, and real models of which one is blind."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from searches import commit_folder
from torch import nn

from raysberta.errors import InputError
from raysberta.merging.merge import Start, merge
from raysberta.merging.settings import Learned, Merge
from raysberta.models.describe import describe, write_description
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.models.model import load_model
from raysberta.storage.artifacts import Artifact, Store
from raysberta.training.contrastive import ContrastiveModel, make_batch, plan_of
from raysberta.training.encode import ChunkedEncoder
from raysberta.tuning.learned import Positions, _contrastive, learn, learn_weights, probe
from small_models import described

HOW: dict[str, Any] = {"kind": "learned", "examples": "mined", "probe": 40, "batch_size": 20, "negatives": 1, "max_tokens": 24}


def noisy(source: Path, folder: Path, seed: int, noise: float) -> Path:
    model, draw = load_encoder(source), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=draw))
    save(model, load_tokenizer(source), folder)
    write_description(folder, describe(source))
    return folder


@pytest.fixture(scope="module")
def family(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model and three that moved away from it."""
    home = tmp_path_factory.mktemp("family")
    save(load_encoder(small_folder), load_tokenizer(small_folder), home / "base")
    described(home / "base")
    return {
        "base": home / "base",
        **{name: noisy(home / "base", home / name, seed, 0.05) for seed, name in enumerate(("one", "two", "three"))},
    }


@pytest.fixture
def given(family: dict[str, Path], store: Store, examples: pa.Table) -> dict[str, Artifact]:
    draft = store.draft("mined", "f")
    draft.write_table("examples", examples)
    mined = store.commit(draft, "mined", "f", {}, {}, 1, 0.0)
    return {"mined": mined, **{name: commit_folder(store, name, folder) for name, folder in family.items()}}


def a_merge(of: list[str], start: str, method: str = "slerp") -> Merge:
    return Merge.model_validate({"kind": "merge", "of": of, "start": start, "method": method})


def wide(folder: Path) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().double() for name, parameter in load_model(folder).named_parameters()}


@pytest.mark.parametrize("method", ["slerp", "linear"])
def test_slopes_are_those_of_the_loss_in_float64(given: dict[str, Artifact], method: str) -> None:
    settings = Learned.model_validate({**HOW, "probe": 8, "batch_size": 8, "temperature": 0.1})
    phase = a_merge(["one", "two", "three"], "base", method)
    folder = given["one"].folder("model")
    examples, how = probe(given["mined"], settings, folder), _contrastive(phase, settings)
    batch = make_batch(examples, plan_of(examples, how, 1).step(0), how, torch.device("cpu"))
    encoder = load_model(folder).double()
    loss = ContrastiveModel(ChunkedEncoder(encoder, "fp32", recompute=True), how)
    models = [wide(given[name].folder("model")) for name in phase.of]
    positions = Positions(loss, encoder, wide(given["base"].folder("model")), models, phase.method)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64, requires_grad=True)
    norm = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    slopes = torch.cat([slope.reshape(-1) for slope in torch.autograd.grad(positions.loss(weights, norm, batch), (weights, norm))])
    point, step = torch.cat([weights, norm[None]]).detach(), 1e-5
    for place in range(4):
        ends = []
        for sign in (1, -1):
            moved = point.clone()
            moved[place] += sign * step
            ends.append(float(positions.loss(moved[:3], moved[3], batch).detach()))
        measured = (ends[0] - ends[1]) / (2 * step)
        assert float(slopes[place]) == pytest.approx(measured, rel=1e-6, abs=1e-9), place
    assert float(slopes.abs().min()) > 1e-6, "every one of them has an effect"


class Bowl(nn.Module):
    """The squared distance to a target: what a probe that is best at known weights would say."""

    def __init__(self, target: torch.Tensor) -> None:
        super().__init__()
        self.place, self.target = nn.Parameter(torch.zeros_like(target)), target

    def forward(self, batch: object) -> torch.Tensor:
        return (self.place - self.target).square().sum()


def test_a_planted_optimum_is_found() -> None:
    """Of three differences the target is a known arc; a fourth points away."""
    draw = torch.Generator().manual_seed(5)
    start = torch.randn(40, generator=draw, dtype=torch.float64)
    vectors = torch.linalg.qr(torch.randn(40, 3, generator=draw, dtype=torch.float64))[0].T
    angle = 0.3 * math.pi / 2
    arc = math.cos(angle) * vectors[0] + math.sin(angle) * vectors[1]
    bowl = Bowl(start + 0.7 * arc)
    models = [{"place": start + vector} for vector in (vectors[0], vectors[1], -0.5 * arc + vectors[2])]
    positions = Positions(bowl, bowl, {"place": start}, models, "slerp")
    settings = Learned.model_validate({**HOW, "learning_rate": 0.05, "norm_penalty": 0.0})
    last = learn(positions, [None] * 800, settings, 1.0)[-1]
    assert last.loss is None and last.norm == pytest.approx(0.7, abs=0.01)
    assert last.weights[1] / (last.weights[0] + last.weights[1]) == pytest.approx(0.3, abs=0.01)
    assert last.weights[2] < 0.02


def test_a_penalty_shortens_the_norm() -> None:
    start = torch.zeros(4, dtype=torch.float64)
    target = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    found = []
    for penalty in (0.0, 0.5):
        bowl = Bowl(target)
        models = [{"place": target.clone()}, {"place": target.roll(1)}]
        settings = Learned.model_validate({**HOW, "norm_penalty": penalty})
        found.append(learn(Positions(bowl, bowl, {"place": start}, models, "slerp"), [None] * 600, settings, 0.5)[-1].norm)
    assert found == [pytest.approx(1.0, abs=0.01), pytest.approx(0.75, abs=0.01)], "of (norm - 1)^2 + norm / 2 the least is at 3/4"


def test_learning_repeats(given: dict[str, Artifact]) -> None:
    settings = Learned.model_validate({**HOW, "steps": 3})
    first, again = (learn_weights(a_merge(["one", "two"], "base"), settings, given, 1) for _ in range(2))
    assert first == again and len(first) == 4 and first[-1].loss is None


def test_what_is_learned_is_what_is_merged(given: dict[str, Artifact], tmp_path: Path) -> None:
    """The position that the loss was taken at is the merge that the stage then writes."""
    folders, start = [given[name].folder("model") for name in ("one", "two")], given["base"].folder("model")
    encoder = load_encoder(folders[0])
    states = [{name: each.detach().clone() for name, each in load_encoder(folder).named_parameters()} for folder in (start, *folders)]
    positions = Positions(encoder, encoder, states[0], states[1:], "slerp")
    done = merge(folders, tmp_path / "merged", [0.7, 0.3], "slerp", "all", Start(start, 0.9))
    positions.move(torch.tensor(done.factors, dtype=torch.float64))
    for name, tensor in load_encoder(tmp_path / "merged").named_parameters():
        assert torch.allclose(tensor, positions.parameters[name], atol=1e-5), name


def test_models_that_do_not_fit_are_refused(given: dict[str, Artifact], family: dict[str, Path], store: Store, tmp_path: Path) -> None:
    settings = Learned.model_validate(HOW)
    with pytest.raises(InputError, match="is the start, it differs by nothing"):
        learn_weights(a_merge(["one", "copy"], "base"), settings, {**given, "copy": given["base"]}, 1)
    short = tmp_path / "short"
    save(load_encoder(family["base"], layers=2), load_tokenizer(family["base"]), short)
    described(short)
    with pytest.raises(InputError, match=r"num_hidden_layers is 3 in .* and 2 in"):
        learn_weights(a_merge(["one", "short"], "base"), settings, {**given, "short": commit_folder(store, "short", short)}, 1)


def test_the_probe_is_chosen_by_id(given: dict[str, Artifact], family: dict[str, Path]) -> None:
    few, more = (probe(given["mined"], Learned.model_validate({**HOW, "probe": count}), family["base"]) for count in (5, 12))
    assert len(few) == 5 and len(more) == 12 and set(few.ids.tolist()) < set(more.ids.tolist())
