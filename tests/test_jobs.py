"""Every job: short, with help, and a plan that needs no data."""

import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
LARGE = ["ru_en_rosberta", "ru_en_rosberta_plus", "rubert_mini_frida", "berta", "c_pack"]
"""Recipes whose data and models lie outside."""
PLANNED = ["full_pipeline", "run", "fetch_models"]


@dataclass(frozen=True)
class Done:
    """What a job left."""

    code: int
    out: str
    errors: str


Job = Callable[..., Done]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Job:
    """Runs a job's file in this process, which has long imported what a new one would take a while for."""

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


@pytest.mark.parametrize("recipe", ["laptop", "smoke", "evening", "teach_russian", *LARGE])
def test_each_recipe_plans_whole(job: Job, recipe: str, tmp_path: Path) -> None:
    small = ("--set", "limits.min_free_gib=0")
    done = job("full_pipeline", "--recipe", f"recipes/{recipe}.yaml", "--set", f"storage={tmp_path}/none", *small, "--dry-run")
    for node in ("corpus", "natural", "release", "contrastive", "examples"):
        assert node in done.out
    assert re.search(r"\b(\d+) of \1 nodes to make", done.out)
    assert not list(tmp_path.glob("none/*")), "a dry run leaves nothing behind"
    if recipe in ("laptop", "smoke", "evening", "teach_russian"):
        assert done.code == 0, done.errors
        assert "missing:" not in done.out
    else:
        assert done.code == 2, "data and models that are not there are missing"
        assert "missing: sources." in done.out
        assert "8 x (4 CPU, 1 GPU)" in done.out
        outside = ("sources.", "corpus.evaluation_sets: data/rumteb/", "benchmarks.")
        said = [line.removeprefix("missing: ") for line in done.out.splitlines() if line.startswith("missing: ")]
        assert all(line.startswith(outside) for line in said), said


def test_until_makes_what_a_node_needs(job: Job, tmp_path: Path) -> None:
    done = job("run", "--dry-run", "--until", "settled", "--set", f"storage={tmp_path}")
    assert done.code == 0, done.errors
    assert "trimmed" in done.out and "settled" in done.out
    assert "questions" not in done.out and "tuned" not in done.out
    done = job("run", "--dry-run", "--until", "settl", "--set", f"storage={tmp_path}")
    assert done.code == 2
    assert "no node 'settl'" in done.errors


def test_models_are_fetched_alone(job: Job, tmp_path: Path) -> None:
    done = job("fetch_models", "--dry-run", "--set", f"storage={tmp_path}")
    assert done.code == 0, done.errors
    assert "2 of 2 nodes to make" in done.out


def test_recipes_are_varied_into_one_plan(job: Job, tmp_path: Path) -> None:
    vary = ("--vary", "phases.tuned.steps=40,80", "--set", f"storage={tmp_path}")
    done = job("full_pipeline", "--dry-run", *vary)
    assert done.code == 0, done.errors
    assert "laptop-steps=40, laptop-steps=80" in done.out
    kinds = [line.split("│")[2].strip() for line in done.out.splitlines() if line.startswith("│")]
    assert kinds.count("corpus") == 1
    assert kinds.count("contrastive") == kinds.count("release") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "phases.adapted.stepz=2"), "phases.adapted.stepz: unknown key; did you mean steps?"),
        (("--set", "sources.own={kind: files, path: /no/such/folder}"), "sources.own.path: /no/such/folder"),
        (("--set", "storage=/proc/nothing"), "storage /proc/nothing: cannot be written"),
        (("--set", "storage=nowhere://user:planted@host/x"), "nowhere://host/x"),
        (("--set", "limits.min_free_gib=1000000"), "GiB free"),
        (("--set", "models.e5.from=path:/no/model"), "/no/model"),
        (("--set", "storage=\0"), "#x0000"),
        (("--recipe", "recipes/smoke.yaml", "--vary", "seed=1"), "--vary: varies one recipe"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(job: Job, arguments: tuple[str, ...], says: str) -> None:
    done = job("full_pipeline", "--recipe", "recipes/smoke.yaml", *arguments)
    assert done.code == 2, done.errors
    assert says in done.errors
    errors = [line for line in done.errors.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.errors
    assert "planted" not in done.errors + done.out


def test_help_names_the_arguments(job: Job) -> None:
    for name in PLANNED:
        text = job(name, "--help").out
        for argument in ("--recipe", "--set", "--vary", "--dry-run"):
            assert argument in text, name
    assert "--until" in job("run", "--help").out


def test_lineage_of_what_is_not_there_is_one_line(job: Job, tmp_path: Path) -> None:
    done = job("lineage", "merged", "--set", f"storage={tmp_path}")
    assert done.code == 2
    assert "no artifact of that name" in done.errors
    assert len(done.errors.strip().splitlines()) == 1
