"""mteb tasks over the Parquet files of a folder of tasks: mteb's own task classes, data of our own."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTask,
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
)
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from raysberta.errors import InputError
from raysberta.evaluation.facts import TaskFacts
from raysberta.evaluation.guard import Half
from raysberta.evaluation.task_folder import Index

SEED = 42
MAIN_SCORE = {
    "Retrieval": "ndcg_at_10",
    "BitextMining": "f1",
    "PairClassification": "max_ap",
    "Classification": "accuracy",
    "Clustering": "v_measure",
}


def load(folder: Path, index: Index, half: Half, names: Iterable[str]) -> dict[str, AbsTask]:
    """Fresh task instances by name, which start from the same random state every time."""
    made: dict[str, Callable[[TaskMetadata, Path], AbsTask]] = {
        "Retrieval": HeldOutRetrieval,
        "BitextMining": HeldOutBitextMining,
        "PairClassification": HeldOutPairClassification,
        "Classification": HeldOutClassification,
        "Clustering": HeldOutClustering,
    }
    tasks = {name: made[index.tasks[name].type](metadata(name, index.tasks[name], half), folder / half / name) for name in names}
    for task in tasks.values():
        task.load_data()  # mteb empties a task whose data it loaded itself, its metadata with it
    return tasks


def metadata(name: str, entry: TaskFacts, half: Half) -> TaskMetadata:
    """What mteb wants to know of a task. Its name differs by half, so results of the two never mix."""
    labelled = entry.type in ("Classification", "Clustering")
    return TaskMetadata(
        name=f"{name}.{half}",
        description=f"Held-out {half} half of {entry.source}{f', pairs {entry.pair}' if entry.pair else ''}.",
        dataset={"path": f"raysberta/{name}", "revision": entry.halves[half].revision},
        type=entry.type,
        category="t2c" if labelled else "t2t",
        eval_splits=["test"],
        eval_langs=[language_script(entry.language)],
        main_score=MAIN_SCORE[entry.type],
        annotations_creators="derived",
        sample_creation="found",
    )


def language_script(code: str) -> str:
    """`ru` to `rus-Cyrl`.

    Raises:
        InputError: no such language.
    """
    language = _table("iso_639_1_to_3.json").get(code, "")
    script = _table("iso_639_3_to_default_script.json").get(language)
    if script is None:
        raise InputError(f"language {code!r}: not a two-letter code that mteb knows; right would be ru or en")
    return f"{language}-{script}"


class HeldOutRetrieval(AbsTaskRetrieval):
    """Queries against a corpus; scored by nDCG@10."""

    k_values = (1, 3, 5, 10, 100)

    def __init__(self, metadata: TaskMetadata, folder: Path) -> None:
        self.metadata = metadata
        self.folder = folder
        super().__init__(seed=SEED)

    def load_data(self, *_: Any, **__: Any) -> None:
        """Read queries, corpus and relevance."""
        relevant: dict[str, dict[str, int]] = defaultdict(dict)
        for row in pq.read_table(self.folder / "relevant.parquet").to_pylist():
            relevant[row["query_id"]][row["corpus_id"]] = 1
        data: RetrievalSplitData = {
            "corpus": _dataset(self.folder, "corpus"),
            "queries": _dataset(self.folder, "queries"),
            "relevant_docs": dict(relevant),
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": data}}
        self.data_loaded = True


class HeldOutBitextMining(AbsTaskBitextMining):
    """Each sentence's translation among all; scored by F1."""

    def __init__(self, metadata: TaskMetadata, folder: Path) -> None:
        self.metadata = metadata
        self.folder = folder
        super().__init__(seed=SEED)

    def load_data(self, *_: Any, **__: Any) -> None:
        """Read the pairs."""
        self.dataset = DatasetDict({"test": _dataset(self.folder, "pairs")})
        self.data_loaded = True


class HeldOutPairClassification(AbsTaskPairClassification):
    """Same label or not; scored by average precision."""

    def __init__(self, metadata: TaskMetadata, folder: Path) -> None:
        self.metadata = metadata
        self.folder = folder
        super().__init__(seed=SEED)

    def load_data(self, *_: Any, **__: Any) -> None:
        """Read the pairs."""
        self.dataset = DatasetDict({"test": _dataset(self.folder, "pairs")})
        self.data_loaded = True


class HeldOutClassification(AbsTaskClassification):
    """A linear probe, ten draws of eight texts a label; scored by accuracy."""

    def __init__(self, metadata: TaskMetadata, folder: Path) -> None:
        self.metadata = metadata
        self.folder = folder
        super().__init__(seed=SEED)

    def load_data(self, *_: Any, **__: Any) -> None:
        """Read the probe's two sides."""
        self.dataset = DatasetDict({name: _dataset(self.folder, name) for name in ("train", "test")})
        self.data_loaded = True


class HeldOutClustering(AbsTaskClustering):
    """k-means on ten bootstrap draws; scored by V-measure."""

    max_fraction_of_documents_to_embed = None  # mteb embeds 4 % where nothing is said, which suits its large sets only
    input_column_name = "text"
    label_column_name = "label"

    def __init__(self, metadata: TaskMetadata, folder: Path) -> None:
        self.metadata = metadata
        self.folder = folder
        super().__init__(seed=SEED)

    def load_data(self, *_: Any, **__: Any) -> None:
        """Read the texts; a draw is as large as their number."""
        texts = _dataset(self.folder, "texts")
        self.max_documents_per_cluster = len(texts)
        self.dataset = DatasetDict({"test": texts})
        self.data_loaded = True


def _dataset(folder: Path, name: str) -> Dataset:
    return Dataset(pq.read_table(folder / f"{name}.parquet"))


@cache
def _table(name: str) -> dict[str, str]:
    """A language table that mteb carries."""
    return json.loads((files("mteb.languages") / name).read_text(encoding="utf-8"))
