"""Every job: short, with help, and a plan that needs no data."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
PLANNED = [name for name in JOBS if name not in ("local", "fetch_benchmark")]


def job(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, f"jobs/{name}.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", JOBS)
def test_jobs_are_thin(name: str) -> None:
    assert len((ROOT / "jobs" / f"{name}.py").read_text().splitlines()) < 100


def test_every_stage_has_a_job() -> None:
    from raysberta.artifacts import Store
    from raysberta.pipeline import STAGES, plan
    from raysberta.recipe import load

    reached = {item.stage.name for item in plan(load(ROOT / "recipes" / "laptop.yaml"), Store("unused"))}
    assert reached == {stage.name for stage in STAGES}, "the full pipeline runs every stage"


@pytest.mark.parametrize("recipe", ["laptop", "smoke", "ru_en_rosberta"])
def test_each_recipe_plans_whole(recipe: str, tmp_path: Path) -> None:
    done = job("full_pipeline", "--recipe", f"recipes/{recipe}.yaml", "--set", f"storage={tmp_path}/none", "--dry-run")
    assert done.returncode == 0, done.stderr
    for stage in ("corpus", "pairs", "mining", "contrastive", "merge", "publish", "score_final"):
        assert stage in done.stdout
    assert "to make" in done.stdout
    assert "there " not in done.stdout
    assert not (tmp_path / "none").exists(), "a dry run writes nothing"
    if recipe == "ru_en_rosberta":
        assert "8 x (4 CPU, 1 GPU)" in done.stdout
        assert "missing: sources.ag_news.path" in done.stdout
    else:
        assert "missing:" not in done.stdout


@pytest.mark.parametrize("name", ["mine_negatives", "fetch_models"])
def test_a_stages_job_plans_what_it_needs(name: str, tmp_path: Path) -> None:
    done = job(name, "--dry-run", "--set", f"storage={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert ("synthesis" in done.stdout) == (name == "mine_negatives")
    assert "contrastive" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "mlm.stepz=2"), "mlm.stepz: unknown key; did you mean steps?"),
        (("--set", "sources.own={kind: files, path: /no/such/folder}"), "sources.own.path: /no/such/folder"),
        (("--set", "storage=/proc/nothing"), "storage /proc/nothing: cannot be written"),
        (("--set", "resources.min_free_gib=1000000"), "GiB free"),
        (("--set", "encoder.base=path:/no/model"), "/no/model"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], says: str) -> None:
    done = job("full_pipeline", "--recipe", "recipes/smoke.yaml", *arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr


def test_help_names_the_arguments() -> None:
    for name in PLANNED:
        text = job(name, "--help").stdout
        for argument in ("--recipe", "--set", "--dry-run"):
            assert argument in text, name
