"""Manifests as typed nodes: whatever does not fit is an error that says where, and nothing is left out in silence."""

from pathlib import Path

import pytest
from small_run import Run

from raysberta.errors import InputError
from raysberta.nodes import KINDS
from raysberta.publishing import lineage
from raysberta.publishing.gather import Told
from raysberta.training.facts import TrainingFacts
from raysberta.training.settings import ContrastivePhase, MlmPhase


def test_every_kind_that_a_recipe_makes_is_read(small_run: Run, told: Told) -> None:
    assert [node.name for node in told.lineage] == list(small_run.manifests)
    elsewhere = {"align", "centre", "compose", "distil", "prune"}  # kinds that the tests of their own sections make
    assert {node.kind for node in told.lineage} == set(KINDS) - {"release"} - elsewhere


def test_a_renamed_key_of_any_node_is_an_error(small_run: Run) -> None:
    for name, manifest in small_run.manifests.items():
        for key in manifest.facts:
            facts = {f"{each}_old" if each == key else each: value for each, value in manifest.facts.items()}
            changed = manifest.model_copy(update={"facts": facts})
            with pytest.raises(InputError, match=f"{manifest.id}: its manifest was written by another version"):
                lineage.read({name: changed})


def test_settings_of_another_version_are_an_error(small_run: Run) -> None:
    manifest = small_run.manifests["general"]
    phase = {**manifest.settings["phase"], "learning_rat": 1.0}
    changed = manifest.model_copy(update={"identity": {**manifest.identity, "settings": {**manifest.settings, "phase": phase}}})
    with pytest.raises(InputError, match=r"its settings were written by another version: phase\.learning_rat: Extra inputs"):
        lineage.read({"general": changed})
    with pytest.raises(InputError, match=r"its settings were written by another version: sources: Field required"):
        lineage.read({"corpus": small_run.manifests["corpus"].model_copy(update={"identity": {}})})


def test_a_kind_without_a_part_is_an_error(small_run: Run) -> None:
    changed = small_run.manifests["general"].model_copy(update={"kind": "dreamt"})
    with pytest.raises(InputError, match="a report has no part for nodes of kind 'dreamt'"):
        lineage.read({"general": changed})


def test_origins_are_all_that_a_node_was_made_from(told: Told) -> None:
    found = [node.name for node in told.lineage.origins("adapted")]
    assert found == ["e5", "corpus", "natural", "trimmed", "adapted"]
    assert "aside" not in {node.name for node in told.lineage.origins("merged")}
    assert "search_tuned" in {node.name for node in told.lineage.origins("merged")}


def test_each_tells_phases_of_one_kind_apart(told: Told) -> None:
    assert [name for name, _, _ in told.lineage.each(ContrastivePhase, TrainingFacts)] == ["general", "aside", "tuned"]
    assert [name for name, _, _ in told.lineage.each(MlmPhase, TrainingFacts)] == ["adapted"]


def test_an_artifact_that_is_not_told_of_goes_by_its_id(told: Told, tmp_path: Path) -> None:
    assert told.lineage.name_of("model/0000000000000000") == "model/0000000000000000"
    assert told.lineage.names_of("model/0000000000000000") == []
