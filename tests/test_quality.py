"""benchmarks/quality.py: its variants are recipes, share what they can, and its rows say what they should."""

import sys
from pathlib import Path

from raysberta.parsing import load
from raysberta.pipeline.plan import plan
from raysberta.storage.artifacts import Store
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from quality import SEEDS, VARIANTS, WHOLE, recipes, row

RECIPE = ROOT / "recipes" / "laptop.yaml"


def test_variants_are_recipes_that_share_what_they_do_not_change(tmp_path: Path) -> None:
    wanted = {(variant, seed) for variant in (WHOLE, *VARIANTS) for seed in SEEDS}
    files = recipes(RECIPE, str(tmp_path / "store"), tmp_path / "recipes", wanted)
    assert list(files) == [(variant, seed) for variant in (WHOLE, *VARIANTS) for seed in SEEDS]
    made = {key: load(file) for key, file in files.items()}
    given = load(RECIPE)
    assert made[WHOLE, 42] == given.model_copy(update={"name": "laptop-0-42", "storage": str(tmp_path / "store")})
    ids = plan(list(made.values()), Store(str(tmp_path / "store"))).ids
    for name in ("corpus", "natural", "tasks", "e5"):
        assert len({own[name] for own in ids.values()}) == 1
    assert len({ids[made[WHOLE, seed].name]["tuned"] for seed in SEEDS}) == len(SEEDS)
    releases = {own["release"] for own in ids.values()}
    assert len(releases) == len(files)  # each variant changes something


def test_a_row_is_the_mean_over_seeds_and_its_change() -> None:
    whole = row(WHOLE, [70.0, 71.0, 72.0], [])
    assert (whole["value"], whole["by_seed"], whole["met"]) == (71.0, [70.0, 71.0, 72.0], None)
    worse, better = row("without", [70.0, 70.0, 70.3], [70.0, 71.0, 72.0]), row("without", [72.0], [70.0, 72.0])
    assert (worse["change"], worse["met"]) == (-0.9, True) and (better["change"], better["met"]) == (1.0, False)
    assert row("general", [], []) == {"name": "general", "value": None, "goal": None, "met": None}
