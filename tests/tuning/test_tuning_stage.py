"""The searches through Ray Tune."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray.tune import Result
from searches import ABSURD, CONTRASTIVE, HARMLESS, HOW, MERGE, MakeWork

from raysberta.errors import InputError
from raysberta.evaluation.score import dev_scores
from raysberta.progress import Report, report_to
from raysberta.retrieval.mapped import Mapped
from raysberta.storage.artifacts import Artifact
from raysberta.training.contrastive import train_contrastive
from raysberta.training.lessons import teach_examples
from raysberta.training.prepare import prepare_examples
from raysberta.training.settings import Contrastive
from raysberta.tuning import stage
from raysberta.tuning.choice import with_values
from raysberta.tuning.facts import SearchFacts
from raysberta.tuning.node import SearchTrials
from raysberta.work import Work


def asides(asked: Work[SearchTrials]) -> list[Path]:
    """What a search and its trials have in the temporary directory."""
    return list(Path(tempfile.gettempdir()).glob(f"raysberta-{asked.node}-*"))


def test_a_merge_search_finds_the_good_model(ray_local: None, work: MakeWork, inputs: Mapping[str, Artifact], good: Path) -> None:
    said: list[Report] = []
    report_to(said.append)
    asked = work(MERGE, {"weight": (1.0, 0.0)})
    try:
        found = stage.run(asked)
    finally:
        report_to(None)
    assert found.best == {"weight": 1.0}, "of the good model, the second"
    assert [trial.values["weight"] for trial in found.trials] == [0.0, 1.0]
    assert found.trials[0].score < 0.8 * found.trials[1].score
    assert found.trials[1].score == pytest.approx(dev_scores(good, inputs["tasks"], ("Home",), HOW)["Home"], abs=1e-4)
    assert all(trial.scores.keys() == {"Home"} and trial.seconds > 0 and trial.steps is None for trial in found.trials)
    assert asked.draft.rows_out == 2 and [(report.done, report.total) for report in said][-1] == (2, 2)
    assert not asides(asked) and not Path(asked.draft.checkpoints).exists(), "nothing is left behind"


def test_a_grid_over_two_numbers_of_a_training_tries_all_and_finds_the_rate_that_spoils_nothing(ray_local: None, work: MakeWork) -> None:
    asked = work(CONTRASTIVE, {"learning_rate": (ABSURD, HARMLESS), "temperature": (0.05, 0.02)}, steps=2)
    found = stage.run(asked)
    assert [tuple(trial.values.values()) for trial in found.trials] == [
        (HARMLESS, 0.02),
        (HARMLESS, 0.05),
        (ABSURD, 0.02),
        (ABSURD, 0.05),
    ]
    assert found.best["learning_rate"] == HARMLESS
    assert max(trial.score for trial in found.trials[2:]) < 0.8 * min(trial.score for trial in found.trials[:2])
    assert asked.draft.rows_in == 80 and {trial.steps for trial in found.trials} == {2}


def test_trials_learn_from_the_teacher_of_the_phase(
    ray_local: None, work: MakeWork, inputs: Mapping[str, Artifact], tmp_path: Path
) -> None:
    asked = work({**CONTRASTIVE, "learning_rate": 3e-3, "distil": {"teacher": "spoiled"}}, {"distil.weight": (0.01, 100.0)}, steps=2)
    found = stage.run(asked)
    assert found.trials[0].scores != found.trials[1].scores, "of one temperature, rate and seed"
    phase = with_values(asked.settings.phase, {"distil.weight": 100.0})
    assert isinstance(phase, Contrastive)
    mined = [inputs[name] for name in phase.examples]
    vectors, at = teach_examples(asked, phase, mined)
    examples = prepare_examples(phase, inputs["base"], mined, str(tmp_path / "data"), teacher=at)
    train_contrastive(phase, inputs["base"].folder("model"), examples, tmp_path / "model", Mapped(vectors), seed=asked.seed, steps=2)
    assert found.trials[1].score == pytest.approx(dev_scores(tmp_path / "model", inputs["tasks"], ("Home",), HOW)["Home"], abs=1e-4)


def test_asha_ends_the_worse_training_early(ray_local: None, work: MakeWork) -> None:
    asked = work(CONTRASTIVE, {"learning_rate": (HARMLESS, ABSURD)}, steps=4, rungs=2)
    found = stage.run(asked)
    assert [trial.steps for trial in found.trials] == [4, 2]
    assert found.best == {"learning_rate": HARMLESS} and found.trials[1].score < 0.8 * found.trials[0].score
    left = [file for folder in asides(asked) for file in folder.rglob("*") if file.is_file()]
    assert not left, "no weights are left behind"


def test_optuna_proposes_within_the_range_and_the_same_for_a_seed(ray_local: None, work: MakeWork) -> None:
    over = {"weight": {"low": 0.0, "high": 1.0}}
    first, again, other = (stage.run(work(MERGE, over, seed=seed, how="optuna", trials=3)) for seed in (1, 1, 2))
    assert len({trial.values["weight"] for trial in first.trials}) == 3
    assert all(0 <= trial.values["weight"] <= 1 for trial in first.trials)
    assert [trial.values for trial in first.trials] == sorted((trial.values for trial in again.trials), key=lambda values: values["weight"])
    assert [trial.score for trial in first.trials] == [trial.score for trial in again.trials]
    assert [trial.values for trial in first.trials] != [trial.values for trial in other.trials]
    assert first.best == max(first.trials, key=lambda trial: trial.score).values


def test_optuna_takes_whole_numbers_and_lists_and_tries_no_combination_twice(ray_local: None, work: MakeWork) -> None:
    over = {"document_tokens": {"low": 8.0, "high": 9.0, "whole": True, "log": True}, "temperature": (0.05,)}
    found = stage.run(work(CONTRASTIVE, over, how="optuna", trials=5, steps=1))
    tried = [trial.values["document_tokens"] for trial in found.trials]
    assert 1 <= len(tried) <= 2 and tried == sorted(set(tried)) and set(tried) <= {8.0, 9.0}
    assert all(trial.values["temperature"] == 0.05 for trial in found.trials)


def test_a_wrong_input_ends_the_search_at_once_with_its_own_line(
    ray_local: None, work: MakeWork, inputs: Mapping[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, check = list[list[Result]](), stage._check
    monkeypatch.setattr(stage, "_check", lambda trials, results: (seen.append(results), check(trials, results)))
    index = inputs["tasks"].folder("tasks") / "tasks.json"
    index.rename(index.with_name("aside"))
    with pytest.raises(InputError, match=r"no tasks\.json there"):
        stage.run(work(MERGE, {"weight": (0.25, 0.5, 0.75)}))
    assert sum("input_error" in (result.metrics or {}) for result in seen[0]) == 1, "the others were not begun"
    index.with_name("aside").rename(index)
    with pytest.raises(InputError, match=r"search\.tasks: TERRa is a public task"):
        stage.run(work(MERGE, {"weight": (0.5,)}, tasks=("TERRa",)))
    with pytest.raises(InputError, match="weight"):
        stage.run(work(MERGE, {"weight": (0.5, 1.5)}))


def test_a_broken_trial_fails_the_stage_by_name_and_costs_no_other(ray_local: None, work: MakeWork, inputs: Mapping[str, Artifact]) -> None:
    weights = inputs["spoiled"].folder("model") / "model.safetensors"
    whole = weights.read_bytes()
    asked = work({**MERGE, "of": ("base", "base"), "weights": (0.5, 0.5)}, {"weights.0": (0.5,)})
    assert len(stage.run(asked).trials) == 1
    weights.write_bytes(whole[:1000])
    with pytest.raises(RuntimeError, match=r"trial weight 0\.5 failed: SafetensorError"):
        stage.run(work(MERGE, {"weight": (0.5,)}))


def strike_once(at: Callable[[], bool]) -> threading.Thread:
    """Kill the process of a trial, once it is there and `at` says so."""

    def strike() -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            for process in psutil.Process().children(recursive=True):  # of this test's own Ray
                with suppress(psutil.Error):
                    if "ImplicitFunc.train" in " ".join(process.cmdline()) and at():
                        process.kill()
                        return
            time.sleep(0.02)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    return thread


def test_a_trial_whose_process_is_killed_is_begun_again(ray_local: None, work: MakeWork) -> None:
    asked = work(CONTRASTIVE, {"learning_rate": (HARMLESS, ABSURD)}, steps=3)
    thread = strike_once(lambda: any("-trial-" in folder.name for folder in asides(asked)))
    found = stage.run(asked)
    thread.join(1)
    assert not thread.is_alive() and len(asides(asked)) == 1, "a process was killed in the midst of a trial, and left its folder"
    shutil.rmtree(asides(asked)[0])
    assert [trial.steps for trial in found.trials] == [3, 3] and found.best == {"learning_rate": HARMLESS}


def killed_after_its_first_trial(asked: Work[SearchTrials], tmp_path: Path) -> Path:
    """Run a search in a process, kill that once a trial is written down, and give the trial's file."""
    (tmp_path / "work").write_bytes(pickle.dumps(asked))
    program = Path(__file__).with_name("search_process.py")
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "TMPDIR": str(tmp_path)}
    arguments = [sys.executable, str(program), ray.get_runtime_context().gcs_address, str(tmp_path / "work")]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = Path(asked.draft.checkpoints) / "trials"
    while process.poll() is None and not list(folder.glob("*.json")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was still at it"
    (file,) = folder.glob("*.json")
    return file


@pytest.mark.parametrize(
    ("over", "more"),
    [
        ({"weight": (0.0, 0.5, 1.0)}, {}),
        ({"weight": {"low": 0.0, "high": 1.0}}, {"how": "optuna", "trials": 3}),
    ],
    ids=["grid", "optuna"],
)
def test_a_killed_search_goes_on_with_what_is_missing(
    ray_local: None, work: MakeWork, tmp_path: Path, over: Mapping[str, object], more: Mapping[str, object]
) -> None:
    asked = work(MERGE, over, **more)
    file = killed_after_its_first_trial(asked, tmp_path)
    noted = json.loads(file.read_text())
    file.write_text(json.dumps({**noted, "seconds": 12345.0}))
    found = stage.run(asked)
    marked = [trial for trial in found.trials if trial.seconds == 12345.0]
    assert [trial.values for trial in marked] == [noted["values"]], "it was read, not run again"
    unbroken: SearchFacts = stage.run(asked)
    assert len(found.trials) == 3
    assert [(trial.values, trial.score) for trial in found.trials] == [(trial.values, trial.score) for trial in unbroken.trials]
    assert found.best == unbroken.best
