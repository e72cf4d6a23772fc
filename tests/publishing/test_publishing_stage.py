"""The stage through Ray and the artifact store: a real model, the manifests of a run."""

import os
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pytest
from sentence_transformers import SentenceTransformer

from raysberta.artifacts import Artifact, Manifest, Store
from raysberta.publishing import stage
from raysberta.recipe import Recipe


def test_publish(ray_local: None, recipe: Recipe, stages: dict[str, Manifest], samples: list, e5_folder: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    inputs = {name: Artifact(item, str(tmp_path / name)) for name, item in stages.items()}
    merged = store.draft("merge", "f" * 16)
    with merged.folder("model") as folder:
        shutil.copytree(e5_folder, folder, copy_function=os.link, dirs_exist_ok=True)
    merged.metrics = stages["merge"].metrics
    inputs["merge"] = store.commit(merged, "merge", "f" * 16, {}, {}, 42, time.time())
    written = store.draft("synthesis", "e" * 16)
    written.write_table("generations", pa.Table.from_pylist(samples))
    written.metrics = stages["synthesis"].metrics
    inputs["synthesis"] = store.commit(written, "synthesis", "e" * 16, {}, {}, 42, time.time())

    draft = store.draft("publish", "d" * 16)
    stage.publish(recipe, inputs, draft)
    published = store.commit(draft, "publish", "d" * 16, {}, {}, 42, time.time())

    metrics = published.manifest.metrics
    assert metrics["worse"] == ["WordSense"]
    assert metrics["base_mean"] == pytest.approx(59.438, abs=1e-3) and metrics["final_mean"] == pytest.approx(64.35, abs=1e-2)
    assert list(metrics["table"][0]) == ["task", "type", "base", "vocabulary", "mlm", "mlm_merged", "contrastive", "final", "change"]
    model = SentenceTransformer(str(published.folder("model")), device="cpu")
    query = model.encode(["замок на двери"], prompt_name="search_query")
    passages = model.encode(["устройство, которое запирает дверь", "рецепт яблочного пирога"], prompt_name="search_document")
    assert model.similarity(query, passages)[0].argmax() == 0
    assert (published.folder("model") / "README.md").read_text(encoding="utf-8").startswith("---\nlanguage:")
    html = (published.folder("report") / "report.html").read_text(encoding="utf-8")
    assert "WordSense (-1.41)" in html and "How do I add up elements as I go?" in html
