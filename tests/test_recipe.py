"""The recipe as a value, what is no part of identity, and that shipped recipes are what was published."""

import json
from pathlib import Path

import pytest

from raysberta.graph import identity
from raysberta.nodes import Node, nodes_of
from raysberta.parsing import load
from raysberta.pipeline.stages import workers_of
from raysberta.recipe import Recipe
from raysberta.work import Workers
from source_tree import ROOT

LAPTOP = ROOT / "recipes" / "laptop.yaml"
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))


def own(node: Node) -> str:
    """A node's own identity, the names of its inputs in place of their ids."""
    return json.dumps(identity(node.settings, {name: name for name in node.made_from}), sort_keys=True)


@pytest.mark.parametrize("path", [*SHIPPED, Path(__file__).with_name("every_section.yaml")], ids=lambda path: path.stem)
def test_a_recipe_survives_json(path: Path) -> None:
    recipe = load(path)
    again = Recipe.model_validate_json(recipe.model_dump_json(by_alias=True))
    assert again == recipe
    assert {name: own(node) for name, node in nodes_of(again).items()} == {name: own(node) for name, node in nodes_of(recipe).items()}


def test_where_it_runs_is_not_identity() -> None:
    here = nodes_of(load(LAPTOP))
    elsewhere = nodes_of(load(LAPTOP, ("storage=/elsewhere", "resources.contrastive.workers=8", "limits.lease_seconds=9")))
    assert {name: own(node) for name, node in here.items()} == {name: own(node) for name, node in elsewhere.items()}


def test_what_decides_a_result_is_identity_of_its_own_node_alone() -> None:
    before, after = nodes_of(load(LAPTOP)), nodes_of(load(LAPTOP, ("phases.adapted.steps=3",)))
    assert {name for name in before if own(before[name]) != own(after[name])} == {"adapted"}


def test_what_only_decides_speed_is_not_identity() -> None:
    before = nodes_of(load(LAPTOP))
    after = nodes_of(load(LAPTOP, ("phases.tuned.checkpoint_every=3", "phases.tuned.recompute=true", "phases.merged.search.concurrent=1")))
    assert before["tuned"].settings != after["tuned"].settings
    assert {name for name in before if own(before[name]) != own(after[name])} == set()


def test_resources_are_by_kind_then_by_name_and_what_they_leave_out_is_the_stages() -> None:
    recipe = load(LAPTOP, ("resources={contrastive: {workers: 3, cpus: 4}, tuned: {workers: 5}}",))
    nodes = nodes_of(recipe)
    assert workers_of(recipe, nodes["tuned"]) == Workers(workers=5, cpus=4)
    assert workers_of(recipe, nodes["search_tuned"]) == Workers(cpus=2)
    assert workers_of(recipe, nodes["adapted"]) == Workers()


def test_everything_has_a_default_but_a_name_and_sources(tmp_path: Path) -> None:
    file = tmp_path / "least.yaml"
    file.write_text("name: least\nsources: {words: {kind: wiki_ru_wordnet}}\n")
    assert list(nodes_of(load(file))) == ["corpus", "natural"]


