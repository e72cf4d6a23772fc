"""The stage of the node `release`: the final model with its card, and the report on all nodes of the recipe."""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import ray

from raysberta.publishing.facts import ReleaseFacts
from raysberta.publishing.settings import Release
from raysberta.schema import text_id
from raysberta.storage.artifacts import Artifact
from raysberta.work import Work

if TYPE_CHECKING:  # the process that leads the stage draws nothing
    from raysberta.publishing.gather import Scores, Told
    from raysberta.publishing.lineage import Lineage

log = logging.getLogger(__name__)

SAMPLES_EACH = 5


def release(work: Work[Release]) -> ReleaseFacts:
    """Folders `model` (for SentenceTransformer), `model_<name>` of each published beside it, and `report` (report.html).

    Raises:
        InputError: a manifest was written by another version.
        RuntimeError: a published model gives other vectors than the one it is a copy of.
    """
    told: ReleaseFacts = ray.get(_write.options(name=work.node or "release", num_cpus=work.workers.cpus).remote(work))
    tables = (told.own, told.general)
    work.draft.rows_out = sum(len(table.rows) for table in tables)
    counted = ", ".join(f"{len(table.rows)} {name} tasks" for name, table in zip(("own", "general"), tables, strict=True))
    worse = sum(len(table.worse) for table in tables)
    log.info("%s: %.1fM parameters, %s, %d got worse", work.node, told.model.parameters / 1e6, counted, worse)
    return told


@ray.remote(max_retries=0)
def _write(work: Work[Release]) -> ReleaseFacts:
    """Export, card and report, in a process of their own: they load the model twice."""
    from raysberta.publishing import gather, lineage
    from raysberta.publishing.report import report

    settings = work.settings
    names = dict.fromkeys([*settings.nodes, *settings.scores, settings.base, settings.final])
    found = lineage.read({str(name): work.inputs[name].manifest for name in names})
    drawn = {str(name): draws(work.inputs[name]) for name in settings.scores}
    told = _published(work, settings, gather.scores(settings, found, drawn), found, "model")
    beside = {}
    for name in settings.about.beside:
        about = settings.about.model_copy(update={"model_name": f"{settings.about.model_name}-{name}"})
        own = settings.model_copy(update={"final": name, "about": about})
        beside[str(name)] = _published(work, own, gather.scores(own, found, drawn), found, f"model_{name}").model
    with work.draft.folder("report") as folder:
        shown = {node.name: samples(work.inputs[node.name], work.seed) for node in found if node.kind == "written"}
        (folder / "report.html").write_text(report(told, shown), encoding="utf-8")
    ends = {"base": str(settings.base), "final": str(settings.final)}
    return ReleaseFacts(own=told.scores.own, general=told.scores.general, model=told.model, beside=beside, **ends)


def _published(work: Work[Release], settings: Release, scores: "Scores", found: "Lineage", name: str) -> "Told":
    """Write the final model of the settings, which may be those of a model beside it, and its card to the folder of a name."""
    from raysberta.models.describe import describe
    from raysberta.publishing.card import card
    from raysberta.publishing.export import export
    from raysberta.publishing.gather import Told

    with work.draft.folder(name) as folder:
        exported = export(work.inputs[settings.final].folder("model"), folder)
        told = Told(settings, found, scores, exported, describe(folder))
        (folder / "README.md").write_text(card(told), encoding="utf-8")
    return told


def draws(scores: Artifact) -> dict[str, np.ndarray]:
    """By task, a model's score in each draw of the bootstrap, float64 [draws]."""
    return {row["task"]: np.array(row["draws"]) for row in scores.table("draws").to_pylist()}


def samples(written: Artifact, seed: int) -> list[dict[str, Any]]:
    """A few kept and a few dropped generations, chosen by hash."""
    columns = ["request_id", "kind", "passage", "output", "reason"]
    rows = written.dataset("generations").to_table(columns=columns, filter=pc.field("output") != "").to_pylist()
    rows.sort(key=lambda row: text_id(str(seed), row["request_id"]))
    kept = [row for row in rows if not row["reason"]][:SAMPLES_EACH]
    return kept + [row for row in rows if row["reason"]][:SAMPLES_EACH]
