"""What a run prints at its end, over releases in a real store."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from raysberta.parsing import load_all
from raysberta.pipeline.execution import Outcome
from raysberta.pipeline.plan import Plan
from raysberta.pipeline.results import results
from raysberta.publishing.facts import Estimate, Exported, ReleaseFacts, Row, TaskTable
from raysberta.publishing.verdict import verdict
from raysberta.storage.artifacts import Artifact, Store

ROOT = Path(__file__).parents[2]


def estimate(value: float, width: float | None = 1.0) -> Estimate:
    return Estimate(value=value, interval=None if width is None else (value - width, value + width))


def table(scores: dict[str, tuple[float, float]], width: float | None = 1.0) -> TaskTable:
    """Tasks with the scores of base and final model; changes are as uncertain as `width` says."""
    rows = [
        Row(
            task=task,
            type="Retrieval",
            metric="ndcg_at_10",
            scored=None,
            scores={"e5": estimate(base), "merged": estimate(final)},
            change=estimate(final - base, width),
        )
        for task, (base, final) in scores.items()
    ]
    means = [sum(pair[side] for pair in scores.values()) / len(scores) if scores else None for side in (0, 1)]
    if means[0] is None or means[1] is None:
        return TaskTable(rows=[], means={"e5": None, "merged": None}, change=None)
    ends = {model: estimate(mean) for model, mean in zip(("e5", "merged"), means, strict=True)}
    return TaskTable(rows=rows, means=ends, change=estimate(means[1] - means[0], width))


def release(store: Store, mark: str, final: float, general: dict[str, tuple[float, float]] | None = None) -> Artifact:
    model = Exported(dimension=384, max_tokens=512, parameters=7, difference=0.0, own_parts=False, not_served="")
    own = table({"Dictionary": (30.0, final), "Bitext": (80.0, 79.5)})
    facts = ReleaseFacts(own=own, general=table(general or {}), base="e5", final="merged", model=model)
    return store.commit(store.draft("release", mark), "release", mark, {}, {}, 42, time.time(), facts)


def printed(parts: list) -> str:
    out = io.StringIO()
    for part in parts:
        Console(file=out, width=140).print(part)
    return out.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_one_recipe_has_its_table_its_places_and_one_object(store: Store) -> None:
    recipes = load_all([ROOT / "recipes" / "smoke.yaml"])
    made = release(store, "aa", 40.0)
    plan = Plan(recipes, [], {"smoke": {"release": made.manifest.id}})
    parts, result = results(plan, Outcome({made.manifest.id: made}, ["corpus"]), store, [], 12.34)
    text = printed(parts)
    assert "Dictionary" in text and "+10.00 [+9.0, +11.0]" in text and "40.00 ± 1.0" in text
    assert "-0.50 [-1.5, +0.5], no clear change" in text and "No task clearly got worse." in text
    assert text.index("final model gains 4.75 points: 55.00 to 59.75") < text.index("own tasks: test halves")
    assert "Nothing tells how the model does where it was not trained" in text and "general tasks:" not in text
    link = Path(store.uri) / "latest-smoke"
    assert result == {
        "recipe": "smoke",
        "model": f"{link}/model",
        "report": f"{link}/report/report.html",
        "base": "e5",
        "own_base": 55.0,
        "own_final": 59.75,
        "general_base": None,
        "general_final": None,
        "seconds": 12.3,
        "reused": ["corpus"],
    }
    assert f"model:  {link}/model" in text.replace("\n", "")


def test_a_loss_where_it_was_not_trained_comes_first(store: Store) -> None:
    recipes = load_all([ROOT / "recipes" / "smoke.yaml"])
    made = release(store, "aa", 40.0, {"Kept": (50.0, 44.0), "Public": (60.0, 60.2)})
    plan = Plan(recipes, [], {"smoke": {"release": made.manifest.id}})
    parts, result = results(plan, Outcome({made.manifest.id: made}, []), store, [], 1.0)
    text = printed(parts)
    assert text.startswith("On the mean of 2 general tasks, where it was not trained, the final model loses 2.90 points: 55.00 to 52.10,")
    assert "Worse than the base on general tasks: Kept (-6.00 [-7.0, -5.0])." in text and "Public (" not in text
    assert text.index("loses") < text.index("gains") < text.index("own tasks: test halves") < text.index("general tasks: test halves")
    assert (result["general_base"], result["general_final"], result["own_final"]) == (55.0, pytest.approx(52.1), 59.75)


def test_of_many_models_the_first_and_the_final_one_have_columns_and_all_have_their_means(store: Store) -> None:
    recipes = load_all([ROOT / "recipes" / "smoke.yaml"])
    facts = release(store, "aa", 40.0, {"Kept": (50.0, 44.0)}).told(ReleaseFacts)
    between = {f"step{number}": estimate(50.0 + number) for number in range(5)}
    sides = {name: getattr(facts, name) for name in ("own", "general")}
    wide = {
        name: side.model_copy(update={"means": {"e5": side.means["e5"], **between, "merged": side.means["merged"]}})
        for name, side in sides.items()
    }
    made = store.commit(store.draft("release", "bb"), "release", "bb", {}, {}, 42, time.time(), facts.model_copy(update=wide))
    parts, _ = results(Plan(recipes, [], {"smoke": {"release": made.manifest.id}}), Outcome({made.manifest.id: made}, []), store, [], 1.0)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed(parts).splitlines() if "│" in line]
    assert ["step3", "53.00 ± 1.0", "53.00 ± 1.0"] in lines and ["merged", "59.75 ± 1.0", "44.00 ± 1.0"] in lines
    assert not any("step3" in cell for line in lines for cell in line[1:])
    assert "means of every scored model" not in printed(
        results(
            Plan(recipes, [], {"smoke": {"release": made.manifest.id}}),
            Outcome({made.manifest.id: store.find("release", "aa")}, []),
            store,
            [],
            1.0,
        )[0]
    )


def test_what_has_no_interval_is_called_no_change() -> None:
    (general, own) = verdict(table({"Own": (1.0, 2.0)}, None), table({"Public": (50.0, 40.0)}, None), "e5", "merged")
    assert general.text.endswith("the final model is 10.00 points below the base: 50.00 to 40.00; no interval is known.") and general.bad
    assert own.text.endswith("is 1.00 points above the base: 1.00 to 2.00; no interval is known.") and not own.bad
    assert verdict(table({}), table({}), "e5", "merged") == []


def test_several_recipes_have_one_table(store: Store) -> None:
    recipes = load_all([ROOT / "recipes" / "smoke.yaml"], vary=["seed=1,2"])
    made = {"smoke-seed=1": release(store, "aa", 40.0), "smoke-seed=2": release(store, "bb", 20.0)}
    ids = {name: {"release": artifact.manifest.id} for name, artifact in made.items()}
    parts, result = results(Plan(recipes, [], ids), Outcome({item.manifest.id: item for item in made.values()}), store, [], 1.0)
    text = printed(parts)
    assert [line.split("│")[1].strip() for line in text.splitlines() if "smoke-seed" in line and "│" in line] == list(made)
    assert "+4.75" in text and "-5.25" in text and text.count("means of the") == 1
    assert [one["own_final"] for one in result["recipes"]] == [59.75, 49.75]
    assert "Nothing tells" not in text


def test_nodes_that_were_asked_for_are_named_by_their_place(store: Store) -> None:
    recipes = load_all([ROOT / "recipes" / "smoke.yaml"])
    pairs = store.commit(store.draft("natural", "cc"), "natural", "cc", {}, {}, 42, time.time())
    plan = Plan(recipes, [], {"smoke": {"natural": pairs.manifest.id}})
    parts, result = results(plan, Outcome({pairs.manifest.id: pairs}), store, ["natural"], 1.0)
    assert result["nodes"] == {"natural": pairs.uri}
    assert "model" not in result
    assert pairs.uri in printed(parts).replace("\n", "")
