"""A worker that needs no model: it deals, gathers, draws random negatives and writes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.mining import report
from raysberta.mining.dealer import Dealer
from raysberta.mining.miner import sample
from raysberta.mining.output import Output
from raysberta.mining.passages import Pool, pool_numbers
from raysberta.mining.plan import Place, Plan


@dataclass
class Mined:
    """What a range of pairs became."""

    counts: report.Counts
    pool: int
    """Passages that may be its negatives."""
    drawn: np.ndarray
    """The least numbers by which the sample of the estimate is drawn, uint64."""
    used: np.ndarray
    """Numbers of the passages that are in examples, int64; none where nobody asks."""


class Sampler(Dealer):
    """What a worker does where nothing is searched."""

    def pool(self, plan: Plan, part: int) -> Pool:
        """The passages that may be negatives of a part, without vectors."""
        homes, passages = plan.parts.pool(part), self.passages(plan)
        numbers = pool_numbers(passages, homes)
        return Pool(passages, numbers, tuple(home for home, _ in homes), np.zeros((len(numbers), 0), np.float32))

    def mine(self, plan: Plan, place: Place) -> Mined:
        """Choose and write the negatives of a range of pairs."""
        counts = report.Counts()
        pairs, again = self.pairs(plan, place)
        counts.dropped["duplicate_id"] += again
        pool = self.pool(plan, place[0])
        return self.write(plan, place, pool, sample(self.settings.negatives, pool, pairs, counts.dropped), counts)[0]

    def write(self, plan: Plan, place: Place, pool: Pool, tables: Iterator[pa.Table], counts: report.Counts) -> tuple[Mined, set[str]]:
        """Write rows of MINED and count them; beside that the queries of those rows, none where nobody asks for their vectors."""
        mining, name = self.settings.mine, plan.parts.every[place[0]].name
        output = Output(self.files, self.work.draft.uri, plan.name(*place))
        ids, queries, used = [np.zeros(0, np.uint64)], set[str](), [np.zeros(0, np.int64)]
        for table in tables:
            output.add(table)
            counts.count(name, table, self.settings.negatives)
            if mining is not None and mining.cross_encoder is not None:
                ids.append(report.drawn(table["pair_id"].to_pylist(), self.work.seed))
            if mining is not None and mining.keep_vectors:
                texts = list(dict.fromkeys(table["positive"].to_pylist() + pc.list_flatten(table["negatives"]).to_pylist()))
                rows = pool.rows(texts)
                used.append(pool.numbers[rows[rows >= 0]])
                queries.update(table["query"].to_pylist())
        output.close()
        most = mining.cross_encoder_sample if mining is not None else 0
        return Mined(counts, len(pool), np.sort(np.concatenate(ids))[:most], np.unique(np.concatenate(used))), queries
