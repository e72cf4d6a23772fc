"""Examples on Ray: actors embed every distinct text once, search each source's pool and judge; the pure part chooses."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import ray
import torch

from raysberta.corpus.language import identify
from raysberta.mining import report
from raysberta.mining.choose import window
from raysberta.mining.facts import ExamplesFacts, FalseNegatives, PoolFacts
from raysberta.mining.judge import CrossEncoder, is_cross_encoder
from raysberta.mining.miner import Judge, depth, mine, sample, usable
from raysberta.mining.output import Output, keep_vectors
from raysberta.mining.pool import Pool, Texts, make_texts
from raysberta.mining.select import keys, pool_of, select, sound
from raysberta.mining.settings import Examples, Mining
from raysberta.mining.teacher import Cosines, pieces, texts_of, with_scores
from raysberta.models.describe import describe
from raysberta.progress import progress
from raysberta.retrieval.vectors import Vectors, View, undirected
from raysberta.retrieval.workers import Plan, Ranking, by_length, embed_to_storage, vectors_folder
from raysberta.schema import PAIR
from raysberta.storage.artifacts import Artifact
from raysberta.work import Work, Workers

log = logging.getLogger(__name__)

JUDGED_AT_ONCE = 2048
SHORT_CHARACTERS = 40
"""Shorter candidates have the language of their script: identification is unreliable on them."""

Tables = Mapping[str, pa.Table]


@dataclass
class _Done:
    """What the facts tell of searching and embedding."""

    searches: dict[str, dict[str, Any]] = field(default_factory=dict)
    embedding: Counter[str] = field(default_factory=Counter)
    prefixes: dict[str, str] = field(default_factory=dict)


def run(work: Work[Examples]) -> ExamplesFacts:
    """Write the tables `examples` (EXAMPLE), `suspects` and, where asked for, `vectors`.

    Raises:
        InputError: a pattern of `only` fits no pairs.
    """
    settings, draft = work.settings, work.draft
    tables: Tables = {name: _training_pairs(work.inputs[name]) for name in dict.fromkeys((*settings.pairs, *settings.candidates))}
    pairs = _chosen(work, tables)
    tables = {name: sound(table)[0] for name, table in tables.items()}
    parts = {key: pairs.filter(pc.equal(keys(pairs), key)) for key in sorted(set(keys(pairs).to_pylist()))}
    pools = {key: make_texts(pool_of(part, tables, settings.candidates, settings.languages)) for key, part in parts.items()}
    dropped: Counter[str] = Counter()
    done, output = _Done(), Output(draft)
    if settings.mine is None:
        for key, part in parts.items():
            for found in sample(settings.negatives, pools[key], part, dropped):
                output.add(found)
    else:
        languages = sorted({language for table in tables.values() for language in pc.unique(table["language"]).to_pylist()})
        for found in _mine(work, settings.mine, parts, pools, languages, dropped, done):
            output.add(found)
            progress(work.node, "pairs mined", output.rows - output.promoted, pairs.num_rows)
    output.close()
    for reason, count in dropped.items():
        draft.drop(reason, count)
    draft.rows_out = output.rows
    false_negatives = _false_negatives(work, output)
    if settings.teacher is not None:
        _teach(work, work.inputs[settings.teacher], output, done)
    return _facts(work, output, pools, done, false_negatives)


def _training_pairs(artifact: Artifact) -> pa.Table:
    return artifact.dataset("pairs").to_table(columns=PAIR.names, filter=pads.field("split") == "train")


def _chosen(work: Work[Examples], tables: Tables) -> pa.Table:
    """The pairs that become examples, sorted by pair_id; those that cannot are counted."""
    settings = work.settings
    every = pa.concat_tables(tables[name] for name in settings.pairs)
    pairs = select(every, settings.only, settings.languages, work.node)
    work.draft.rows_in = pairs.num_rows
    pairs, left_out = sound(pairs)
    for reason, count in left_out.items():
        work.draft.drop(reason, count)
    return pairs.sort_by("pair_id")


def _mine(
    work: Work[Examples],
    settings: Mining,
    parts: Tables,
    pools: Mapping[str, Texts],
    languages: list[str],
    dropped: Counter[str],
    done: _Done,
) -> Iterator[pa.Table]:
    """Embed every distinct text once, with its prefix, then mine source by source. When embedding ends, its actors do too."""
    miner, negatives = work.inputs[settings.by], work.settings.negatives
    prefixes = describe(miner.folder("model")).prefixes
    done.prefixes = prefixes.model_dump()
    before = {key: prefixes.of(part["task"][0].as_py(), "query") for key, part in parts.items()}
    after = {key: prefixes.of(part["task"][0].as_py(), "document") for key, part in parts.items()}
    texts: set[str] = set()
    for key, part in parts.items():
        texts.update(before[key] + query for query in part["query"].to_pylist())
        texts.update(after[key] + text for text in pools[key].texts)
    ordered, vectors = _embed(work, miner, texts, settings.max_tokens, done)
    at = {text: row for row, text in enumerate(ordered)}
    del texts
    bad = undirected(vectors) if len(vectors) else np.zeros(0, np.int64)
    used: set[int] = set()
    judging = settings.cross_encoder if settings.cross_encoder_for == "limits" else None
    to_rank, to_judge = share(work.workers) if judging is not None else (work.workers, work.workers)
    plan = Plan(settings.search, settings.recall, work.workers.search_memory_mib, to_rank, work.node)
    with nullcontext() if judging is None else _judges(work.inputs[judging], settings.cross_encoder_tokens, to_judge) as judge:
        for key, part in parts.items():
            rows = np.array([at[after[key] + text] for text in pools[key].texts], np.int64)
            spoken = None if settings.language == "any" else _languages(pools[key], languages)
            pool = Pool(pools[key], View(vectors, rows), np.flatnonzero(np.isin(rows, bad)), spoken)
            queries = View(vectors, np.array([at[before[key] + query] for query in part["query"].to_pylist()], np.int64))
            pairs, asked = usable(pool, part, queries, dropped)
            if not len(pairs):
                continue
            with Ranking(pool.vectors, asked, depth(settings, pools[key]), plan) as ranking:
                done.searches[key] = ranking.report
                for found in mine(settings, negatives, pool, pairs, asked, ranking, dropped, judge):
                    if settings.keep_vectors:
                        used.update(_rows_of(found, at, before[key], after[key]))
                    yield found
    if settings.keep_vectors:
        keep_vectors(ordered, vectors, sorted(used), work.draft)


def _embed(work: Work[Examples], model: Artifact, texts: set[str], max_tokens: int, done: _Done) -> tuple[list[str], Vectors]:
    """Texts in the order in which they are embedded, and their vectors."""
    ordered = sorted(texts, key=by_length)
    log.info("%s: embedding %d distinct queries and passages", work.node, len(ordered))
    folder = vectors_folder(work.draft, model, max_tokens)
    vectors, counts = embed_to_storage(ordered, folder, model, max_tokens, work.workers, work.node)
    done.embedding.update(counts)
    return ordered, vectors


def _rows_of(found: pa.Table, at: Mapping[str, int], before: str, after: str) -> set[int]:
    """Where the vectors of the rows' texts are; a supplied negative that is in no pool has none."""
    queries = {at[before + text] for text in found["query"].to_pylist()}
    documents = found["positive"].to_pylist() + pc.list_flatten(found["negatives"]).to_pylist()
    return queries | {at[after + text] for text in documents if after + text in at}


