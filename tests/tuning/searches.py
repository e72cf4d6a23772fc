"""What the tests of searches try: phases over small models, and the rates of learning that tell them apart."""

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from raysberta.evaluation.settings import OwnTask, Scoring
from raysberta.storage.artifacts import Artifact, Store
from raysberta.tuning.node import SearchTrials
from raysberta.tuning.trials import Trials
from raysberta.work import Work

TASKS = {"Home": OwnTask(type="Retrieval", source="home", pair="heading_section", language="ru", queries=40, documents=80)}
HOW = Scoring(max_tokens=24)
CONTRASTIVE = {
    "kind": "contrastive",
    "from": "base",
    "examples": ("mined", "written"),
    "batch_size": 8,
    "negatives": 1,
    "query_tokens": 24,
    "document_tokens": 24,
    "warmup_steps": 1,
    "learning_rate": 1e-4,
}
MERGE = {"kind": "merge", "of": ("spoiled", "base")}
MLM = {"kind": "mlm", "from": "base", "batch_size": 16, "max_tokens": 24, "warmup_steps": 1, "learning_rate": 1e-4}

MakeWork = Callable[..., Work[SearchTrials]]
MakeTrials = Callable[..., Trials]
HARMLESS, ABSURD = 1e-7, 0.05
"""Rates of learning: one under which the model stays what it was, and one under which it forgets everything in two steps."""


def commit_folder(store: Store, kind: str, source: Path, name: str = "model", facts: BaseModel | None = None) -> Artifact:
    draft = store.draft(kind, "f")
    with draft.folder(name) as folder:
        for file in source.rglob("*"):
            if file.is_file():
                target = folder / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    return store.commit(draft, kind, "f", {}, {}, 1, 0.0, facts)
