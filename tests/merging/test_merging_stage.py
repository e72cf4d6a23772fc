"""The stage: shares from the settings or from a search, facts, and errors that name the phase."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysberta.errors import InputError
from raysberta.merging.facts import MergeFacts
from raysberta.merging.settings import Merge, MergePhase
from raysberta.merging.slerp import slerp
from raysberta.merging.stage import run
from raysberta.models.fetch import fetch
from raysberta.models.settings import Model
from raysberta.storage.artifacts import Artifact, Store
from raysberta.tuning.facts import SearchFacts
from raysberta.work import Work
from small_models import described

QUERY = "encoder.layer.0.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def inputs(store: Store, small_folder: Path, tmp_path: Path) -> dict[str, Artifact]:
    """Three models that differ by noise."""
    found = {}
    for seed, name in enumerate(("a", "b", "c")):
        source = described(shutil.copytree(small_folder, tmp_path / name))
        draft = store.draft("model", name)
        with draft.folder("model") as folder:
            fetch(Model.model_validate({"from": f"path:{source}"}), folder)
            draw = torch.Generator().manual_seed(seed)
            tensors = load_file(folder / "model.safetensors")
            noisy = {key: tensor + 0.1 * torch.randn(tensor.shape, generator=draw) for key, tensor in tensors.items()}
            save_file(noisy, folder / "model.safetensors", {"format": "pt"})
        found[name] = store.commit(draft, "model", name, {}, {}, 1, 0.0)
    return found


def a_search(store: Store, best: dict[str, float]) -> Artifact:
    return store.commit(store.draft("search", "s"), "search", "s", {}, {}, 1, 0.0, SearchFacts(best=best, trials=[]))


def made(store: Store, inputs: dict[str, Artifact], choice: str | None = None, **settings: object) -> tuple[Artifact, MergeFacts]:
    phase = Merge.model_validate({"kind": "merge", **settings})
    draft = store.draft("merge", "m")
    facts = run(Work(MergePhase(phase=phase, choice=choice), inputs, draft, node="merged"))  # type: ignore[arg-type]
    return store.commit(draft, "merge", "m", {}, {}, 1, 0.0, facts), facts


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    return load_file(artifact.folder("model") / "model.safetensors")


def test_two_models_by_the_weight_of_the_second(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact, facts = made(store, inputs, of=["a", "b"], weight=0.25, scope="encoder_layers")
    ours, theirs, mixed = weights(inputs["a"]), weights(inputs["b"]), weights(artifact)
    assert torch.equal(mixed[QUERY], slerp(ours[QUERY], theirs[QUERY], 0.25)[0])
    assert torch.equal(mixed[WORDS], ours[WORDS])
    assert artifact.told(MergeFacts) == facts and facts.shares == [0.75, 0.25] and facts.chosen == {}
    assert facts.merged + facts.copied == facts.tensors == artifact.manifest.rows_in == artifact.manifest.rows_out
    assert facts.copied == sum(name.startswith("embeddings.") for name in ours)


def test_a_search_says_the_weight(store: Store, inputs: dict[str, Artifact]) -> None:
    given = {**inputs, "search_merged": a_search(store, {"weight": 0.1})}
    artifact, facts = made(store, given, "search_merged", of=["a", "b"])
    assert facts.chosen == {"weight": 0.1} and facts.shares == [0.9, 0.1]
    assert torch.equal(weights(artifact)[QUERY], slerp(weights(inputs["a"])[QUERY], weights(inputs["b"])[QUERY], 0.1)[0])


def test_a_search_says_single_weights_of_a_soup(store: Store, inputs: dict[str, Artifact]) -> None:
    given = {**inputs, "search_merged": a_search(store, {"weights.1": 2.0, "weights.2": 1.0})}
    artifact, facts = made(store, given, "search_merged", of=["a", "b", "c"], weights=[1.0, 9.0, 9.0], method="linear")
    assert facts.shares == [0.25, 0.5, 0.25] and facts.linear == 0
    expected = sum(share * weights(inputs[name])[WORDS] for share, name in zip(facts.shares, "abc", strict=True))
    assert torch.allclose(weights(artifact)[WORDS], expected, atol=1e-6)


def test_errors_name_the_phase(store: Store, inputs: dict[str, Artifact]) -> None:
    with pytest.raises(InputError, match=r"^phases\.merged: weight: is for two models"):
        made(store, {**inputs, "found": a_search(store, {"weight": 0.1})}, "found", of=["a", "b", "c"])
    (inputs["b"].folder("model") / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"^phases\.merged: merge: .* have different vocabularies"):
        made(store, inputs, of=["a", "b"])
