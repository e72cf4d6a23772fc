"""Merges of differences from a common start: against vectors written out in float64, and what a start must be."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from raysberta.errors import InputError
from raysberta.merging.differences import PIECE, add_products, coefficients
from raysberta.merging.merge import Start, merge
from raysberta.merging.settings import Merge
from raysberta.models.load import load_encoder, load_tokenizer, save
from small_models import described

WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def family(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A start and three models that moved away from it."""
    home = tmp_path_factory.mktemp("family")
    save(load_encoder(small_folder), load_tokenizer(small_folder), home / "model0")
    found = [described(home / "model0")]
    for seed in range(1, 4):
        folder = shutil.copytree(found[0], home / f"model{seed}")
        draw = torch.Generator().manual_seed(seed)
        tensors = load_file(folder / "model.safetensors")
        moved = {key: each + 0.05 * seed * torch.randn(each.shape, generator=draw) for key, each in tensors.items()}
        save_file(moved, folder / "model.safetensors", {"format": "pt"})
        found.append(folder)
    return found


def arcs(weights: Sequence[float], vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Self Positioning's iteration, vector by vector."""
    found = vectors[0]
    for place in range(1, len(vectors)):
        mean = sum(weights[:place]) / place
        if mean + weights[place] == 0:
            continue
        share = weights[place] / (mean + weights[place])
        cosine = found @ vectors[place] / (np.linalg.norm(found) * np.linalg.norm(vectors[place]))
        angle = np.arccos(cosine)
        found = (np.sin((1 - share) * angle) * found + np.sin(share * angle) * vectors[place]) / np.sin(angle)
    return found


def flat(folder: Path, names: Sequence[str]) -> np.ndarray:
    tensors = load_file(folder / "model.safetensors")
    return np.concatenate([tensors[name].double().flatten().numpy() for name in names])


@pytest.mark.parametrize("weights", [[0.2, 0.5, 0.3, 0.1], [0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 1.0]])
def test_coefficients_are_the_iteration_written_out(weights: list[float]) -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=50) + 0.5 for _ in weights]
    products = torch.zeros(4, 4, dtype=torch.float64)
    add_products(products, [torch.from_numpy(each) for each in vectors])
    for ratio in (1.0, 7.0):
        found = coefficients(ratio * torch.tensor(weights, dtype=torch.float64), products, "slerp")
        assert np.allclose(sum(float(c) * v for c, v in zip(found, vectors, strict=True)), arcs(weights, vectors), atol=1e-12)
    assert coefficients(torch.tensor(weights, dtype=torch.float64), products, "linear").tolist() == pytest.approx(
        [weight / sum(weights) for weight in weights]
    )


def test_gradients_of_coefficients_are_right_in_float64() -> None:
    draw = torch.Generator().manual_seed(3)
    vectors = torch.randn(4, 30, generator=draw, dtype=torch.float64)
    weights = torch.tensor([0.3, 0.1, 0.4, 0.2], dtype=torch.float64, requires_grad=True)
    for method in ("slerp", "linear"):
        assert torch.autograd.gradcheck(lambda given, how=method: coefficients(given, vectors @ vectors.T, how), weights)


def test_products_are_summed_over_pieces() -> None:
    draw = torch.Generator().manual_seed(1)
    tensors = [torch.randn(PIECE + 5, generator=draw) for _ in range(2)]
    products = torch.zeros(2, 2, dtype=torch.float64)
    add_products(products, tensors)
    wide = torch.stack(tensors).double()
    assert torch.allclose(products, wide @ wide.T, rtol=1e-12)


@pytest.mark.parametrize("scope", ["all", "encoder_layers"])
def test_the_merge_is_the_start_and_the_arc_of_the_differences(family: list[Path], tmp_path: Path, scope: Any) -> None:
    weights, norm = [0.2, 0.5, 0.3], 1.3
    done = merge(family[1:], tmp_path / "merged", weights, "slerp", scope, Start(family[0], norm))
    tensors = load_file(family[0] / "model.safetensors")
    names = [name for name in tensors if scope == "all" or ".layer." in name]
    start, *models = (flat(folder, names) for folder in family)
    expected = start + norm * arcs(weights, [model - start for model in models])
    assert np.allclose(flat(tmp_path / "merged", names), expected, atol=2e-6)
    assert done.merged == len(names) and len(done.factors) == 3 and 0 < abs(done.least_cosine) < 0.5
    if scope == "encoder_layers":
        assert torch.equal(load_file(tmp_path / "merged" / "model.safetensors")[WORDS], load_file(family[1] / "model.safetensors")[WORDS])


@pytest.mark.parametrize("method", ["slerp", "linear"])
@pytest.mark.parametrize("one", [0, 1, 2])
def test_one_weight_alone_and_norm_1_give_the_model_back(family: list[Path], tmp_path: Path, one: int, method: Any) -> None:
    merge(family[1:], tmp_path / "merged", [float(place == one) for place in range(3)], method, "all", Start(family[0]))
    expected = load_file(family[1 + one] / "model.safetensors")
    for name, tensor in load_file(tmp_path / "merged" / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


def test_norm_0_gives_the_start_back(family: list[Path], tmp_path: Path) -> None:
    merge(family[1:], tmp_path / "merged", [0.2, 0.3, 0.5], "slerp", "all", Start(family[0], 0.0))
    assert torch.equal(load_file(tmp_path / "merged" / "model.safetensors")[WORDS], load_file(family[0] / "model.safetensors")[WORDS])


def test_a_model_that_is_the_start_is_refused(family: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(family[0], tmp_path / "copy")
    with pytest.raises(InputError, match="copy is the start, it differs by nothing"):
        merge([family[1], copy], tmp_path / "merged", [0.5, 0.5], "slerp", "all", Start(family[0]))


def test_a_uniform_merge_without_a_start_is_what_it_was(family: list[Path], tmp_path: Path) -> None:
    """Bit for bit the sum in the order of the models."""
    merge(family[1:], tmp_path / "merged", [1 / 3] * 3, "linear")
    models = [load_file(folder / "model.safetensors") for folder in family[1:]]
    for name, tensor in load_file(tmp_path / "merged" / "model.safetensors").items():
        expected = models[0][name] * (1 / 3)
        for other in models[1:]:
            expected.add_(other[name], alpha=1 / 3)
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"norm": 0.5}, "norm: is of differences from a start"),
        ({"choose": {"kind": "learned", "examples": "mined"}}, "choose: learned moves away from a start"),
        ({"start": "b"}, "of.1: is the start"),
        ({"choose": {"kind": "greedy"}, "weights": [1.0, 1.0]}, "choose and weights"),
        ({"choose": {"kind": "greedy"}, "weight": 0.5}, "choose and weight"),
        ({"choose": {"kind": "greedy"}, "search": {"over": {"norm": [1.0]}}}, "choose and search"),
        ({"choose": {"kind": "greedily"}}, "kind"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Merge.model_validate({"kind": "merge", "of": ["a", "b"], **given})
