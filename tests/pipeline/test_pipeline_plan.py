"""Plans: fingerprints that share, what is there already, priority, several recipes, estimates."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from raysberta.errors import InputError
from raysberta.nodes import KINDS
from raysberta.parsing import load, load_all
from raysberta.pipeline.plan import Plan, estimates, plan
from raysberta.pipeline.stages import missing, stage_of, workers_of
from raysberta.storage.artifacts import Store

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"


def ids(changes: Sequence[str], store: Store) -> dict[str, str]:
    recipe = load(SMOKE, changes)
    return dict(plan([recipe], store).ids[recipe.name])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("store")))


def changed(changes: Sequence[str], store: Store) -> set[str]:
    before, after = ids((), store), ids(changes, store)
    return {name for name in before.keys() & after.keys() if before[name] != after[name]}


@pytest.mark.parametrize(
    ("change", "touches", "spares"),
    [
        ("phases.tuned.search.concurrent=3", set(), {"tuned", "search_tuned"}),
        ("phases.general.checkpoint_every=3", set(), {"general"}),
        ("phases.general.recompute=true", set(), {"general"}),
        ("resources.mlm={workers: 2}", set(), {"adapted"}),
        ("limits.lease_seconds=9", set(), {"corpus"}),
        ("publishing.model_name=x", {"release"}, {"merged", "score_merged"}),
        ("scoring.max_tokens=32", {"score_e5", "search_tuned", "general", "tuned"}, {"adapted", "mined"}),
        (
            "tasks.Extra={type: Retrieval, source: docstrings, pair: summary_body, language: en}",
            {"tasks", "score_e5"},
            {"tuned", "general"},
        ),
        ("phases.tuned.temperature=0.5", {"tuned", "search_tuned", "merged"}, {"general", "mined_again", "score_e5"}),
        ("examples.mined_again.mine.ranks=[4, 20]", {"mined_again", "tuned", "merged"}, {"general", "mined"}),
        ("written.questions.passages=5", {"questions", "mined", "general"}, {"natural", "adapted", "tasks"}),
        ("seed=7", {"questions", "adapted", "general"}, {"corpus", "natural", "tasks", "e5", "score_e5"}),
        ("sources.intents.limit=50", {"corpus", "natural"}, {"e5", "writer"}),
        ("sources.interface.pairs={translation: topic}", {"natural"}, {"corpus"}),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_nothing_else(change: str, touches: set[str], spares: set[str], store: Store) -> None:
    found = changed([change], store)
    assert touches <= found
    assert not spares & found
    if not touches:
        assert not found


def test_a_nodes_name_is_no_part_of_it(store: Store) -> None:
    recipe = load(SMOKE)
    renamed = recipe.model_copy(update={"name": "renamed"})
    text = SMOKE.read_text().replace("softened", "mixed")
    file = Path(store.uri) / "renamed.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    other = load(file)
    assert plan([other], store).ids[other.name]["mixed"] == plan([recipe], store).ids[recipe.name]["softened"]
    first, second = plan([recipe], store).ids["smoke"], plan([renamed], store).ids["renamed"]
    assert {name for name in first if first[name] != second[name]} == {"release"}


def test_several_recipes_are_one_plan_with_shared_nodes_once(store: Store) -> None:
    recipes = load_all([SMOKE], vary=["phases.tuned.learning_rate=1.0e-4,1.0e-5", "seed=1,2"])
    made = plan(recipes, store)
    assert [recipe.name for recipe in recipes] == [
        f"smoke-learning_rate={rate}-seed={seed}" for rate in ("0.0001", "1e-05") for seed in (1, 2)
    ]
    kinds = {kind: len([item for item in made.nodes if item.node.kind == kind]) for kind in KINDS}
    assert (kinds["corpus"], kinds["natural"], kinds["tasks"]) == (1, 1, 3)
    assert (kinds["written"], kinds["mlm"]) == (2, 2), "one a seed"
    assert kinds["contrastive"] == 2 + 4 and kinds["release"] == 4
    titles = [item.title for item in made.nodes]
    assert len(set(titles)) == len(titles), "each is told by its title"
    assert "corpus" in titles and "tuned (smoke-learning_rate=0.0001-seed=1)" in titles
    order = {item.id: place for place, item in enumerate(made.nodes)}
    assert all(order[feed] < order[item.id] for item in made.nodes for feed in item.inputs.values())


def test_the_longest_chain_goes_first(store: Store) -> None:
    made = plan([load(SMOKE)], store)
    chain = {item.node.name: made.chains[item.id] for item in made.nodes}
    assert chain["release"] == 1 and chain["score_merged"] == 2 and chain["merged"] == 3
    assert chain["corpus"] == max(chain.values()) - 1, "only the model whose tokenizer it counts with stands before it"
    assert chain["mined"] > chain["tasks"], "what training waits for goes before what only scores wait for"


def test_until_stops_there(store: Store) -> None:
    made = plan([load(SMOKE)], store, ["mined"])
    assert {item.node.name for item in made.nodes} == {"e5", "searcher", "writer", "corpus", "natural", "questions", "mined"}
    with pytest.raises(InputError, match=r"no node 'mind' .*mined"):
        plan([load(SMOKE)], store, ["mind"])


def test_what_is_there_is_found_and_times_are_estimated_from_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    made = plan([load(SMOKE)], store, ["tuned"])
    assert not estimates(made.nodes, store)
    [e5] = [item for item in made.nodes if item.node.name == "e5"]
    store.commit(store.draft("model", e5.fingerprint), "model", e5.fingerprint, e5.identity, {}, 42, time.time() - 30)
    again = plan([load(SMOKE)], store, ["tuned"])
    assert [item.node.name for item in again.nodes if item.artifact is not None] == ["e5"]
    found = estimates(again.nodes, store)
    names = {item.node.name: item.id for item in again.nodes}
    assert found.keys() == {names["searcher"], names["writer"]}, "of kinds that were made before"
    assert all(29 < seconds < 40 for seconds in found.values())


def test_every_kind_has_a_stage_and_a_place() -> None:
    made: Plan = plan([load(SMOKE)], Store("unused"))
    kinds = {item.node.kind for item in made.nodes}
    assert kinds == set(KINDS) - {"benchmark", "centre", "compose", "align"}
    for item in made.nodes:
        assert item.stage == stage_of(item.node)
        assert item.stage.version >= 1
    recipe = load(SMOKE, ["resources={contrastive: {workers: 3, cpus: 4}, tuned: {cpus: 2}}"])
    nodes = {item.node.name: item.node for item in made.nodes}
    assert (workers_of(recipe, nodes["general"]).workers, workers_of(recipe, nodes["general"]).cpus) == (3, 4)
    assert (workers_of(recipe, nodes["tuned"]).workers, workers_of(recipe, nodes["tuned"]).cpus) == (3, 2), "by kind, then by name"
    assert workers_of(recipe, nodes["corpus"]).workers == 2, "the stage's own"


def test_what_is_missing_outside_is_named() -> None:
    recipe = load(SMOKE, ["sources.own={kind: files, path: /no/such/folder}", "models.e5.from=path:/no/model"])
    found = [problem for item in plan([recipe], Store("unused")).nodes for problem in missing(item.node)]
    assert any("sources.own.path" in problem and "/no/such/folder" in problem for problem in found)
    assert any("models.e5" in problem and "/no/model" in problem for problem in found)
    assert not [problem for item in plan([load(SMOKE)], Store("unused")).nodes for problem in missing(item.node)]
