"""Numbers for card and report: whose scores stand where, what the mean needs, when things ran, what the final model learned from."""

from pathlib import Path
from typing import Any

import pytest
from small_run import MINED, RECIPE, WEAK, Run, facts, scores

from raysberta.errors import InputError
from raysberta.evaluation.facts import ScoreDetail
from raysberta.publishing import gather, lineage
from raysberta.publishing.gather import Span, Told


def test_idle_time_is_cut_out_of_the_timeline_and_overlaps_are_found() -> None:
    found = [Span("old", "mlm", 0, 10), Span("new", "merge", 5000, 20), Span("beside", "score", 5010, 30)]
    moved, cuts = gather.without_idle(found)
    assert [(span.node, span.kind, span.started) for span in moved] == [("old", "mlm", 0), ("new", "merge", 20), ("beside", "score", 30)]
    assert cuts == [15]
    assert gather.overlaps(found) == [("new", "beside", 10)]
    assert gather.without_idle([]) == ([], [])


def test_a_mean_needs_every_task(tmp_path: Path) -> None:
    full = scores("adapted")
    some = {name: value for name, value in full.scores.items() if name != "WordSense"}
    told = Run(RECIPE, tmp_path).fill({**facts(), "score_adapted": full.model_copy(update={"scores": some})}).told()
    found = told.scores
    own, general = found.own.means, found.general.means
    assert own["adapted"] is not None and general["adapted"] is None
    assert general["e5"] is not None and general["e5"].value == pytest.approx(42.21)
    (row,) = (row for row in found.general.rows if row.task == "WordSense")
    assert row.scores["adapted"] is None and row.change is not None and row.change.value == pytest.approx(-1.41)


def test_a_change_is_that_of_the_same_draws(told: Told) -> None:
    """The draws of two models move together: their difference has a much narrower interval than either."""
    (row,) = (row for row in told.scores.general.rows if row.task == "WordSense")
    assert row.change is not None and row.change.interval is not None and row.change.clear
    score = row.scores["merged"]
    assert score is not None and score.interval is not None
    widths = [high - low for low, high in (row.change.interval, score.interval)]
    assert widths[0] < 0.3 * widths[1]
    assert [row.task for row in told.scores.general.worse] == ["WordSense"] and not told.scores.own.worse


def test_each_phase_is_held_against_the_scored_model_that_it_went_on_from(told: Told) -> None:
    """Phases between that were not scored are passed over; a model from outside is no phase."""
    found = told.scores
    steps = {step.model: step for step in found.steps}
    assert list(steps) == [model for model in found.models if model != "e5"]
    assert (steps["trimmed"].before, steps["adapted"].before) == ("e5", "trimmed")
    assert steps["tuned"].before == "adapted", "the phase between was not scored"
    for step in steps.values():
        for name, table in found.tables.items():
            after, before, change = table.means[step.model], table.means[step.before], step.changes[name]
            assert after is not None and before is not None and change is not None
            assert change.value == pytest.approx(after.value - before.value) and change.interval is not None


def test_without_draws_there_is_no_interval_and_no_change_is_called_one(told: Told) -> None:
    settings = told.settings
    found = gather.scores(settings, told.lineage)
    assert found.general.change is not None and found.general.change.interval is None and not found.general.change.clear
    assert not found.general.worse and all(row.change and row.change.interval is None for row in found.own.rows)
    assert found.verdict()[0].text.endswith("2.12 points above the base: 42.21 to 44.33; no interval is known.")


def test_a_final_model_that_was_not_scored_has_no_change(tmp_path: Path) -> None:
    found = Run({**RECIPE, "score": ["e5", "tuned"]}, tmp_path).fill(facts()).told().scores
    assert found.models == ("e5", "tuned") and found.own.change is None and found.general.change is None
    assert found.details == {} and not found.own.worse and all(row.change is None for row in found.own.rows)
    assert "not both scored on all of the 2 general tasks" in found.verdict()[0].text


def test_columns_are_the_models_that_the_scores_are_of_not_what_score_nodes_are_called(tmp_path: Path) -> None:
    run = Run({**RECIPE, "score": ["tuned", "e5"]}, tmp_path).fill(facts())
    assert run.told().scores.models == ("tuned", "e5")
    run.artifacts["score_tuned"], run.artifacts["score_e5"] = run.artifacts["score_e5"], run.artifacts["score_tuned"]
    swapped = run.told().scores
    assert swapped.models == ("e5", "tuned")
    values = {model: score.value for model, score in swapped.own.rows[0].scores.items() if score is not None}
    assert values == pytest.approx({"e5": 40.12, "tuned": 51.23})


def test_scores_of_a_model_that_is_nowhere_are_an_error(tmp_path: Path) -> None:
    run = Run(RECIPE, tmp_path).fill(facts())
    del run.artifacts["adapted"]
    with pytest.raises(InputError, match=r"score_adapted: the model that it scored, mlm/[0-9a-f]{16}, is none of the nodes"):
        run.told()


def test_two_names_of_one_model_both_have_their_column(tmp_path: Path) -> None:
    recipe = {**RECIPE, "models": {**RECIPE["models"], "twin": RECIPE["models"]["e5"]}, "score": ["e5", "twin"]}
    run = Run(recipe, tmp_path)
    run.fill({**facts(), "twin": facts()["e5"], "score_twin": facts()["score_e5"]})
    assert run.artifacts["twin"].manifest.id == run.artifacts["e5"].manifest.id
    assert run.told().scores.models == ("e5", "twin")


def test_the_main_metric_is_the_one_that_has_the_main_score() -> None:
    given: dict[str, Any] = {"dataset": "d", "held_out": True, "config": "default", "split": "test", "revision": "r", "languages": []}
    given |= {"general": False, "scored": 3, "interval": None}
    detail = ScoreDetail(type="Retrieval", metrics={"accuracy": 0.5, "ndcg_at_10": 0.7, "main_score": 0.5}, **given)
    assert gather.main_metric(detail) == "accuracy"
    assert gather.main_metric(detail.model_copy(update={"metrics": {"main_score": 0.4, "f1": 0.5}})) == "main_score"


def test_learned_rows_are_those_of_the_lineage(told: Told) -> None:
    found = gather.learned(told.lineage, "merged")
    assert {(each.examples, f"{each.source}/{each.pairs}"): each.rows for each in found} == {
        **{("weak", key): rows for key, rows in WEAK.items()},
        **{("mined", key): rows for key, rows in MINED.items()},
    }
    assert {each.examples for each in gather.learned(told.lineage, "aside")} == {"unused"}
    assert {each.examples for each in gather.learned(told.lineage, "general")} == {"weak"}
    assert gather.learned(told.lineage, "adapted") == []


def test_a_phase_made_by_another_recipe_is_known_by_its_id(tmp_path: Path) -> None:
    """Reused artifacts hold the names that the recipe which made them gave its nodes."""
    run = Run(RECIPE, tmp_path).fill(facts())
    tuned = run.manifests["tuned"]
    other = tuned.model_copy(update={"inputs": {f"other_{name}": id for name, id in tuned.inputs.items()}})
    found = lineage.read({**run.manifests, "tuned": other})
    node = found.get("tuned")
    assert node is not None and found.made_from(node) == list(run.nodes["tuned"].made_from)
    assert {each.examples for each in gather.learned(found, "merged")} == {"weak", "mined"}


def test_seeds_are_those_of_what_draws(told: Told) -> None:
    assert gather.seeds(told.lineage) == [7]
