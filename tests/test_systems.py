"""benchmarks/systems.py: its recipes share what they can, and its rows say what they should."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from raysberta.parsing import load
from raysberta.pipeline.plan import plan
from raysberta.storage.artifacts import Store
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from systems import PUBLISHED, RIVALS, STEPS, SYSTEMS, arms, gains, recipes


def test_arms_are_phases_of_recipes_that_share_what_they_do_not_change(tmp_path: Path) -> None:
    files = recipes(list(SYSTEMS), str(tmp_path / "store"), tmp_path / "recipes")
    assert list(files) == [(system, seed) for system, seeds in SYSTEMS.items() for seed in seeds]
    made = {key: load(file) for key, file in files.items()}
    ids = plan(list(made.values()), Store(str(tmp_path / "store"))).ids
    for system, seeds in SYSTEMS.items():
        first, *others = (ids[made[system, seed].name] for seed in seeds)
        assert all(first[name] == other[name] for other in others for name in ("corpus", "natural", "tasks", "llm"))
        assert all(first["release"] != other["release"] for other in others)
    scored = {system: set(made[system, 42].score or ()) for system in SYSTEMS}
    assert {*PUBLISHED, *RIVALS, "encoder_alone"} <= scored["lusifer"]
    assert {name for step in STEPS.values() for name in step} <= scored["llm2vec"]
    assert {"single", "single_averaged", "single_ended", "blended"} <= scored["nv_embed"]
    assert {"unified", "embedding_alone"} <= scored["gritlm"]


def a_run(scores: dict[str, dict[str, float]], folder: Path) -> SimpleNamespace:
    told = {"A": SimpleNamespace(type="Retrieval", general=True), "B": SimpleNamespace(type="Classification", general=False)}
    models = {name: SimpleNamespace(manifest=SimpleNamespace(seconds=1.0)) for name in scores}
    return SimpleNamespace(known=scores, told=told, models=models, folder=lambda name: folder)


def test_rows_say_who_is_ahead_and_whether_every_seed_says_so(tiny_weights: Path) -> None:
    runs = [
        a_run({"x": {"A": 0.5, "B": 0.1}, "y": {"A": 0.6, "B": 0.0}}, tiny_weights),
        a_run({"x": {"A": 0.5, "B": 0.1}, "y": {"A": 0.7, "B": 0.3}}, tiny_weights),
    ]
    lost, won = arms("System", runs[0], "general", "Russian tasks", {"x": ("y",), "y": ("x",)}, {"y": 62.63})  # type: ignore[arg-type]
    assert (lost["value"], lost["goal"], lost["met"], "published" in lost) == (50.0, "> y", False, False)
    assert (won["value"], won["goal"], won["met"], won["published"]) == (60.0, "> x", True, 62.63)
    retrieval = gains("step", runs, "x", "y", "Retrieval", 0.0)  # type: ignore[arg-type]
    assert (retrieval["value"], retrieval["by_seed"], retrieval["met"]) == (15.0, [10.0, 20.0], True)
    classes = gains("step", runs, "x", "y", "Classification", 0.0)  # type: ignore[arg-type]
    assert (classes["value"], classes["by_seed"], classes["met"]) == (5.0, [-10.0, 20.0], False)
    assert gains("step", runs, "x", "y", "all", None)["met"] is None  # type: ignore[arg-type]


@pytest.fixture
def tiny_weights(tmp_path: Path) -> Path:
    """A folder with a model's weights, of which rows give the number."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4)).save_pretrained(
        tmp_path
    )
    return tmp_path
