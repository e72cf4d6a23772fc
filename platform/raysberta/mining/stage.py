"""Examples on Ray: one kind of worker deals, embeds, searches, judges and writes, step by step; this process knows numbers, not texts.

It holds one byte for each passage, and some hundred for each range of 16,384 pairs or passages. There are never other actors than the
workers, and whoever of them is up does the work: nothing waits for a core or GPU that something else of this stage holds.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import ray

from raysberta.mining import report
from raysberta.mining.choose import window
from raysberta.mining.facts import ExamplesFacts, FalseNegatives, PoolFacts, StorageFacts
from raysberta.mining.judge import is_cross_encoder
from raysberta.mining.output import Output, read
from raysberta.mining.parts import make_parts
from raysberta.mining.passages import Numbers
from raysberta.mining.plan import Batch, Chunk, Dealt, Place, Plan, Reader
from raysberta.mining.sampler import Mined, Sampler
from raysberta.mining.settings import Examples
from raysberta.mining.worker import Worker, reader_of
from raysberta.progress import progress
from raysberta.retrieval.encoded import dimension_of, rows_of_file
from raysberta.retrieval.stored import Files, Traffic
from raysberta.retrieval.vectors import Vectors
from raysberta.storage.location import filesystem, join
from raysberta.work import Work

log = logging.getLogger(__name__)

CHUNK_ROWS = 1 << 17
"""Pairs that a worker deals out at once, in whole row groups."""


@dataclass
class _Made:
    """What the facts tell of the way to the examples."""

    counts: report.Counts = field(default_factory=report.Counts)
    searches: dict[int, dict[str, Any]] = field(default_factory=dict)
    embedding: Counter[str] = field(default_factory=Counter)
    pools: dict[int, int] = field(default_factory=dict)
    prefixes: dict[str, str] = field(default_factory=dict)
    drawn: list[np.ndarray] = field(default_factory=list)
    used: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """Passages that are in examples, by their numbers."""


class _Crew:
    """The workers of the stage: one that dies is started anew and asked again."""

    def __init__(self, work: Work[Examples]) -> None:
        how = work.workers
        light = work.settings.mine is None and work.settings.teacher is None  # a start without torch takes a second
        actor = ray.remote(Sampler if light else Worker).options(num_cpus=how.cpus, num_gpus=how.gpus, max_restarts=-1, max_task_retries=-1)
        self.node = work.node
        self.actors: list[Any] = [actor.remote(work) for _ in range(how.workers)]
        self._coming: dict[Any, Any] = {one.up.remote(): one for one in self.actors}

    def each(self, what: str, method: str, asked: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """The answers to calls of a method, in order; each worker that is up has one call, and gets the next when it has answered."""
        waiting, free = list(enumerate(asked))[::-1], [one for one in self.actors if one not in self._coming.values()]
        at: dict[Any, tuple[int, Any]] = {}
        answers: dict[int, Any] = {}
        following = 0
        while following < len(asked):
            while waiting and free:
                number, arguments = waiting.pop()
                one = free.pop()
                at[getattr(one, method).remote(*arguments)] = number, one
            (ready,), _ = ray.wait([*self._coming, *at])
            if ready in self._coming:
                free.append(self._coming.pop(ready))
                continue
            number, one = at.pop(ready)
            free.append(one)
            answers[number] = ray.get(ready)
            while following in answers:
                yield answers.pop(following)
                following += 1
                progress(self.node, what, following, len(asked))

    def everyone(self, method: str) -> list[Any]:
        """What those say that are up."""
        return ray.get([getattr(one, method).remote() for one in self.actors if one not in self._coming.values()])


@contextmanager
def _crew(work: Work[Examples]) -> Iterator[_Crew]:
    """The workers, ended on leaving."""
    crew = _Crew(work)
    try:
        yield crew
    finally:
        for one in crew.actors:
            ray.kill(one)


def run(work: Work[Examples]) -> ExamplesFacts:
    """Write the tables `examples` (EXAMPLE), `suspects` and, where asked for, `vectors`.

    Raises:
        InputError: a pattern of `only` fits no pairs.
    """
    settings, made, files = work.settings, _Made(), Files("")
    with _crew(work) as crew:
        plan = _dealt(work, crew, files)
        encoders = ([settings.mine.by] if settings.mine is not None else []) + [reader.name for reader in _encoding_teacher(work)]
        plan = _numbered(plan, crew, [rows_of_file(dimension_of(work.inputs[name])) for name in encoders])
        if settings.mine is not None:
            plan = _embedded(work, plan, crew, reader_of(settings.mine), made)
            plan = _indexed(work, plan, crew, made)
            (made.prefixes,) = crew.each("encoders described", "described", [(settings.mine.by,)])
        made.used = np.zeros(int(plan.numbers.starts[-1]), bool)
        _mine(plan, crew, made)
        if not plan.ranges:
            Output(files, work.draft.uri, plan.name(0, 0)).close()
        if settings.mine is not None and settings.mine.keep_vectors:
            _keep(plan, crew, made.used, rows_of_file(dimension_of(work.inputs[settings.mine.by])))
        false_negatives = _false_negatives(work, plan, crew, made)
        if settings.teacher is not None:
            _teach(work, plan, crew, made)
        traffic = sum(crew.everyone("traffic"), files.traffic())
        crew.everyone("drop")
    for reason, count in made.counts.dropped.items():
        work.draft.drop(reason, count)
    work.draft.rows_in, work.draft.rows_out = plan.parts.rows, made.counts.examples.total()
    facts = _facts(work, plan, made, files, false_negatives, traffic)
    fs, path = filesystem(plan.scratch)
    if fs.get_file_info(path).type == pafs.FileType.Directory:
        fs.delete_dir(path)
    return facts


def _encoding_teacher(work: Work[Examples]) -> list[Reader]:
    """The teacher, if it is an encoder."""
    teacher = work.settings.teacher
    if teacher is None or is_cross_encoder(work.inputs[teacher].file("model/config.json")):
        return []
    return [Reader(teacher, work.settings.teacher_tokens)]


def _dealt(work: Work[Examples], crew: _Crew, files: Files) -> Plan:
    """Count the pairs, divide the work and deal it out."""
    settings = work.settings
    chunks = [
        chunk
        for node in dict.fromkeys((*settings.pairs, *settings.candidates))
        for file in work.inputs[node].manifest.files
        if file.path.startswith("pairs/") and file.path.endswith(".parquet")
        for chunk in _chunks(files, node, join(work.inputs[node].uri, file.path))
    ]
    surveys = list(crew.each("files counted", "survey", [(chunk,) for chunk in chunks]))
    parts = make_parts(surveys, settings, work.node)
    languages = sorted({language for table in surveys for language in table["language"].to_pylist()})
    plan = Plan(parts, join(work.draft.uri, "scratch"), tuple(languages))
    pairs: defaultdict[Place, list[Batch]] = defaultdict(list)
    passages: defaultdict[Place, list[Batch]] = defaultdict(list)
    asked = [(ray.put(plan), chunk, f"{number:05d}") for number, chunk in enumerate(chunks)]
    for some, others, empty in crew.each("files dealt out", "deal", asked):
        work.draft.drop("empty_text", empty)
        for found, batches in ((pairs, some), (passages, others)):
            for place, batch in batches:
                found[place].append(batch)
    return replace(plan, dealt=Dealt(_fixed(pairs), _fixed(passages)))


def _fixed(found: dict[Place, list[Batch]]) -> dict[Place, tuple[Batch, ...]]:
    return {place: tuple(batches) for place, batches in found.items()}


def _chunks(files: Files, node: str, place: str) -> Iterator[Chunk]:
    """A file's row groups, some at a time."""
    with files.opened(place) as stream:
        metadata = pq.ParquetFile(stream).metadata
    groups: list[int] = []
    rows = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= CHUNK_ROWS or group == metadata.num_row_groups - 1:
            yield Chunk(node, place, tuple(groups))
            groups, rows = [], 0


