"""The stage `publish`: model folder with prompts and card, and the report."""

import logging
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
import ray

from raysberta.artifacts import Artifact, Draft
from raysberta.publishing import facts
from raysberta.recipe import Recipe
from raysberta.schema import text_id

log = logging.getLogger(__name__)

VERSION: int = 1
SAMPLES_EACH = 5
SAMPLE_COLUMNS = ["request_id", "kind", "passage", "output", "reason"]


def publish(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Folders `model` (for SentenceTransformer) and `report` (report.html).

    metrics: "table" (a row a task: task, type, each step's score x 100, change), "base_mean" and "final_mean" (x 100, None where a
    step was not scored), "worse" (names of tasks that lost), "model" (dimension, max_tokens, parameters, difference).

    Args:
        recipe: The recipe.
        inputs: Artifacts by stage name; at least `merge`. What is missing is missing in the report.
        draft: Where to write.
    """
    scores = facts.scores(facts.manifests(inputs))
    exported = ray.get(_write.options(name="publish").remote(recipe, inputs, draft))
    draft.metrics.update(
        table=scores.table(),
        base_mean=scores.means.get("base"),
        final_mean=scores.means.get("final"),
        worse=[row.task for row in scores.worse],
        model=exported,
    )
    draft.rows_out = len(scores.rows)
    log.info("%.1fM parameters, %d tasks, %d got worse", exported["parameters"] / 1e6, len(scores.rows), len(scores.worse))


@ray.remote(num_cpus=1, max_retries=0)
def _write(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> dict[str, Any]:
    """Export, card and report, in a process of their own: they load the model twice."""
    from raysberta.publishing.card import card
    from raysberta.publishing.export import export
    from raysberta.publishing.report import report

    stages = facts.manifests(inputs)
    with draft.folder("model") as folder:
        exported = export(inputs["merge"].folder("model"), folder, recipe.encoder.pooling, recipe.prefixes, recipe.encoder.max_tokens)
        (folder / "README.md").write_text(card(recipe, stages, exported), encoding="utf-8")
    with draft.folder("report") as folder:
        page = report(recipe, stages, exported, samples(inputs.get("synthesis"), recipe.seed))
        (folder / "report.html").write_text(page, encoding="utf-8")
    return exported


def samples(synthesis: Artifact | None, seed: int) -> list[dict[str, Any]]:
    """A few kept and a few dropped generations, chosen by hash."""
    if synthesis is None:
        return []
    rows = synthesis.dataset("generations").to_table(columns=SAMPLE_COLUMNS, filter=pc.field("output") != "").to_pylist()
    rows.sort(key=lambda row: text_id(str(seed), row["request_id"]))
    kept = [row for row in rows if not row["reason"]][:SAMPLES_EACH]
    return kept + [row for row in rows if row["reason"]][:SAMPLES_EACH]
