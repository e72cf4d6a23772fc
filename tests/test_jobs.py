"""Every job: short, with help, and a plan that needs no data."""

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
PLANNED = [name for name in JOBS if name not in ("local", "fetch_benchmark")]


@dataclass(frozen=True)
class Done:
    """What a job left."""

    code: int
    out: str
    errors: str


Job = Callable[..., Done]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Job:
    """Runs a job's file in this process, which has long imported what a new one would take ten seconds for."""

    def run(name: str, *arguments: str) -> Done:
        file = str(ROOT / "jobs" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [file, *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(ROOT)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(file, run_name="__main__")
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.mark.parametrize("name", JOBS)
def test_jobs_are_thin(name: str) -> None:
    assert len((ROOT / "jobs" / f"{name}.py").read_text().splitlines()) < 100


def test_every_stage_has_a_job() -> None:
    from raysberta.storage.artifacts import Store
    from raysberta.pipeline import STAGES, plan
    from raysberta.recipe import load

    reached = {item.stage.name for item in plan(load(ROOT / "recipes" / "laptop.yaml"), Store("unused"))}
    assert reached == {stage.name for stage in STAGES}, "the full pipeline runs every stage"


@pytest.mark.parametrize("recipe", ["laptop", "smoke", "ru_en_rosberta"])
def test_each_recipe_plans_whole(job: Job, recipe: str, tmp_path: Path) -> None:
    done = job("full_pipeline", "--recipe", f"recipes/{recipe}.yaml", "--set", f"storage={tmp_path}/none", "--dry-run")
    assert done.code == 0, done.errors
    for stage in ("corpus", "pairs", "mining", "contrastive", "merge", "publish", "score_final"):
        assert stage in done.out
    assert "to make" in done.out
    assert "there " not in done.out
    assert not (tmp_path / "none").exists(), "a dry run writes nothing"
    if recipe == "ru_en_rosberta":
        assert "8 x (4 CPU, 1 GPU)" in done.out
        assert "missing: sources.ag_news.path" in done.out
    else:
        assert "missing:" not in done.out


@pytest.mark.parametrize("name", ["mine_negatives", "fetch_models"])
def test_a_stages_job_plans_what_it_needs(job: Job, name: str, tmp_path: Path) -> None:
    done = job(name, "--dry-run", "--set", f"storage={tmp_path}")
    assert done.code == 0, done.errors
    assert ("synthesis" in done.out) == (name == "mine_negatives")
    assert "contrastive" not in done.out


def test_evaluate_plans_the_steps_that_the_recipe_names(job: Job, tmp_path: Path) -> None:
    done = job("evaluate", "--dry-run", "--set", f"storage={tmp_path}", "--set", "evaluation.steps=[base, final]")
    assert done.code == 0, done.errors
    assert "score_final" in done.out
    assert "score_mlm " not in done.out.split("\n", 1)[1], "only the title names it"


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
def test_bad_input_is_one_line_and_exit_code_2(job: Job, arguments: tuple[str, ...], says: str) -> None:
    done = job("full_pipeline", "--recipe", "recipes/smoke.yaml", *arguments)
    assert done.code == 2, done.errors
    assert says in done.errors
    errors = [line for line in done.errors.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.errors


def test_help_names_the_arguments(job: Job) -> None:
    for name in PLANNED:
        text = job(name, "--help").out
        for argument in ("--recipe", "--set", "--dry-run"):
            assert argument in text, name
