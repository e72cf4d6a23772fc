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
from raysberta.publishing.facts import Exported, ReleaseFacts, Row
from raysberta.storage.artifacts import Artifact, Store

ROOT = Path(__file__).parents[2]


def release(store: Store, mark: str, final: float) -> Artifact:
    rows = [
        Row(task="Dictionary", type="Retrieval", scores={"e5": 30.0, "merged": final}, change=final - 30.0),
        Row(task="Bitext", type="BitextMining", scores={"e5": 80.0, "merged": 79.0}, change=-1.0),
    ]
    model = Exported(dimension=384, max_tokens=512, parameters=7, difference=0.0)
    means = {"base_mean": 55.0, "final_mean": (final + 79) / 2}
    facts = ReleaseFacts(table=rows, base="e5", **means, worse=["Bitext"], model=model)
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
    assert "Dictionary" in text and "+10.00" in text and "got worse: Bitext" in text
    link = Path(store.uri) / "latest-smoke"
    assert result == {
        "recipe": "smoke",
        "model": f"{link}/model",
        "report": f"{link}/report/report.html",
        "base": "e5",
        "base_mean": 55.0,
        "final_mean": 59.5,
        "seconds": 12.3,
        "reused": ["corpus"],
    }
    assert f"model:  {link}/model" in text.replace("\n", "")


def test_several_recipes_have_one_table(store: Store) -> None:
    recipes = load_all([ROOT / "recipes" / "smoke.yaml"], vary=["seed=1,2"])
    made = {"smoke-seed=1": release(store, "aa", 40.0), "smoke-seed=2": release(store, "bb", 20.0)}
    ids = {name: {"release": artifact.manifest.id} for name, artifact in made.items()}
    parts, result = results(Plan(recipes, [], ids), Outcome({item.manifest.id: item for item in made.values()}), store, [], 1.0)
    text = printed(parts)
    assert [line.split("│")[1].strip() for line in text.splitlines() if "smoke-seed" in line and "│" in line] == list(made)
    assert "+4.50" in text and "-5.50" in text
    assert [one["final_mean"] for one in result["recipes"]] == [59.5, 49.5]
    assert "got worse" not in text


def test_nodes_that_were_asked_for_are_named_by_their_place(store: Store) -> None:
    recipes = load_all([ROOT / "recipes" / "smoke.yaml"])
    pairs = store.commit(store.draft("natural", "cc"), "natural", "cc", {}, {}, 42, time.time())
    plan = Plan(recipes, [], {"smoke": {"natural": pairs.manifest.id}})
    parts, result = results(plan, Outcome({pairs.manifest.id: pairs}), store, ["natural"], 1.0)
    assert result["nodes"] == {"natural": pairs.uri}
    assert "model" not in result
    assert pairs.uri in printed(parts).replace("\n", "")
