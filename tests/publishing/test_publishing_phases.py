"""What a node did, in one line: every setting that changes what happened changes what is said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_run import RECIPE, Run, facts, merge, training

from raysberta.errors import InputError
from raysberta.publishing import lineage, phases
from raysberta.publishing.gather import Told
from raysberta.training.facts import TrainingFacts
from raysberta.work import Facts


def said(folder: Path, name: str, given: Facts | None = None, part: str = "phases", **settings: Any) -> str:
    """The line of a node with other settings, or other facts."""
    recipe = {**RECIPE, part: {**RECIPE[part], name: {**RECIPE[part][name], **settings}}}
    run = Run(recipe, folder).fill({**facts(), **({name: given} if given else {})})
    found = lineage.read(run.manifests)
    node = found.get(name)
    assert node is not None
    return phases.line(found, node)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"margin": 0.1}, "margin 0.1"),
        ({"same_tower": True}, "negatives within each side too"),
        ({"cross_device_negatives": True}, "negatives of all devices"),
        ({"guide": True}, "negatives masked by the mining encoder"),
        ({"dimensions": [256, 64]}, "Matryoshka dimensions 256, 64"),
        ({"lora": {"rank": 4}}, "LoRA of rank 4"),
        ({"objectives": {"dictionary/term_definition": "cosent"}}, "30 steps of info_nce, cosent at temperature 0.01"),
        ({"batch_size": 32, "device_batches": 8}, "256 queries a step"),
        ({"negatives": 3}, "up to 3 hard negatives a query"),
        ({"learning_rate": 2e-6}, "peak rate 2e-06"),
        ({"examples": ["weak", "unused"]}, "on `weak`, `unused`"),
        ({"from": "trimmed"}, "from `trimmed`"),
    ],
)
def test_a_contrastive_phase_tells_what_was_different(tmp_path: Path, settings: Mapping[str, Any], expected: str) -> None:
    plain, changed = said(tmp_path / "plain", "general"), said(tmp_path / "changed", "general", **settings)
    assert expected in changed and expected not in plain


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"whole_words": True}, "of tokens (whole words)"),
        ({"mask_probability": 0.3}, "30 % of tokens"),
        ({"batch_size": 64}, "64 texts a step"),
        ({"retromae": None}, "masked language modelling, 15 %"),
    ],
)
def test_masked_language_modelling_tells_what_was_different(tmp_path: Path, settings: Mapping[str, Any], expected: str) -> None:
    plain, changed = said(tmp_path / "plain", "adapted"), said(tmp_path / "changed", "adapted", **settings)
    assert expected in changed and expected not in plain


def test_what_a_search_found_is_said_instead_of_what_the_recipe_says(tmp_path: Path) -> None:
    line = said(tmp_path / "mlm", "adapted", training(24, {"texts": 1}, chosen={"learning_rate": 7e-5, "mask_probability": 0.2}))
    assert "20 % of tokens" in line and "peak rate 7e-05" in line
    assert line.endswith("; found by search: learning_rate 7e-05, mask_probability 0.2")
    assert "peak rate 3e-05" not in line


def test_steps_are_those_that_were_made(tmp_path: Path) -> None:
    """A phase by epochs knows its steps only afterwards."""
    line = said(tmp_path, "general", training(1234, {"a/b": 9}), steps=None, epochs=2.0)
    assert "1,234 steps" in line


def test_a_merge_tells_each_models_share(tmp_path: Path) -> None:
    three = said(
        tmp_path / "three",
        "merged",
        merge([0.5, 0.25, 0.25]),
        of=["adapted", "tuned", "general"],
        weight=None,
        weights=[2.0, 1.0, 1.0],
        method="linear",
        search=None,
    )
    assert three == "linear of all tensors, 0.5 of `adapted`, 0.25 of `tuned`, 0.25 of `general`"
    layers = said(tmp_path / "layers", "merged", merge([0.3, 0.7]), scope="encoder_layers", search=None)
    assert layers == "slerp of encoder layers alone, 0.3 of `adapted`, 0.7 of `tuned`"


def test_a_merge_tells_how_its_weights_were_chosen(tmp_path: Path) -> None:
    settings = {"weight": None, "search": None, "start": "trimmed"}
    soup = merge([0.5, 0.5], **{"weights.0": 1.0, "weights.1": 1.0})
    greedy = said(tmp_path / "greedy", "merged", soup, choose={"kind": "greedy"}, **{**settings, "start": None})
    assert greedy == "slerp of all tensors, 0.5 of `adapted`, 0.5 of `tuned`; weights chosen greedily by dev scores"
    positioned = merge([0.3, 0.7], **{"weights.0": 0.3, "weights.1": 0.7, "norm": 0.9})
    learned = said(tmp_path / "learned", "merged", positioned, choose={"kind": "learned", "examples": "mined"}, **settings)
    assert learned.startswith("slerp of all tensors, 0.9 times the difference from `trimmed`, 0.3 of `adapted`, 0.7 of `tuned`; ")
    assert learned.endswith("; weights learned in 30 steps on 512 examples of `mined`")


def test_a_vocabulary_tells_only_what_was_done(tmp_path: Path) -> None:
    trimmed = said(tmp_path / "trimmed", "trimmed", learn=0)
    assert trimmed == "from `e5`, 225,008 unused pieces trimmed; 250,037 pieces became 26,529"
    sized = said(tmp_path / "sized", "trimmed", learn=0, size=26529)
    assert sized == "from `e5`, 225,008 least probable pieces trimmed; 250,037 pieces became 26,529"
    adopted = said(tmp_path / "adopted", "trimmed", trim=False, learn=0, extend_from="e5", initialisation="gaussian")
    assert adopted == "from `e5`, those of `e5` adopted; new rows by gaussian; 250,037 pieces became 26,529"
    alike = said(tmp_path / "alike", "trimmed", trim=False, initialisation="alike", alike_by="e5")
    assert "; new rows by what `e5` finds alike; " in alike
    both = said(tmp_path / "both", "trimmed", trim=False, initialisation="translated", alike_by="e5")
    assert "; new rows by translations and what `e5` finds alike; " in both
    assert "; new rows by translations; " in said(tmp_path / "translated", "trimmed", trim=False, initialisation="translated")


def test_examples_tell_where_their_negatives_are_from(tmp_path: Path) -> None:
    assert said(tmp_path / "drawn", "unused", part="examples") == "400 pairs of `natural`, up to 1 negatives, supplied or drawn"
    by_cross_encoder = said(tmp_path / "mined", "mined", part="examples", teacher=None)
    assert by_cross_encoder == "10,501 pairs of `natural`, `questions`, up to 2 negatives mined by `e5`, ranks 10 to 60"


def test_written_pairs_tell_of_their_filter_only_where_there_was_one(tmp_path: Path) -> None:
    assert said(tmp_path, "questions", part="written", kept_if_found_by=None) == "301 of 500 by `writer`, vllm 0.32.0"


def test_lines_are_of_what_shapes_a_model_and_no_others(told: Told) -> None:
    lines = phases.lines(told.lineage)
    silent = {"model", "corpus", "natural", "search", "tasks", "benchmark", "score"}
    nodes = [node for node in told.lineage if node.kind not in silent]
    assert [line.partition(":")[0] for line in lines] == [f"`{node.name}` ({node.kind})" for node in nodes]
    assert all(line.endswith(".") for line in lines)


def test_a_number_that_the_phase_does_not_have_is_an_error(tmp_path: Path) -> None:
    broken: TrainingFacts = training(24, {"texts": 1}, chosen={"temperatur": 0.1})
    with pytest.raises(InputError, match="temperatur: no such number"):
        said(tmp_path, "adapted", broken)
