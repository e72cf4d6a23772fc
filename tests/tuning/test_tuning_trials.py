"""What a trial does, without Ray."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from searches import ABSURD, CONTRASTIVE, HARMLESS, HOW, MERGE, MLM, MakeTrials

from raysberta.errors import InputError
from raysberta.evaluation.score import dev_scores
from raysberta.storage.artifacts import Artifact
from raysberta.training.examples import Examples
from raysberta.tuning.facts import Trial
from raysberta.tuning.trials import Trials, prepare, run_trial


@pytest.fixture
def alone(good: Path, inputs: Mapping[str, Artifact]) -> float:
    """What the good model scores."""
    return dev_scores(good, inputs["tasks"], ("Home",), HOW)["Home"]


def test_a_merge_trial_scores_the_merge(trials: MakeTrials, alone: float) -> None:
    of = trials(MERGE, {"weight": (0.0, 1.0)})
    back = run_trial(of, {"weight": 1.0})
    assert back.scores == {"Home": pytest.approx(alone, abs=1e-4)} and back.score == back.scores["Home"]
    assert back.values == {"weight": 1.0} and back.steps is None and back.seconds > 0
    assert (back.own, back.general) == (back.score, None)
    general = run_trial(Trials(of.work, of.tasks, general=of.tasks), {"weight": 1.0})
    assert (general.own, general.general) == (None, back.score)
    assert run_trial(of, {"weight": 0.0}).score < 0.8 * alone


def test_a_single_weight_of_several_models_can_be_tried(trials: MakeTrials, alone: float) -> None:
    of = trials(
        {**MERGE, "of": ("base", "spoiled", "base"), "weights": (0.0, 1.0, 0.0)}, {"weights.1": (0.0, 1.0), "weights.2": (0.0, 1.0)}
    )
    assert run_trial(of, {"weights.1": 0.0, "weights.2": 1.0}).score == pytest.approx(alone, abs=1e-4)
    assert run_trial(of, {"weights.1": 1.0, "weights.2": 0.0}).score < 0.8 * alone
    with pytest.raises(InputError, match="weights"):
        run_trial(of, {"weights.1": 0.0, "weights.2": 0.0})


@pytest.mark.parametrize("phase", [CONTRASTIVE, MLM], ids=["contrastive", "mlm"])
def test_a_training_trial_trains_repeats_and_can_spoil_its_model(trials: MakeTrials, alone: float, phase: Mapping[str, object]) -> None:
    of = trials(phase, {"learning_rate": (HARMLESS, ABSURD)}, steps=2)
    prepare(of, [])
    first, again, absurd = (run_trial(of, {"learning_rate": rate}) for rate in (HARMLESS, HARMLESS, ABSURD))
    assert first.model_copy(update={"seconds": 0}) == again.model_copy(update={"seconds": 0})
    assert first.steps == 2 and first.score == pytest.approx(alone, abs=0.02)
    assert absurd.score < 0.7 * alone


def test_all_trials_of_a_search_read_what_was_prepared_once(trials: MakeTrials, inputs: Mapping[str, Artifact], tmp_path: Path) -> None:
    of = trials(CONTRASTIVE, {"temperature": (0.02, 0.05)}, steps=1)
    assert prepare(of, [{"temperature": 0.02}, {"temperature": 0.05}]) == 80
    (file,) = Path(of.home).glob("data-*/index.json")
    written = file.stat().st_mtime_ns
    for name in ("mined", "written"):
        folder = Path(inputs[name].uri) / "examples"
        folder.rename(tmp_path / name)
    assert run_trial(of, {"temperature": 0.05}).steps == 1, "the examples themselves are not read again"
    assert prepare(of, []) == 80 and file.stat().st_mtime_ns == written


def test_values_that_need_other_data_get_other_data(trials: MakeTrials) -> None:
    of = trials(CONTRASTIVE, {"negatives": (0.0, 1.0)}, steps=1)
    prepare(of, [{"negatives": 0.0}, {"negatives": 1.0}])
    most = [Examples.load(str(folder)).negatives.lengths.max() for folder in Path(of.home).glob("data-*")]
    assert sorted(most) == [0, 1]
    with_none, with_one = (run_trial(of, {"negatives": number}) for number in (0.0, 1.0))
    assert with_none.values == {"negatives": 0.0} and with_one.values == {"negatives": 1.0}
    unforeseen = trials(CONTRASTIVE, {"document_tokens": {"low": 8.0, "high": 24.0, "whole": True}}, how="optuna", trials=1, steps=1)
    assert run_trial(unforeseen, {"document_tokens": 9.0}).steps == 1, "what nobody prepared is prepared in the trial"


def test_the_rungs_are_evenly_spaced_and_the_last_is_the_end(trials: MakeTrials) -> None:
    of = trials(CONTRASTIVE, {"temperature": (0.05,)}, steps=5, rungs=3)
    seen: list[Trial] = []
    last = run_trial(of, {"temperature": 0.05}, seen.append)
    assert [trial.steps for trial in (*seen, last)] == [2, 4, 5]
    assert all(0 < trial.score <= 1 and trial.values == {"temperature": 0.05} for trial in (*seen, last))
    whole = run_trial(trials(CONTRASTIVE, {"temperature": (0.05,)}, steps=5), {"temperature": 0.05}, seen.append)
    assert whole.score == last.score and len(seen) == 2, "scoring on the way changes nothing, and is not done where not asked"
    by_epochs = trials({**CONTRASTIVE, "epochs": 0.5}, {"temperature": (0.05,)}, rungs=2)
    seen.clear()
    assert run_trial(by_epochs, {"temperature": 0.05}, seen.append).steps == 5
    assert [trial.steps for trial in seen] == [3]


def test_a_training_that_breaks_off_scores_nothing(trials: MakeTrials, caplog: pytest.LogCaptureFixture) -> None:
    found = run_trial(trials(CONTRASTIVE, {"learning_rate": (1e30,)}, steps=4), {"learning_rate": 1e30})
    assert found.score == 0.0 and found.scores == {"Home": 0.0}
    assert found.steps is not None and 1 <= found.steps < 4
    assert ": learning_rate 1e+30: step" in caplog.text


def test_values_that_do_not_fit_are_refused_before_anything_runs(trials: MakeTrials) -> None:
    of = trials(CONTRASTIVE, {"temperature": (0.05,)})
    with pytest.raises(InputError, match="temperature"):
        prepare(of, [{"temperature": -1.0}])
    with pytest.raises(InputError, match="warmth"):
        prepare(of, [{"warmth": 1.0}])
    with pytest.raises(InputError, match="weight"):
        prepare(trials(MERGE, {"weight": (0.5,)}), [{"weight": 1.5}])


def test_public_tasks_are_refused(trials: MakeTrials) -> None:
    public = Trials(trials(MERGE, {"weight": (0.5,)}).work, ("RuSciBenchGRNTIClassification",))
    with pytest.raises(InputError, match="RuSciBenchGRNTIClassification is a public task"):
        run_trial(public, {"weight": 0.5})