def _languages(candidates: Texts, languages: list[str]) -> np.ndarray:
    return np.array([identify(text, languages, SHORT_CHARACTERS)[0] for text in candidates.texts], dtype="<U8")


def share(workers: Workers) -> tuple[Workers, Workers]:
    """Of what a stage may use, what ranks and what judges where both go on at once; together never more than all.

    Without GPUs the ranking is done in this process, which waits while its judges work, so they may have all. With several GPUs one ranks;
    a single one judges.
    """
    here = workers.model_copy(update={"workers": 1, "gpus": 0.0})
    if not workers.gpus or workers.workers == 1:
        return here, workers
    return workers.model_copy(update={"workers": 1}), workers.model_copy(update={"workers": workers.workers - 1})


class _Judge:
    """One actor with a cross-encoder, which it fetches to its own node where storage is remote."""

    def __init__(self, model: Artifact, max_tokens: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.model = CrossEncoder(model.folder("model"), max_tokens)

    def up(self) -> None:
        """Answers once the model is loaded."""

    def score(self, queries: list[str], texts: list[str]) -> np.ndarray:
        return self.model.score(queries, texts)


class _Judges:
    """Actors that score pairs of query and text."""

    def __init__(self, model: Artifact, max_tokens: int, workers: Workers) -> None:
        actor = ray.remote(_Judge).options(num_cpus=workers.cpus, num_gpus=workers.gpus, max_restarts=-1, max_task_retries=-1)
        self.actors: list[Any] = [actor.remote(model, max_tokens, workers.cpus) for _ in range(workers.workers)]
        self._up = {one.up.remote(): one for one in self.actors}

    def __call__(self, queries: list[str], texts: list[str]) -> np.ndarray:
        """Pieces of fixed size go round the actors that are up, so scores do not depend on how many there are, and none waits for room."""
        refs = list(self._up)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        actors = [self._up[ref] for ref in ready or ray.wait(refs)[0]]
        asked = [
            actors[number % len(actors)].score.remote(queries[start : start + JUDGED_AT_ONCE], texts[start : start + JUDGED_AT_ONCE])
            for number, start in enumerate(range(0, len(queries), JUDGED_AT_ONCE))
        ]
        return np.concatenate(ray.get(asked)) if asked else np.zeros(0, np.float32)


@contextmanager
def _judges(model: Artifact, max_tokens: int, workers: Workers) -> Iterator[Judge]:
    """A cross-encoder in actors, ended on leaving."""
    judges = _Judges(model, max_tokens, workers)
    try:
        yield judges
    finally:
        for one in judges.actors:
            ray.kill(one)


def _false_negatives(work: Work[Examples], output: Output) -> FalseNegatives | None:
    settings = work.settings.mine
    if settings is None or settings.cross_encoder is None:
        return None
    with _judges(work.inputs[settings.cross_encoder], settings.cross_encoder_tokens, work.workers) as judge:
        return report.false_negatives(output, judge, work.seed, settings.cross_encoder_sample)


def _teach(work: Work[Examples], teacher: Artifact, output: Output, done: _Done) -> None:
    """Put the teacher's scores into the examples: a cross-encoder's outputs, or an encoder's cosines."""
    tokens, negatives = work.settings.teacher_tokens, work.settings.negatives
    if is_cross_encoder(teacher.file("model/config.json")):
        with _judges(teacher, tokens, work.workers) as judge:
            output.rewrite(lambda table: with_scores(table, lambda tasks, queries, texts: judge(queries, texts)))
        return
    prefixes = describe(teacher.folder("model")).prefixes
    ordered, vectors = _embed(work, teacher, texts_of(output.examples(), prefixes), tokens, done)
    cosines = Cosines(prefixes, vectors, {text: row for row, text in enumerate(ordered)})

    def scored(table: pa.Table) -> pa.Table:
        parts = pieces(table, work.workers.search_memory_mib, vectors.dimension, negatives)
        return pa.concat_tables([table.slice(0, 0), *(with_scores(part, cosines) for part in parts)])

    output.rewrite(scored)


def _facts(
    work: Work[Examples], output: Output, pools: Mapping[str, Texts], done: _Done, false_negatives: FalseNegatives | None
) -> ExamplesFacts:
    settings = work.settings
    facts = ExamplesFacts(
        **report.count(output, settings.negatives),
        pools={
            key: PoolFacts(
                texts=len(pool.texts),
                window=(0, 0) if settings.mine is None else window(settings.mine, len(pool.texts)),
                search=done.searches.get(key),
            )
            for key, pool in pools.items()
        },
        embedded=done.embedding["embedded"],
        reused=done.embedding["reused"],
        bad_vectors=done.embedding["bad_vectors"],
        false_negatives=false_negatives,
        teacher=settings.teacher or (settings.mine.by if settings.mine is not None else ""),
        prefixes=done.prefixes,
        encoder=work.inputs[settings.mine.by].manifest.id if settings.mine is not None else "",
    )
    skipped, suspects = facts.skipped or "none", facts.suspects
    log.info("%s: %d examples, %d negatives; skipped %s; %d suspect positives", work.node, output.rows, facts.negatives, skipped, suspects)
    return facts
