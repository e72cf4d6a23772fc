"""The searches through Ray Tune."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from raysberta.artifacts import Artifact, Store
from raysberta.encoder.load import load_encoder
from raysberta.errors import InputError
from raysberta.evaluation.score import dev_scores
from raysberta.recipe import Recipe
from raysberta.tuning import stage


def changed(recipe: Recipe, **search: object) -> Recipe:
    tuning = {**recipe.model_dump()["tuning"], **search}
    return Recipe.model_validate({**recipe.model_dump(), "tuning": tuning})


def test_merge_search_finds_the_good_model(
    ray_local: None, recipe: Recipe, inputs: Mapping[str, Artifact], store: Store, good: Path, held_out: Path
) -> None:
    draft = store.draft("merge", "m")
    stage.merge(recipe, inputs, draft)
    trials = draft.metrics["trials"]
    assert [trial["weight"] for trial in trials] == [0.0, 1.0] and trials[0]["score"] < trials[1]["score"]
    assert draft.metrics["best"] == 1.0
    assert all(trial["scores"].keys() == {"Home"} and trial["seconds"] > 0 for trial in trials)
    made = load_encoder(Path(draft.uri) / "model").state_dict()
    for name, tensor in load_encoder(good).state_dict().items():
        assert torch.allclose(made[name], tensor, atol=1e-6)
    assert dev_scores(recipe, Path(draft.uri) / "model", held_out)["Home"] == pytest.approx(trials[-1]["score"], abs=1e-4)
    assert not list(Path(tempfile.gettempdir()).glob("raysberta-tune-*"))


def test_merge_without_search_takes_the_default(recipe: Recipe, inputs: Mapping[str, Artifact], store: Store) -> None:
    settings = changed(recipe, merge={"default": 0.1, "include_embeddings": False})
    draft = store.draft("merge", "d")
    stage.merge(settings, inputs, draft)
    assert (draft.metrics["best"], draft.metrics["trials"], draft.metrics["scope"]) == (0.1, [], "encoder_layers")
    name = "embeddings.word_embeddings.weight"
    made, newer = (load_encoder(folder).state_dict()[name] for folder in (Path(draft.uri) / "model", inputs["contrastive"].folder("model")))
    assert torch.equal(made, newer)


def test_temperature_search_tells_every_trial(ray_local: None, recipe: Recipe, inputs: Mapping[str, Artifact], store: Store) -> None:
    draft = store.draft("temperature", "t")
    stage.temperature(recipe, inputs, draft)
    trials = draft.metrics["trials"]
    assert [trial["temperature"] for trial in trials] == [0.02, 0.05]
    assert draft.metrics["best"] == min(trials, key=lambda trial: (-trial["score"], trial["temperature"]))["temperature"]
    assert trials[0]["loss"] != trials[1]["loss"]
    assert draft.rows_in == 80


def test_temperature_without_search_is_the_recipes(recipe: Recipe, inputs: Mapping[str, Artifact], store: Store) -> None:
    draft = store.draft("temperature", "d")
    stage.temperature(changed(recipe, temperature={}), inputs, draft)
    assert draft.metrics == {"best": 0.02, "trials": []}


def test_a_broken_trial_fails_the_stage_by_name(ray_local: None, recipe: Recipe, inputs: Mapping[str, Artifact], store: Store) -> None:
    one = changed(recipe, merge={"values": [0.5]})
    index = inputs["benchmark"].folder("tasks") / "benchmark.json"
    index.rename(index.with_name("aside"))
    with pytest.raises(InputError, match=r"no benchmark\.json there"):
        stage.merge(one, inputs, store.draft("merge", "b"))
    weights = inputs["contrastive"].folder("model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match=r"trial weight=0\.5 failed: SafetensorError"):
        stage.merge(one, inputs, store.draft("merge", "b"))