def test_ru_en_rosberta_has_the_published_figures() -> None:
    recipe = load(ROOT / "recipes" / "ru_en_rosberta.yaml")
    thousands = [source.limit // 1000 for source in recipe.sources.values() if source.limit]
    assert len(thousands) == len(recipe.sources) == 54
    assert sum(thousands) == 3797
    tuned, softened, merged = recipe.phases["tuned"], recipe.phases["softened"], recipe.phases["merged"]
    assert tuned.kind == "contrastive" and softened.kind == merged.kind == "merge"
    documents, queries = tuned.batch_size * (1 + tuned.negatives), tuned.batch_size * tuned.device_batches
    assert (documents, queries) == (1024, 1024)
    assert round(sum(thousands) * 1000 / queries, -2) == 3700
    assert (tuned.temperature, tuned.learning_rate, tuned.warmup_steps) == (0.02, 1e-5, 200)
    assert (softened.weight, softened.scope, merged.weight) == (0.25, "encoder_layers", 0.1)
    mined, supplied = recipe.examples["mined"], recipe.examples["supplied"]
    assert mined.mine is not None and mined.mine.ranks == (20, 100) and supplied.mine is None
    assert {pattern.removesuffix("/*") for pattern in (*mined.only, *supplied.only)} == set(recipe.sources)
    assert len(mined.only) + len(supplied.only) == 54


def test_c_pack_has_the_published_figures() -> None:
    recipe = load(ROOT / "recipes" / "c_pack.yaml")
    pretrained, general, instructed, plain, merged = recipe.phases.values()
    assert pretrained.kind == "mlm" and pretrained.retromae is not None
    assert (pretrained.mask_probability, pretrained.retromae.decoder_mask, pretrained.batch_size) == (0.3, 0.5, 720)
    assert general.kind == instructed.kind == plain.kind == "contrastive" and merged.kind == "merge"
    assert (general.batch_size * general.device_batches, general.negatives, general.cross_device_negatives) == (19_200, 0, True)
    assert (instructed.epochs, instructed.learning_rate, instructed.temperature, instructed.negatives) == (5, 1e-5, 0.01, 1)
    assert {general.temperature, instructed.temperature, plain.temperature} == {0.01}
    assert recipe.examples["weak"].negatives == 0 and recipe.examples["weak"].mine is None
    mined = recipe.examples["mined"].mine
    assert mined is not None and mined.by == "general"
    patterns = [pattern for examples in recipe.examples.values() for pattern in examples.only]
    assert sorted(pattern.removesuffix("/*") for pattern in patterns) == sorted(recipe.sources)
    assert (merged.of, merged.method, merged.weight) == (("instructed", "plain"), "linear", 0.5)


def test_c_pack_puts_its_instruction_before_queries_alone() -> None:
    instructed, plain = (load(ROOT / "recipes" / "c_pack.yaml").phases[name] for name in ("instructed", "plain"))
    assert instructed.kind == plain.kind == "contrastive" and instructed.prefixes and plain.prefixes
    assert instructed.prefixes.of("retrieval", "query").endswith("：")
    texts = [
        prefixes.of(*asked)
        for prefixes in (instructed.prefixes, plain.prefixes)
        for asked in (("retrieval", "document"), ("topic", "query"))
    ]
    assert {*texts, instructed.prefixes.of("paraphrase", "query"), plain.prefixes.of("retrieval", "query")} == {""}
    assert instructed.model_copy(update={"prefixes": None}) == plain.model_copy(update={"prefixes": None})


@pytest.mark.parametrize("name", ["rubert_mini_frida", "berta"])
def test_what_is_distilled_from_frida_learns_all_of_its_prefixes(name: str) -> None:
    recipe = load(ROOT / "recipes" / f"{name}.yaml")
    others, taught = recipe.phases["others"], recipe.phases["taught"]
    assert others.kind == taught.kind == "distil"
    learned = set[str]()
    for phase in (others, taught):
        teacher = recipe.models[phase.teacher]
        assert (teacher.pooling, teacher.max_tokens, teacher.prefixes) == ("cls", 512, phase.prefixes)
        assert phase.prefixes is not None
        learned |= set(phase.prefixes.named_prompts().values())
    kinds = ("categorize", "categorize_sentiment", "categorize_topic", "categorize_entailment")
    assert learned == {f"{word}: " for word in ("search_query", "search_document", "paraphrase", *kinds)}
    assert recipe.models["published"].prefixes == taught.prefixes and recipe.models["base"].pooling == "mean"
    assert (recipe.final, recipe.compare_with) == ("soup", "published")


@pytest.mark.parametrize("name", ["rubert_mini_frida", "berta", "ru_en_rosberta_plus"])
def test_tasks_that_frida_was_trained_on_are_told_apart(name: str) -> None:
    import mteb

    declared = mteb.get_model_meta("ai-forever/FRIDA").training_datasets
    tasks = [task.metadata.name for task in mteb.get_benchmark("MTEB(rus, v1.1)").tasks]
    learned = {task for task in tasks if task.removesuffix(".v2") in declared}
    benchmark = load(ROOT / "recipes" / f"{name}.yaml").benchmarks["rumteb"]
    assert set(benchmark.in_domain) == learned and (len(learned), len(tasks)) == (16, 23)


def test_ru_en_rosberta_plus_is_the_published_recipe_with_changes() -> None:
    plain, plus = (load(ROOT / "recipes" / f"{name}.yaml") for name in ("ru_en_rosberta", "ru_en_rosberta_plus"))
    assert {name: source for name, source in plus.sources.items() if source.kind == "dataset"} == plain.sources
    assert all(source.held_out for name, source in plus.sources.items() if name not in plain.sources)
    assert plus.phases["adapted"] == plain.phases["adapted"] and plus.phases["softened"] == plain.phases["softened"]
    assert plus.examples["supplied"] == plain.examples["supplied"] and plus.examples["mined"].only == plain.examples["mined"].only
    assert (plus.corpus, plus.pairs) == (plain.corpus, plain.pairs)
    changed = {"from_": "softened", "epochs": 1.0, "steps": None, "distil": None, "hardness": 0.0, "spread_out": 0.0}
    assert plus.phases["tuned"].model_copy(update=changed) == plain.phases["tuned"]
    untaught = plus.phases["tuned"].model_copy(update={"from_": "softened", "distil": None})
    assert plus.phases["untaught"] == untaught
