"""A score taken apart: one row for each query, pair or text of a task, from which the score and its draws are computed again.

Three kinds of table, told apart by their columns:
- `value`: the score is the mean of it (nDCG of a query, a pair's part of the F1, how many of the probes know a text);
- `label` and one column `alike.<measure>` a measure: the score is the highest average precision of any of them;
- `label` and, for each of mteb's draws, `cluster.<number>` with `times.<number>`, how often mteb drew the text: the score is the mean
  V-measure.
"""

import numpy as np
import pyarrow as pa

from raysberta.evaluation.bootstrap import average_precisions, counts, means, v_measures
from raysberta.schema import text_id

VALUE, LABEL = "value", "label"
ALIKE, CLUSTER, TIMES = "alike.", "cluster.", "times."


def score(items: pa.Table) -> float:
    """The score of all items, each once."""
    return float(_scores(items, np.ones((1, items.num_rows), np.int32))[0])


def draws(items: pa.Table, seed: int) -> np.ndarray:
    """The score of each draw, float64 [bootstrap.DRAWS]. Of one task and seed the draws hold the same items whatever the model."""
    return np.concatenate([_scores(items, drawn) for drawn in counts(items.num_rows, seed)])


def seed_of(task: str, revision: str) -> int:
    """The seed of a task's draws: the same for every model, another for every task."""
    return int(text_id("draws", task, revision), 16)


def _scores(items: pa.Table, drawn: np.ndarray) -> np.ndarray:
    columns = {name: items.column(name).to_numpy() for name in items.column_names}
    if VALUE in columns:
        return means(columns[VALUE], drawn)
    alike = _distinct([values for name, values in columns.items() if name.startswith(ALIKE)])
    if alike:
        return np.max([average_precisions(values, columns[LABEL], drawn) for values in alike], axis=0)
    clusters = [name.removeprefix(CLUSTER) for name in columns if name.startswith(CLUSTER)]
    found = [v_measures(columns[LABEL], columns[CLUSTER + each], drawn * columns[TIMES + each]) for each in clusters]
    return np.mean(found, axis=0)


def _distinct(measures: list[np.ndarray]) -> list[np.ndarray]:
    """Those that rank the items otherwise than those before: of normalised vectors cosine and dot product say the same."""
    ranks = [np.unique(values, return_inverse=True)[1] for values in measures]
    return [values for place, values in enumerate(measures) if not any((ranks[place] == other).all() for other in ranks[:place])]
