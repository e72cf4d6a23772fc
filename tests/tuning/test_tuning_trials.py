"""What a trial does, and what a search may read."""

from pathlib import Path

import pyarrow as pa
import pytest

from raysberta.encoder.load import load_tokenizer
from raysberta.errors import InputError
from raysberta.evaluation.guard import readable_tasks
from raysberta.evaluation.score import dev_scores
from raysberta.recipe import Recipe
from raysberta.training.examples import prepare
from raysberta.tuning.trials import best_trial, merge_trial, temperature_trial


def test_public_and_test_data_are_refused(recipe: Recipe) -> None:
    assert readable_tasks(recipe) == ("Home",)
    with pytest.raises(InputError, match="may not read test halves"):
        readable_tasks(recipe, "test")
    public = recipe.model_copy(update={"tuning": recipe.tuning.model_copy(update={"tasks": ("RuSciBenchGRNTIClassification",)})})
    with pytest.raises(InputError, match=r"RuSciBenchGRNTIClassification is a public task"):
        readable_tasks(public)
    with pytest.raises(InputError, match=r"RuSciBenchGRNTIClassification is a public task"):
        dev_scores(public, Path("never opened"), Path("never opened"))
    bare = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"tasks": {}}), "tuning": type(recipe.tuning)()})
    with pytest.raises(InputError, match=r"evaluation\.tasks is empty"):
        readable_tasks(bare)


def test_best_is_the_highest_and_of_equals_the_smallest() -> None:
    trials = [{"weight": weight, "score": score} for weight, score in ((0.5, 0.7), (0.3, 0.7), (0.1, 0.6), (0.9, 0.7))]
    assert best_trial(trials, "weight")["weight"] == 0.3


def test_merge_trial_scores_the_merge(recipe: Recipe, good: Path, spoiled: Path, held_out: Path) -> None:
    alone = dev_scores(recipe, good, held_out)["Home"]
    back = merge_trial(recipe, spoiled, good, held_out, 1.0)
    assert back["scores"] == {"Home": pytest.approx(alone, abs=1e-4)} and back["score"] == back["scores"]["Home"]
    assert merge_trial(recipe, spoiled, good, held_out, 0.0)["score"] < 0.8 * alone


def test_temperature_trial_trains_and_repeats(recipe: Recipe, good: Path, held_out: Path, examples: pa.Table) -> None:
    settings = recipe.contrastive
    limits = settings.query_tokens, settings.document_tokens, settings.negatives
    ready = prepare([examples], load_tokenizer(good), recipe.prefixes, *limits)
    first, again = (temperature_trial(recipe, good, ready, held_out, 0.05) for _ in range(2))
    assert first["temperature"] == 0.05 and 0 < first["score"] <= 1 and first["loss"] > 0
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert temperature_trial(recipe, good, ready, held_out, 0.5)["loss"] != first["loss"]