def _numbered(plan: Plan, crew: _Crew, steps: list[int]) -> Plan:
    """Gather the distinct passages and number them."""
    shared = ray.put(plan)
    places = [(number, each) for number, part in enumerate(plan.parts.every) for each in range(part.passage_ranges)]
    sizes: list[list[int]] = [[] for _ in plan.parts.every]
    for place, count in zip(places, crew.each("ranges gathered", "gather", [(shared, place) for place in places]), strict=True):
        sizes[place[0]].append(count)
    return replace(plan, numbers=Numbers(tuple(map(tuple, sizes)), max(steps, default=1)))


def _embedded(work: Work[Examples], plan: Plan, crew: _Crew, reader: Reader, made: _Made, queries: bool = True) -> Plan:
    """Embed all passages and, unless their teacher reads them later, queries."""
    shared, dimension = ray.put(plan), dimension_of(work.inputs[reader.name])
    rows = rows_of_file(dimension)
    spans = plan.numbers.files(rows)
    if queries:
        for done in crew.each("ranges of queries embedded", "embed_queries", [(shared, reader, place) for place in plan.ranges]):
            made.embedding.update(done)
    asked = [(shared, reader, *span) for span in spans if span is not None]
    found = iter(list(crew.each("files of passages embedded", "embed_passages", asked)))
    paths = []
    for span in spans:
        path, done = next(found) if span is not None else ("", {})
        paths.append(path)
        made.embedding.update(done)
    vectors = Vectors(tuple(paths), int(plan.numbers.starts[-1]), dimension, rows)
    return replace(plan, vectors={**plan.vectors, reader: vectors})


