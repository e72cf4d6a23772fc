"""Where a submitted job keeps its results, what is checked before anything starts, and what a run that fails says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysberta.errors import InputError
from raysberta.parsing import load
from raysberta.pipeline.command import DEFAULT_RECIPE, check_inputs, with_data_root, with_lasting_storage

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"
SMALL = """
name: small
languages: [ru, en]
sources:
  interface: {{kind: jupyterlab_strings, language: ru, limit: 300}}
storage: {storage}
limits: {{min_free_gib: 0}}
"""


def test_the_default_recipe_lies_beside_the_code() -> None:
    assert ROOT / "recipes" / "laptop.yaml" == DEFAULT_RECIPE
    assert load(DEFAULT_RECIPE).name == "laptop"


@pytest.mark.usefixtures("ray_local")
def test_a_relative_storage_of_a_submitted_job_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "x"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = load(SMOKE)
    kept = with_lasting_storage(recipe)
    assert kept.storage == str(tmp_path / "home" / "raysberta" / recipe.storage)
    assert kept.storage in capsys.readouterr().out, "the user is told where"
    for lasting in (str(tmp_path / "runs"), "s3://bucket/run"):
        asked = recipe.model_copy(update={"storage": lasting})
        assert with_lasting_storage(asked) == asked
    monkeypatch.chdir(tmp_path)
    assert with_lasting_storage(recipe) == recipe, "elsewhere a relative folder is what it says"


def test_a_relative_data_root_of_a_submitted_job_is_refused_where_something_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "x"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    packaged = load(SMOKE)
    assert with_data_root(packaged) == packaged, "nothing of it lies there"
    for change in (
        "sources.own={kind: files, path: web}",
        "sources.own={kind: dataset, path: [/a.jsonl, b.jsonl], task: topic}",
        f"sources.own={{kind: dataset, hub: a/b, revision: {'c0ffee' + '0' * 34}, split: train, task: topic}}",
        "corpus.evaluation_sets=[texts.parquet]",
        "benchmarks.b={name: 'MTEB(rus, v1.1)', snapshot: rumteb}",
    ):
        with pytest.raises(
            InputError, match=r"^data data: is relative, and a submitted job runs in a temporary copy without it; right would be"
        ):
            with_data_root(load(SMOKE, [change]))
        for lasting in (str(tmp_path), "s3://bucket/data"):
            recipe = load(SMOKE, [change, f"data={lasting}"])
            assert with_data_root(recipe) == recipe
    absolute = load(SMOKE, ["sources.own={kind: dataset, path: /a.jsonl, task: topic}"])
    assert with_data_root(absolute) == absolute
    monkeypatch.chdir(tmp_path)
    assert with_data_root(load(SMOKE, ["sources.own={kind: files, path: web}"])).data == "data", (
        "elsewhere a relative folder is what it says"
    )


def test_inputs_are_checked_before_anything_starts(tmp_path: Path) -> None:
    good = load(SMOKE, [f"storage={tmp_path}/store"])
    assert check_inputs([good]).uri == f"{tmp_path}/store"
    for change, says in (
        ("sources.own={kind: files, path: /no/such/folder}", "sources.own.path"),
        ("models.e5.from=path:/no/model", "models.e5"),
        ("limits.min_free_gib=1000000", "GiB free"),
    ):
        with pytest.raises(InputError, match=says):
            check_inputs([load(SMOKE, [f"storage={tmp_path}/store", change])])


def test_a_recipe_without_models_makes_its_pairs_and_a_failure_is_one_line(tmp_path: Path) -> None:
    """In processes of their own, as a user runs them, each with a Ray of its own."""
    file = tmp_path / "small.yaml"
    file.write_text(SMALL.format(storage=tmp_path / "store"))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}

    def run(*more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "jobs/full_pipeline.py", "--recipe", str(file), *more]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)

    done = run()
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.strip().splitlines()[-1])
    assert last["reused"] == []
    assert {path.parts[-3] for path in (tmp_path / "store").glob("*/*/manifest.json")} == {"corpus", "natural"}
    assert "corpus: started" in done.stdout and "natural: done in" in done.stdout

    failed = run("--set", "pairs.limits={interface/translation: 0}")
    assert failed.returncode == 2
    errors = [line for line in failed.stderr.splitlines() if line.strip() and "(raylet)" not in line]
    assert len(errors) == 1 and errors[0].startswith("error: natural: sources: no training pair came out of")
