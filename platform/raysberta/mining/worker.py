"""What a worker of a mining run does: it deals, embeds, searches, judges, chooses and writes, a range of stable ids at a time.

A worker holds at most, beside a model: two ranges of 64 MiB of text, `search_memory_mib` of vectors and results, 8 bytes for each passage
of a pool, and the candidates of 256 queries. Passages and vectors are mapped files, each of which comes to a node once. What it does is
decided by what it is asked and by nothing that it did before, so it can be started anew and asked again, and there can be any number of
workers.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raysberta.mining import report
from raysberta.mining.judge import CrossEncoder
from raysberta.mining.miner import depth, mine
from raysberta.mining.output import Table, read, vector_rows, vector_schema
from raysberta.mining.passages import Pool
from raysberta.mining.plan import Place, Plan, Reader
from raysberta.mining.positives import usable
from raysberta.mining.sampler import Mined, Sampler
from raysberta.mining.settings import Examples, Mining
from raysberta.mining.teacher import Cosines, Teacher, own_texts, with_scores
from raysberta.models.describe import describe
from raysberta.prefixes import Prefixes
from raysberta.retrieval.approximate import INDEX_ROWS, Tuned, approximate, every, finder, gpu, loaded, placed, recall, sample_of, saved
from raysberta.retrieval.encoded import Encoded, by_length, vectors_folder
from raysberta.retrieval.mapped import Mapped
from raysberta.retrieval.search import Find, Slices, exact
from raysberta.retrieval.search import part as part_of
from raysberta.retrieval.vectors import BLOCK_TEXTS, Matrix, Vectors, View, steps
from raysberta.schema import EXAMPLE
from raysberta.storage.location import join
from raysberta.work import Work

JUDGED_AT_ONCE = 2048


class Worker(Sampler):
    """One process' part of the work."""

    def __init__(self, work: Work[Examples]) -> None:
        """Start without a model.

        Args:
            work: The node, with its inputs and its place.
        """
        super().__init__(work)
        torch.set_num_threads(max(1, int(work.workers.cpus)))
        self.threads = max(1, int(work.workers.cpus))
        self.device = "cuda" if work.workers.gpus and torch.cuda.is_available() else "cpu"
        self.move = gpu() if self.device == "cuda" else None
        self.encoders: dict[Reader, Encoded] = {}
        self.judges: dict[Reader, CrossEncoder] = {}
        self._last: Any = ((-1, None), None)
        self._finds: dict[int, tuple[int, Find, int]] = {}

    # embedding

    def _encoder(self, reader: Reader) -> Encoded:
        if reader not in self.encoders:
            model = self.work.inputs[reader.name]
            folder = vectors_folder(self.work.draft, model, reader.max_tokens)
            self.encoders[reader] = Encoded(model, reader.max_tokens, folder, self.files)
        return self.encoders[reader]

    def _prefixes(self, name: str) -> Prefixes:
        return describe(self.work.inputs[name].folder("model")).prefixes

    def described(self, name: str) -> dict[str, str]:
        """What an encoder reads before a text: the fields of Prefixes."""
        return self._prefixes(name).model_dump(exclude_none=True)

    def embed_passages(self, plan: Plan, reader: Reader, first: int, after: int) -> tuple[str, Counter[str]]:
        """Embed the passages of one file of vectors; where it is, and what was done."""
        numbers = np.arange(first, after, dtype=np.int64)
        part = plan.parts.every[int(np.searchsorted(plan.numbers.starts, first, side="right")) - 1]
        before = self._prefixes(reader.name).of(part.task, "document")
        vectors, done = self._encoder(reader).write([before + text for text in self.passages(plan).texts(numbers)])
        return vectors.paths[0], done

    def embed_queries(self, plan: Plan, reader: Reader, place: Place) -> Counter[str]:
        """Embed the queries of a range; what was done."""
        return self._encoder(reader).write(self._queries(plan, reader.name, place)[0])[1]

    def _queries(self, plan: Plan, name: str, place: Place) -> tuple[list[str], pa.Table, int]:
        """The distinct queries of a range, each with its prefix, in the order in which they are embedded; and its pairs as `pairs`."""
        pairs, again = self.pairs(plan, place)
        before = self._prefixes(name).of(plan.parts.every[place[0]].task, "query")
        return sorted({before + query for query in pairs["query"].to_pylist()}, key=by_length), pairs, again

    def _mapped(self, vectors: Vectors) -> Mapped:
        return Mapped(vectors, self.files.local)

    # mining

    def pool(self, plan: Plan, part: int, reader: Reader | None = None) -> Pool:
        """The passages that may be negatives of a part, with their vectors by an encoder; the last one asked for is kept."""
        if self._last[0] != (part, reader):
            found = super().pool(plan, part)
            vectors: Matrix = View(self._mapped(plan.vectors[reader]), found.numbers) if reader is not None else found.vectors
            self._last, self._finds = ((part, reader), replace(found, vectors=vectors)), {}
        return self._last[1]

    def mine(self, plan: Plan, place: Place) -> Mined:
        """Choose and write the negatives of a range of pairs."""
        mining = self.settings.mine
        if mining is None:
            return super().mine(plan, place)
        counts = report.Counts()
        texts, pairs, again = self._queries(plan, mining.by, place)
        counts.dropped["duplicate_id"] += again
        encoder, pool = self._encoder(reader_of(mining)), self.pool(plan, place[0], reader_of(mining))
        encoder.let_go()
        vectors = self._mapped(encoder.vectors(texts))
        at, before = {text: row for row, text in enumerate(texts)}, self._prefixes(mining.by).of(plan.parts.every[place[0]].task, "query")
        rows = np.array([at[before + query] for query in pairs["query"].to_pylist()], np.int64)
        kept, asked = usable(pool, pairs, View(vectors, rows), counts.dropped)
        judge = self._judge(mining) if mining.cross_encoder_for == "limits" else None
        ranked = self._ranked(plan, place[0], pool, asked)
        tables = mine(mining, self.settings.negatives, pool, kept, asked, ranked, counts.dropped, judge)
        found, queries = self.write(plan, place, pool, tables, counts)
        if mining.keep_vectors:
            shown = [at[before + query] for query in sorted(queries)]
            self._keep(f"queries-{plan.name(*place)}", [texts[row] for row in shown], View(vectors, np.array(shown, np.int64)))
        return found

    def _ranked(self, plan: Plan, part: int, pool: Pool, queries: Matrix) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """First query, the one after the last, scores float32 [q, k] and rows int64 [q, k], slice by slice."""
        if len(queries):
            step, find, k = self._find(plan, part, pool)
            for start, stop in steps(len(queries), step):
                yield start, stop, *find(part_of(queries, start, stop), k)

    def _find(self, plan: Plan, part: int, pool: Pool) -> tuple[int, Find, int]:
        """How many queries at once, the search of a pool, and how many ranks."""
        if part not in self._finds:
            assert self.settings.mine is not None
            memory, dimension = self.work.workers.search_memory_mib, pool.vectors.shape[1]
            k = min(depth(self.settings.mine, pool), len(pool))
            slices = Slices.within(memory, dimension, k)
            find = exact(pool.vectors, 0, len(pool), slices, self.threads, self.device)
            if part in plan.indexes:
                find = every([partial(self._opened, plan, part, number) for number in range(len(plan.indexes[part]))], pool.vectors)
            self._finds[part] = slices.queries, find, k
        return self._finds[part]

    def _judge(self, mining: Mining) -> report.Judge:
        assert mining.cross_encoder is not None
        return partial(self.judge, Reader(mining.cross_encoder, mining.cross_encoder_tokens))

    def judge(self, reader: Reader, queries: list[str], texts: list[str]) -> np.ndarray:
        """A cross-encoder's scores, float32; pieces of fixed size, so they do not depend on how many are asked for."""
        if reader not in self.judges:
            self.judges = {reader: CrossEncoder(self.work.inputs[reader.name].folder("model"), reader.max_tokens)}
        model = self.judges[reader]
        parts = [model.score(queries[start:stop], texts[start:stop]) for start, stop in steps(len(queries), JUDGED_AT_ONCE)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    # indexes

    def index(self, plan: Plan, part: int, number: int, sampled: Place) -> Tuned:
        """Build an index of a pool, tuned on queries of a range; how it searches, and where it does so quicker."""
        settings = self.settings.mine
        assert settings is not None and settings.search != "exact"
        pool, asked = self.pool(plan, part, reader_of(settings)), self._sample(plan, sampled)
        first = number * INDEX_ROWS
        after, k = min(first + INDEX_ROWS, len(pool)), min(depth(settings, pool), len(pool))
        memory = self.work.workers.search_memory_mib
        index, tuned = approximate(settings.search, pool.vectors, first, after, k, settings.recall, asked, memory, self.threads)
        self.files.write(plan.index(part, number), saved(index))
        return placed(index, tuned, asked, k, self.threads, self.move)[0]

    def indexes(self, plan: Plan, part: int) -> int:
        """How many indexes the pool of a part needs."""
        assert self.settings.mine is not None
        return -(-len(self.pool(plan, part, reader_of(self.settings.mine))) // INDEX_ROWS)

    def _opened(self, plan: Plan, part: int, number: int) -> Find:
        index = loaded(self.files.local(plan.index(part, number)), plan.indexes[part][number], self.move)
        return finder(index, number * INDEX_ROWS, self.threads)

    def measured(self, plan: Plan, part: int, sampled: Place) -> dict[str, Any]:
        """The recall of a pool's indexes together on the sample, for the manifest."""
        settings = self.settings.mine
        assert settings is not None
        pool, asked = self.pool(plan, part, reader_of(settings)), self._sample(plan, sampled)
        _, find, k = self._find(plan, part, pool)
        slices = Slices.within(self.work.workers.search_memory_mib, pool.vectors.shape[1], k)
        truth = exact(pool.vectors, 0, len(pool), slices, self.threads, self.device)(asked, k)[1]
        share = recall(find(asked, k)[1], truth)
        return {"recall_target": settings.recall, "recall_measured": round(share, 5), "recall_at": k, "sample_queries": len(asked)}

    def _sample(self, plan: Plan, place: Place) -> np.ndarray:
        assert self.settings.mine is not None
        texts = self._queries(plan, self.settings.mine.by, place)[0]
        return sample_of(self._mapped(self._encoder(reader_of(self.settings.mine)).vectors(texts)))

    # what is made of the examples

    def keep(self, plan: Plan, first: int, numbers: np.ndarray) -> None:
        """Write the vectors of some passages of one part."""
        assert self.settings.mine is not None
        by = self.settings.mine.by
        part = plan.parts.every[int(np.searchsorted(plan.numbers.starts, first, side="right")) - 1]
        before = self._prefixes(by).of(part.task, "document")
        keys = [before + text for text in self.passages(plan).texts(numbers)]
        self._keep(f"passages-{first:012d}.parquet", keys, View(self._mapped(plan.vectors[reader_of(self.settings.mine)]), numbers))

    def _keep(self, name: str, keys: list[str], vectors: Matrix) -> None:
        table = Table(self.files, join(self.work.draft.uri, "vectors", name), vector_schema(vectors.shape[1]))
        for start, stop in steps(len(keys), BLOCK_TEXTS):
            table.add(vector_rows(keys[start:stop], View(vectors, np.arange(start, stop))))
        table.close()

    def estimate(self, plan: Plan, place: Place, most: int) -> tuple[int, int, int]:
        """Of drawn examples of a range: mined negatives at least as relevant as the positive, mined negatives, examples."""
        assert self.settings.mine is not None
        judge = self._judge(self.settings.mine)
        found = [0, 0, 0]
        for table in read(self.files, join(self.work.draft.uri, "examples", plan.name(*place))):
            numbers = report.drawn(table["pair_id"].to_pylist(), self.work.seed)
            some = table.filter(pa.array(numbers <= np.uint64(most)))
            if len(some):
                for at, count in enumerate((*report.false_negatives(some, judge), len(some))):
                    found[at] += count
        return found[0], found[1], found[2]

    def teach(self, plan: Plan, place: Place, cross: bool) -> Counter[str]:
        """Put the teacher's scores into the examples of a range; what was embedded."""
        assert self.settings.teacher is not None
        teacher = Reader(self.settings.teacher, self.settings.teacher_tokens)
        written = join(self.work.draft.uri, "examples", plan.name(*place))
        done: Counter[str] = Counter()
        score: Teacher = lambda tasks, queries, texts: self.judge(teacher, queries, texts)  # noqa: E731
        if not cross:
            pool, prefixes, encoder = self.pool(plan, place[0], teacher), self._prefixes(teacher.name), self._encoder(teacher)
            texts = sorted(own_texts(read(self.files, written), pool, prefixes), key=by_length)
            vectors, done = encoder.write(texts)
            score = Cosines(prefixes, {text: row for row, text in enumerate(texts)}, self._mapped(vectors), pool)
        output = Table(self.files, written, EXAMPLE)
        for table in read(self.files, written):
            output.add(with_scores(table, score))
        output.close()
        return done


def reader_of(mining: Mining) -> Reader:
    """The encoder that ranks."""
    return Reader(mining.by, mining.max_tokens)