def _indexed(work: Work[Examples], plan: Plan, crew: _Crew, made: _Made) -> Plan:
    """Build the indexes of every part's pool, where they are asked for."""
    assert work.settings.mine is not None
    method = work.settings.mine.search
    parts = [number for number, part in enumerate(plan.parts.every) if part.pair_ranges]
    made.searches = {number: {"method": method} for number in parts}
    if method == "exact":
        return plan
    shared = ray.put(plan)
    filled = {
        part: min(place for place in plan.dealt.pairs if place[0] == part) for part in parts if any(p == part for p, _ in plan.dealt.pairs)
    }
    counts = dict(zip(filled, crew.each("pools counted", "indexes", [(shared, part) for part in filled]), strict=True))
    asked = [(shared, part, number, filled[part]) for part, count in counts.items() for number in range(count)]
    tuned = iter(list(crew.each("indexes built", "index", asked)))
    plan = replace(plan, indexes={part: tuple(next(tuned) for _ in range(count)) for part, count in counts.items()})
    shared = ray.put(plan)
    for part, found in zip(
        filled, crew.each("indexes measured", "measured", [(shared, part, filled[part]) for part in filled]), strict=True
    ):
        indexes = [{**each.parameters, "recall": each.recall, "device": each.device} for each in plan.indexes[part]]
        made.searches[part] |= {**found, "indexes": indexes}
        if found["recall_measured"] < found["recall_target"]:
            log.warning(
                "%s: %s finds %.4f of the best %d of %s",
                work.node,
                method,
                found["recall_measured"],
                found["recall_at"],
                plan.parts.every[part].name,
            )
    return plan


def _mine(plan: Plan, crew: _Crew, made: _Made) -> None:
    """Mine range after range; those of one part follow one another, so its pool is opened once."""
    shared = ray.put(plan)
    answers: Iterator[Mined] = crew.each("ranges mined", "mine", [(shared, place) for place in plan.ranges])
    for place, mined in zip(plan.ranges, answers, strict=True):
        made.counts.add(mined.counts)
        made.used[mined.used] = True
        made.drawn.append(mined.drawn)
        made.pools[place[0]] = mined.pool


