"""Pairs whose sides an encoder finds unlike: translations that are none, which a rule over one side alone does not see."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from raysberta.models.describe import describe
from raysberta.pairs.compare import UNLIKE
from raysberta.pairs.settings import Alike
from raysberta.pairs.spread import SIDES
from raysberta.retrieval.embed import Embedder
from raysberta.storage.artifacts import Artifact
from raysberta.storage.runs import Run, read_runs

ROWS = 16_384
"""Pairs of a range, about: what an actor is given at once, and so what is embedded together."""


class Compare:
    """An actor with the encoder, fetched to its own node where storage is remote. Memory: the model, and texts and vectors of a range."""

    def __init__(self, alike: Alike, model: Artifact, runs: Sequence[Run], cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        folder = model.folder("model")
        self.alike, self.runs, self.prefix = alike, runs, describe(folder).prefixes.of("paraphrase", "query")
        self.embedder = Embedder(folder, alike.max_tokens)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Of ranges of buckets, a row each, the pairs that go; schema UNLIKE."""
        return pa.concat_tables([UNLIKE.empty_table(), *(self._range(**row) for row in batch.to_pylist())])

    def _range(self, first: int, last: int) -> pa.Table:
        sides = read_runs(self.runs, first, last, SIDES)
        ids, rows = np.unique(sides["pair"].to_numpy(), return_index=True)  # in an order that owes nothing to how they came
        sides = sides.take(pa.array(rows))
        left, right = (self.embedder.encode([self.prefix + text for text in sides[side].to_pylist()]) for side in ("query", "positive"))
        cosines = np.einsum("nd,nd->n", left, right).astype(np.float32)
        least = np.array([self.alike.least[name] for name in sides["name"].to_pylist()], np.float32)
        gone = ~(cosines >= least)  # a vector that is none is alike to nothing
        return pa.table([ids[gone], cosines[gone]], UNLIKE)
