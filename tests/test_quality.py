"""benchmarks/quality.py: its variants are recipes, share what they can, and its rows say what they should."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from raysberta.errors import InputError
from raysberta.evaluation.facts import TaskFacts
from raysberta.parsing import load
from raysberta.pipeline.plan import plan
from raysberta.storage.artifacts import Store
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from plain_run import Finished
from quality import SEEDS, VARIANTS, WHOLE, near, paired, recipes, row

RECIPE = ROOT / "recipes" / "laptop.yaml"


def test_variants_are_recipes_that_share_what_they_do_not_change(tmp_path: Path) -> None:
    wanted = {(variant, seed) for variant in (WHOLE, *VARIANTS) for seed in SEEDS}
    files = recipes(RECIPE, str(tmp_path / "store"), tmp_path / "recipes", wanted)
    assert list(files) == [(variant, seed) for variant in (WHOLE, *VARIANTS) for seed in SEEDS]
    made = {key: load(file) for key, file in files.items()}
    given = load(RECIPE)
    assert made[WHOLE, 42] == given.model_copy(update={"name": "laptop-0-42", "storage": str(tmp_path / "store")})
    ids = plan(list(made.values()), Store(str(tmp_path / "store"))).ids
    for name in ("corpus", "e5"):
        assert len({own[name] for own in ids.values()}) == 1
    assert len({own["natural"] for own in ids.values()}) == 2, "one variant gives pairs another task"
    assert len({ids[made[WHOLE, seed].name]["tuned"] for seed in SEEDS}) == len(SEEDS)
    releases = {own["release"] for own in ids.values()}
    assert len(releases) == len(files)  # each variant changes something


def a_run(values: Sequence[float]) -> Finished:
    """With the scores of a final model on one own and one general task, and how its draws lie around them."""
    told = {
        name: TaskFacts(type="Retrieval", source="s", pair="title_body", language="ru", general=name == "wide", halves={})
        for name in ("home", "wide")
    }
    known = {"last": dict(zip(told, values, strict=True))}
    around = np.random.default_rng(0).normal(0, 0.01, 1000)
    drawn = {"last": {task: value + (1 + value) * around for task, value in known["last"].items()}}
    return Finished("first", "last", {}, (), None, told, None, known, drawn, 1.0)  # type: ignore[arg-type]


def test_a_change_is_paired_and_a_small_one_is_told_over_more_seeds() -> None:
    whole, close, far = a_run([0.70, 0.60]), a_run([0.705, 0.65]), a_run([0.75, 0.65])
    assert near({WHOLE: whole, "close": close, "far": far, "same": whole}) == ["close", "same"]
    found = paired([close, close], [whole, whole], "own")
    low, high = found["interval"]
    assert low < 0.5 < high and high - low < 0.04, "of 1.7 points that either mean spreads, next to nothing is left"
    assert found["clear"] and paired([whole], [whole], "general") == {"interval": [0.0, 0.0], "clear": False}


def test_a_model_without_a_contrastive_phase_has_scores_and_no_pairs() -> None:
    """As the variants of surgery alone: only who asks for pairs is told."""
    run = a_run([0.7, 0.6])
    assert run.scores("last") == {"home": 0.7, "wide": 0.6}
    with pytest.raises(InputError, match="no contrastive phase before it"):
        _ = run.pairs


def test_a_row_is_the_mean_over_seeds_and_its_change() -> None:
    whole = row(WHOLE, [70.0, 71.0, 72.0], [])
    assert (whole["value"], whole["by_seed"], whole["met"]) == (71.0, [70.0, 71.0, 72.0], None)
    worse, better = row("without", [70.0, 70.0, 70.3], [70.0, 71.0, 72.0]), row("without", [72.0], [70.0, 72.0])
    assert (worse["change"], worse["met"]) == (-0.9, True) and (better["change"], better["met"]) == (1.0, False)
    assert row("general", [], []) == {"name": "general", "value": None, "goal": None, "met": None}