def _keep(plan: Plan, crew: _Crew, used: np.ndarray, rows: int) -> None:
    """Write the vectors of the passages that are in examples."""
    spans = [(first, first + np.flatnonzero(used[first:after])) for first, after in filter(None, plan.numbers.files(rows))]
    shared = ray.put(plan)
    for _ in crew.each("vectors kept", "keep", [(shared, first, numbers) for first, numbers in spans if len(numbers)]):
        pass


def _false_negatives(work: Work[Examples], plan: Plan, crew: _Crew, made: _Made) -> FalseNegatives | None:
    """The estimate on the examples whose drawn numbers are least."""
    mining = work.settings.mine
    if mining is None or mining.cross_encoder is None:
        return None
    least = np.sort(np.concatenate([np.zeros(0, np.uint64), *made.drawn]))[: mining.cross_encoder_sample]
    shared, most = ray.put(plan), int(least[-1]) if len(least) else 0
    answers = list(crew.each("ranges judged", "estimate", [(shared, place, most) for place in plan.ranges]))
    above, negatives, examples = (sum(answer[at] for answer in answers) for at in range(3))
    return FalseNegatives(share=round(above / negatives, 5) if negatives else 0.0, negatives=negatives, examples=examples)


def _teach(work: Work[Examples], plan: Plan, crew: _Crew, made: _Made) -> None:
    """Put the teacher's scores into the examples: a cross-encoder's outputs, or an encoder's cosines."""
    readers = _encoding_teacher(work)
    for reader in readers:
        if reader not in plan.vectors:
            plan = _embedded(work, plan, crew, reader, made, queries=False)
    shared = ray.put(plan)
    for done in crew.each("ranges taught", "teach", [(shared, place, not readers) for place in plan.ranges]):
        made.embedding.update(done)


def _facts(
    work: Work[Examples], plan: Plan, made: _Made, files: Files, false_negatives: FalseNegatives | None, traffic: Traffic
) -> ExamplesFacts:
    settings = work.settings
    written = [join(work.draft.uri, "examples", plan.name(*place)) for place in plan.ranges]

    def scores() -> Iterator[pa.Table]:
        for place in written:
            yield from read(files, place, report.SCORES)

    drawn, above = report.histograms(scores)
    numbers = {name: made.counts.numbers[name] for name in report.NUMBERS}
    facts = ExamplesFacts(
        examples=dict(sorted(made.counts.examples.items())),
        pools={
            plan.parts.every[number].name: PoolFacts(
                texts=size,
                window=(0, 0) if settings.mine is None else window(settings.mine, size),
                search=made.searches.get(number),
            )
            for number, size in sorted(made.pools.items())
        },
        **numbers,
        negatives_above_the_positive=above,
        skipped=dict(sorted(made.counts.skipped.items())),
        histograms=drawn,
        embedded=made.embedding["embedded"],
        reused=made.embedding["reused"],
        bad_vectors=made.embedding["bad_vectors"],
        false_negatives=false_negatives,
        teacher=settings.teacher or (settings.mine.by if settings.mine is not None else ""),
        prefixes=made.prefixes,
        encoder=work.inputs[settings.mine.by].manifest.id if settings.mine is not None else "",
        storage=_storage(plan, traffic + files.traffic()),
    )
    skipped, suspects = facts.skipped or "none", facts.suspects
    log.info(
        "%s: %d examples, %d negatives; skipped %s; %d suspect positives",
        work.node,
        work.draft.rows_out,
        facts.negatives,
        skipped,
        suspects,
    )
    return facts


def _storage(plan: Plan, traffic: Traffic) -> StorageFacts:
    return StorageFacts(requests=traffic.requests, bytes_read=traffic.read, bytes_written=traffic.written)
