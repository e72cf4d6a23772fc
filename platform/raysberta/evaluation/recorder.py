"""What mteb predicted for each item of a task, caught while it evaluates: its results have means alone.

mteb hands what a task would save as predictions to the task's own `_save_task_predictions`, and a retrieval task's scores of each query to
its `task_specific_scores`. Both are replaced on the one task instance, own or registered, and nothing is written. Whatever mteb may
change there, items count only where the score that they give is the one that mteb gives.
"""

import logging
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from mteb.abstasks import AbsTask, AbsTaskRetrieval

from raysberta.evaluation.items import ALIKE, CLUSTER, LABEL, TIMES, VALUE, score

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""mteb rounds retrieval scores to five digits; all others agree to 1e-6."""
OF_QUERIES = {"ndcg": "ndcg_cut_", "map": "map_cut_", "recall": "recall_", "precision": "P_", "hit_rate": "success_"}
"""mteb's names of metrics at k, and those of the scores of single queries."""
DISTANCES = ("manhattan_distances", "euclidean_distances")
HEARD = Path("nothing is written")
"""Given to mteb as the folder for predictions, so that it hands them over."""


class Recorder:
    """Listens to one evaluation of a task."""

    def __init__(self, task: AbsTask) -> None:
        """Begin to listen.

        Args:
            task: An instance that nobody else evaluates.
        """
        self.task = task
        self.predictions: Any = None
        self.tables: list[pa.Table | None] = []
        self.evaluate = task._evaluate_subset
        task._evaluate_subset = self._listened  # type: ignore[method-assign]
        task._save_task_predictions = self._heard  # type: ignore[method-assign]
        if isinstance(task, AbsTaskRetrieval):
            self.specific = task.task_specific_scores
            task.task_specific_scores = self._of_queries  # type: ignore[method-assign]

    def items(self, main_score: float) -> pa.Table | None:
        """One row an item (see items.py), in an order that is the same for every model.

        Returns:
            None where mteb's type hands no predictions over, where the task has several subsets or splits, and where the items do not
            give the score that mteb gives, as of a metric that is not among those of items.py.
        """
        if len(self.tables) != 1 or self.tables[0] is None or not self.tables[0].num_rows:
            return None
        found = score(self.tables[0])
        if abs(found - main_score) <= TOLERANCE:
            return self.tables[0]
        log.warning("%s: no interval: its items give %.6f, mteb %.6f", self.task.metadata.name, found, main_score)
        return None

    def _listened(self, model: Any, data_split: Any, **given: Any) -> Any:
        state = self.task.rng_state.getstate()
        self.predictions = None
        result = self.evaluate(model, data_split, **{**given, "prediction_folder": HEARD})
        self.tables.append(self._table(data_split, given["hf_split"], state))
        return result

    def _table(self, data: Any, split: str, state: Any) -> pa.Table | None:
        try:
            return _table(self.task, self.predictions, data, split, state)
        except (KeyError, IndexError, TypeError, ValueError) as error:  # data of a registered task may have any form; its score stands
            log.warning("%s: no interval: its items cannot be read: %s: %s", self.task.metadata.name, type(error).__name__, error)
            return None

    def _heard(self, predictions: Any, *_: Any, **__: Any) -> None:
        if not isinstance(self.task, AbsTaskRetrieval):
            self.predictions = predictions

    def _of_queries(self, scores: dict[str, dict[str, float]], *more: Any, **named: Any) -> dict[str, float]:
        self.predictions = scores
        return self.specific(scores, *more, **named)


def _table(task: AbsTask, predictions: Any, data: Any, split: str, state: Any) -> pa.Table | None:
    if predictions is None:
        return None
    match str(task.metadata.type):
        case "Retrieval" | "Reranking":
            return _retrieval(predictions, task.metadata.main_score)
        case "BitextMining":
            return _bitext(predictions)
        case "PairClassification":
            return _pairs(predictions, data, task.label_column_name)  # type: ignore[attr-defined]
        case "Classification":
            return _classification(predictions, data[split][task.label_column_name])  # type: ignore[attr-defined]
        case "Clustering":
            return _clustering(task, predictions, data, state)
    return None


def _retrieval(scores: Mapping[str, Mapping[str, float]], metric: str) -> pa.Table | None:
    """What each query scores."""
    name = re.fullmatch(r"([a-z_]+)_at_(\d+)", metric)
    if name is None or name[1] not in OF_QUERIES:
        return None
    key = f"{OF_QUERIES[name[1]]}{name[2]}"
    return pa.table({VALUE: np.array([scores[query][key] for query in sorted(scores)], np.float64)})


def _bitext(neighbours: Mapping[str, Sequence[Mapping[str, float]]]) -> pa.Table | None:
    """What each pair adds to the weighted F1: its translation is a class of one, whose precision falls with every other sentence that takes
    it for its own.
    """
    if len(neighbours) != 1:
        return None
    (nearest,) = neighbours.values()
    found = np.array([each["corpus_id"] for each in nearest], np.int64)
    taken = np.bincount(found, minlength=len(found))[: len(found)]
    return pa.table({VALUE: np.where(found == np.arange(len(found)), 2.0 / (1 + taken), 0.0)})


def _pairs(measured: Mapping[str, Sequence[float]], data: Any, label: str) -> pa.Table:
    """How alike each pair is, by each measure, the distances turned."""
    labels = data[label] if len(data) != 1 else data[0][label]
    alike = {f"{ALIKE}{name}": np.array(values, np.float64) * (-1 if name in DISTANCES else 1) for name, values in measured.items()}
    return pa.table({LABEL: np.array(labels, np.int64), **alike})


def _classification(predictions: Sequence[Sequence[Any]], labels: Sequence[Any]) -> pa.Table:
    """The share of the probes that know each text."""
    right = np.array([[found == label for found, label in zip(probe, labels, strict=True)] for probe in predictions], np.float64)
    return pa.table({VALUE: right.mean(0)})


def _clustering(task: Any, assigned: Mapping[str, Sequence[Sequence[int]]], data: Any, state: Any) -> pa.Table | None:
    """Label of each text, and its cluster in each of mteb's draws, which are drawn again from the same state."""
    limits = (getattr(task, "max_document_to_embed", 0), getattr(task, "max_fraction_of_documents_to_embed", 0))
    if list(assigned) != ["Level 0"] or any(limit is not None for limit in limits):
        return None
    labels = [label[0] if isinstance(label, list) else label for label in data[task.label_column_name]]
    columns: dict[str, np.ndarray] = {LABEL: np.unique(labels, return_inverse=True)[1].astype(np.int64)}
    drawing = random.Random()
    drawing.setstate(state)
    for number, clusters in enumerate(assigned["Level 0"]):
        chosen = np.array(drawing.choices(range(len(labels)), k=len(clusters)))
        columns[f"{CLUSTER}{number}"] = np.full(len(labels), -1, np.int64)
        columns[f"{CLUSTER}{number}"][chosen] = clusters  # a text that is drawn twice has one vector, and so one cluster
        columns[f"{TIMES}{number}"] = np.bincount(chosen, minlength=len(labels)).astype(np.int64)
    return pa.table(columns)
