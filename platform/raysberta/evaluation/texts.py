"""The texts that tasks ask vectors of, known before anything is embedded: mteb is run once and given vectors that say nothing.

So they are as mteb itself chooses, draws and joins them; a text that several tasks ask is embedded once; and all workers share the work,
whatever its tasks are. They lie on storage, one file a task, for all models that are given the same prefixes.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mteb.abstasks import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata

from raysberta.evaluation.encoder import PrefixedEncoder
from raysberta.evaluation.units import ASKED, UNIT, digests
from raysberta.prefixes import Prefixes


def list_texts(task: AbsTask, prefixes: Prefixes, overrides: Mapping[str, str] | None, file: Path) -> int:
    """Write the texts that a task asks, in its order, row groups of UNIT (schema ASKED); how many there are.

    Memory: UNIT texts and what mteb holds of the task.

    Args:
        task: An instance that nobody else evaluates.
        prefixes: What the model is given to read before a text.
        overrides: Prefixes of single tasks by mteb name.
        file: Where to write.
    """
    with _Asked(file) as asked, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vectors that are all the same have no order, no clusters and no correlation
        encoder = _Listing(asked, prefixes, "raysberta/none", "none", overrides)
        with _without_scores(task):
            for split in task.eval_splits:
                task.evaluate(encoder, split, encode_kwargs={"batch_size": UNIT, "show_progress_bar": False})
    return asked.rows


class _Listing(PrefixedEncoder):
    """Asks all of a corpus and looks for nothing in it."""

    def _nearest(self, asked: np.ndarray, count: int, task: TaskMetadata) -> tuple[np.ndarray, np.ndarray]:
        super()._nearest(asked[:0], count, task)
        return np.zeros((len(asked), 0), np.float32), np.zeros((len(asked), 0), np.int64)


class _Asked:
    """An embedding function that writes its texts down."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.waiting: list[str] = []
        self.rows = 0

    def __enter__(self) -> "_Asked":
        self.writer = pq.ParquetWriter(self.file, ASKED, compression="zstd")
        return self

    def __exit__(self, *_: object) -> None:
        self._write(self.waiting)
        self.writer.close()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, 1], zeros: mteb goes on with them as with any others, and draws what it would have drawn."""
        self.waiting.extend(texts)
        self.rows += len(texts)
        whole = len(self.waiting) // UNIT * UNIT
        for start in range(0, whole, UNIT):
            self._write(self.waiting[start : start + UNIT])
        del self.waiting[:whole]
        return np.zeros((len(texts), 1), np.float32)

    def _write(self, texts: Sequence[str]) -> None:
        if texts:
            self.writer.write_table(pa.table({"text": texts, "digest": digests(texts)}, ASKED), row_group_size=UNIT)


@contextmanager
def _without_scores(task: AbsTask) -> Iterator[None]:
    """No score comes of it, and one that cannot be computed of such vectors stops nothing."""
    evaluate = task._evaluate_subset

    def asked_only(*given: Any, **named: Any) -> dict[str, float]:
        with suppress(ValueError, ArithmeticError, LookupError):
            evaluate(*given, **named)
        return {task.metadata.main_score: 0.0}

    task._evaluate_subset = asked_only  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        task._evaluate_subset = evaluate  # type: ignore[method-assign]
