"""The model card: front matter that the hub reads, numbers, prompts, what is weak."""

from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from run_of_hand import STEPS, TASKS

from raysberta.artifacts import Manifest
from raysberta.publishing.card import card
from raysberta.recipe import Recipe


@pytest.fixture
def text(recipe: Recipe, stages: dict[str, Manifest], model: dict[str, Any]) -> str:
    return card(recipe, stages, model)


def test_front_matter_has_the_scores_in_mtebs_form(text: str) -> None:
    matter = yaml.safe_load(text.split("---\n")[1])
    assert matter["language"] == ["ru", "en"] and matter["license"] == "mit" and matter["library_name"] == "sentence-transformers"
    name, results = model_index_to_eval_results(matter["model-index"])
    assert name == "raysberta-probe"
    found = {(result.dataset_name, result.metric_type): result.metric_value for result in results}
    for task, (_, metric, values) in TASKS.items():
        assert found[f"{task} (held out)", metric] == pytest.approx(100 * values[-1])
        assert found[f"{task} (held out)", "main_score"] == pytest.approx(100 * values[-1])
    assert {result.task_type for result in results} == {kind for kind, _, _ in TASKS.values()}
    assert ModelCardData(**matter).to_dict()["tags"] == matter["tags"]


def test_body_has_every_step_the_prompts_the_data_and_the_weak_spots(text: str) -> None:
    for task, (kind, metric, values) in TASKS.items():
        shown = " | ".join(f"{100 * value:.2f}" for value in values)
        assert f"| {task} | {kind} | {metric} | {shown} | {100 * (values[-1] - values[0]):+.2f} |" in text
    assert len(STEPS) == 6 and "| **mean** |" in text
    assert 'prompt_name="search_query"' in text and "`'search_document: '`" in text
    assert "| dictionary | term_definition | wiki_ru_wordnet | 5,600 | CC BY-SA 3.0" in text
    assert "| synthetic | llm_query | written by a model | 301 |" in text
    assert "Worse than the base model on: WordSense (-1.41)." in text
    assert "at temperature 0.03" in text and "weight 0.1 of the encoder before contrastive training" in text
    assert "vllm 0.32.0" in text and "off: no ruT5 checkpoint" in text
    assert "| contrastive | `" in text and "0123456789abcdef" in text


def test_a_description_cannot_break_the_front_matter(recipe: Recipe, stages: dict[str, Manifest], model: dict[str, Any]) -> None:
    settings = recipe.publishing.model_copy(update={"model_name": "a: b\n---\n# x", "license": "no: thing"})
    matter = yaml.safe_load(card(recipe.model_copy(update={"publishing": settings}), stages, model).split("\n---\n\n")[0])
    assert matter["license"] == "no: thing" and matter["model-index"][0]["name"] == "a: b\n---\n# x"
