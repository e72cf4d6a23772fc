"""The documents: read all sources, judge each document, compare them all, write what stays and what does not.

Reading and the rules for single documents run as one Ray Data pipeline that streams: a task takes some work units and leaves the
documents in runs, files cut by ranges of doc_id. What is compared goes by ranges too, of band hashes or of hashes of words; only numbers
come together here, 38 bytes a document. Nothing depends on how rows lie in runs: ties are broken by content, tables are sorted.
"""

import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from raysberta.corpus import components
from raysberta.corpus.evaluation_sets import evaluation_files
from raysberta.corpus.facts import CorpusFacts, Repeats
from raysberta.corpus.filter import Settings
from raysberta.corpus.length import counted_by
from raysberta.corpus.overlaps import FOUND, bits_of_range, meet_in_range, set_runs, smallest, width_of
from raysberta.corpus.read import Shard, shards
from raysberta.corpus.settings import Documents, TextSource
from raysberta.corpus.spread import SAMPLE, SAMPLES, Filtered, held_in_range, read_and_filter, trained_in_range, write_in_range
from raysberta.corpus.verdicts import (
    Verdicts,
    apply_limits,
    check_readable,
    cluster_sizes,
    count,
    drop_exact,
    drop_near,
    drop_repeated,
    repeated,
    tally,
)
from raysberta.errors import InputError
from raysberta.schema import DOCUMENT, REJECTED
from raysberta.spread import by_range, spread
from raysberta.storage.artifacts import Draft
from raysberta.storage.runs import Place, Run, power_of_two, ranges, read_runs, scratch
from raysberta.work import Work

PART_BYTES = 256 << 20
"""Text of the documents of one range of doc_ids, about: what one task holds, and one file of each table."""
RUN_BYTES = 256 << 20
"""What a writer of runs holds."""
ROWS_PER_TASK = 4_000_000
"""Hashes or edges that one task compares: some hundred megabytes."""
LEAST_BUCKETS, EXPANSION = 64, 16
"""Buckets are there for sources that become up to 16 times as large as they are stored; beyond that ranges grow."""
TASK_BYTES = 512 << 20
"""Stored bytes that one task reads at most, where there is enough for all workers."""

log = logging.getLogger(__name__)


def run(work: Work[Documents]) -> CorpusFacts:
    """Write the tables `documents` (DOCUMENT) and `rejected` (REJECTED), sorted by doc_id; the facts count both, a source each.

    Beside them: `matches` (training document and the held-out one that it repeats), `clusters` (how many documents one stands for), `tally`
    (documents and bytes by source, language and reason), `samples` (some documents of each source and reason, cut), `report/reasons.svg`.

    A worker holds at most RUN_BYTES of each kind of run that it writes and three times as many of one, or a range of PART_BYTES of text or
    ROWS_PER_TASK rows: below 4 GiB, as long as no single document stands there a hundred thousand times over. This process holds 38
    bytes a document, and 24 for each that repeats a held-out one or, a range at a time, is near another.

    Raises:
        InputError: a source is wrong, empty, or holds more broken records than corpus.failure_budget allows; or nothing is left.
    """
    if not work.settings.sources:
        work.draft.write_table("documents", DOCUMENT.empty_table())
        work.draft.write_table("rejected", REJECTED.empty_table())
        return CorpusFacts(sources={})
    with scratch(work.draft) as folder:
        return _Stage(work, folder).run()


class _Stage:
    """The steps, and what they have in common."""

    def __init__(self, work: Work[Documents], folder: str) -> None:
        self.work, self.sources, self.rules = work, work.settings.sources, work.settings.rules
        self.workers, self.draft = work.workers, work.draft
        self.units = shards(self.sources)
        size = EXPANSION * sum(_stored(unit) for unit in self.units)
        self.place = Place(folder, power_of_two(max(LEAST_BUCKETS, size / PART_BYTES)), RUN_BYTES)
        self.runs: dict[str, list[Run]] = {name: [] for name in ("train", "held", "out", "bands")}

    def run(self) -> CorpusFacts:
        rules = self.rules
        verdicts = self._filtered()
        check_readable(verdicts, rules.failure_budget, self.sources)
        log.info("%d documents read, %d left by the rules for single ones", len(verdicts.reason), len(verdicts.open()))
        drop_exact(verdicts)
        if rules.near_duplicates:
            self._near(verdicts)
        apply_limits(verdicts, {name: source.limit for name, source in self.sources.items()})
        repeats = self._decontaminate(verdicts) if rules.decontaminate_ngram else Repeats()
        self._write(verdicts)
        facts = _told(verdicts, self.sources, repeats, self.draft)
        _show(verdicts, self.draft)
        return facts

    def _filtered(self) -> Verdicts:
        """Judge the documents, and leave them in runs."""
        settings = {
            name: Settings(
                self.rules, self.work.settings.languages, source.language, source.kind == "files", source.kind != "home_assistant_intents"
            )
            for name, source in self.sources.items()
        }
        counts = counted_by(self.work.inputs, self.rules.tokenizer, "corpus.tokenizer")
        log.info("reading %s in %d work units", ", ".join(self.sources), len(self.units))
        ray.data.DataContext.get_current().enable_progress_bars = False
        task = partial(read_and_filter, sources=self.sources, settings=settings, counts=counts, place=self.place)
        asked = [{"shards": pickle.dumps(some)} for some in _bundled(self.units, self.workers.workers)]
        judged = ray.data.from_items(asked, override_num_blocks=len(asked)).map_batches(
            task,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=self.workers.cpus,
            compute=ray.data.TaskPoolStrategy(self.workers.workers),
        )
        units = []
        for row in judged.iter_rows():
            found: Filtered = pickle.loads(row["filtered"])
            units.extend(found.units)
            for name, runs in found.runs.items():
                self.runs[name].extend(runs)
        if not any(len(unit.columns["doc_id"]) for unit in units):
            raise InputError(f"sources: there is not one record in {', '.join(self.sources)}")
        return Verdicts.of(units, list(self.sources))

    def _near(self, verdicts: Verdicts) -> None:
        """Drop near-duplicates: documents that share a band are connected, and of each component one stays."""
        edges = _all(self._by_range(components.meet_in_range, [self.runs["bands"]], ray.put(verdicts.stays()), self.place))
        moved = True
        while moved:
            moved = False
            for large in (True, False):
                found = self._by_range(components.star_in_range, [edges], self.place, large)
                edges, moved = _all(runs for runs, _ in found), moved or any(more for _, more in found)
        for first, last in self._ranges(edges):
            table = read_runs(edges, first, last, components.EDGES)
            node, to = table["node"].to_numpy(), table["to"].to_numpy()
            drop_near(verdicts, node[node < to], to[node < to])

    def _decontaminate(self, verdicts: Verdicts) -> Repeats:
        """Drop training documents that say what a held-out one or a test text says, and where asked what passages of benchmarks say."""
        size, stays = self.rules.decontaminate_ngram, ray.put(verdicts.stays())
        files = evaluation_files(self.rules.evaluation_sets)
        public = ray.get(spread(set_runs, [(file, size, self.place) for file in files], self.workers))
        for problem in public:
            if isinstance(problem, str):
                raise InputError(problem)
        spans = ranges(self.place.buckets, self._parts(verdicts))
        own = ray.get(by_range(held_in_range, [self.runs["held"]], spans, self.workers, stays, size, self.place))
        held = _all([*own, *public])
        width = width_of(_rows(held), self.place.buckets)
        bits = ray.put(np.concatenate(self._by_range(bits_of_range, [held], self.place.buckets, width)))
        may = _all(ray.get(by_range(trained_in_range, [self.runs["train"]], spans, self.workers, stays, size, bits, self.place)))
        found = _all(self._by_range(meet_in_range, [held, may], self.place))
        joined = smallest(read_runs(found, 0, self.place.buckets, FOUND))
        repeats = drop_repeated(verdicts, joined, self.rules.decontaminate_passages)
        said = "%d training documents share words with a held-out one or a test text, %d with passages of benchmarks"
        log.info(said, repeats.texts, repeats.passages)
        return repeats

    def _write(self, verdicts: Verdicts) -> None:
        """Write both tables, and some documents of each source and reason for a person to read."""
        writer = self.place.writer("decided")
        for table, doc_ids in verdicts.decided():
            writer.add(table, doc_ids)
        runs = [self.runs["train"], self.runs["held"], self.runs["out"], writer.done()]
        spans = ranges(self.place.buckets, self._parts(verdicts))
        drawn = by_range(write_in_range, runs, spans, self.workers, self.draft, each=range(len(spans)))
        seen: Counter[tuple[str, str]] = Counter()
        taken = [SAMPLE.empty_table()]
        while drawn:
            taken.append(_first(ray.get(drawn.pop(0)), seen))
        few = pa.concat_tables(taken)
        named = pa.array([reason.split(":", 1)[0] for reason in few["reason"].to_pylist()], pa.string())
        order = few.append_column("named", named).sort_by([("source", "ascending"), ("named", "ascending")])
        self.draft.write_table("samples", order.select(SAMPLE.names))

    def _parts(self, verdicts: Verdicts) -> int:
        return power_of_two(int(verdicts.bytes.sum(dtype=np.int64)) / PART_BYTES)

    def _ranges(self, runs: Sequence[Run]) -> list[tuple[int, int]]:
        return ranges(self.place.buckets, power_of_two(_rows(runs) / ROWS_PER_TASK))

    def _by_range(self, function: Callable[..., Any], runs: Sequence[Sequence[Run]], *same: Any) -> list[Any]:
        """What a function makes of each range, as many as the longest of the runs asks for."""
        return ray.get(by_range(function, runs, self._ranges(max(runs, key=_rows)), self.workers, *same))


def _stored(unit: Shard) -> int:
    return sum(file.bytes for file in unit.files)


def _bundled(units: Sequence[Shard], workers: int) -> list[list[Shard]]:
    """Units for one task each, the largest first so that no worker starts them last: many small ones leave one run, not one each."""
    most = min(TASK_BYTES, sum(map(_stored, units)) / (16 * workers))
    bundles: list[list[Shard]] = []
    size = most + 1.0
    for unit in sorted(units, key=lambda unit: -_stored(unit)):
        if size + _stored(unit) > most or not unit.files:
            bundles.append([])
            size = 0.0
        bundles[-1].append(unit)
        size += _stored(unit)
    return bundles


def _first(table: pa.Table, seen: Counter[tuple[str, str]]) -> pa.Table:
    """The rows of a source and reason of which too few were seen before."""
    rows = []
    for row, (source, reason) in enumerate(zip(table["source"].to_pylist(), table["reason"].to_pylist(), strict=True)):
        key = source, reason.split(":", 1)[0]
        seen[key] += 1
        if seen[key] <= SAMPLES:
            rows.append(row)
    return table.take(pa.array(rows, pa.int64()))


def _show(verdicts: Verdicts, draft: Draft) -> None:
    """What a person looks at: counts, and a picture of them."""
    from raysberta.pictures import stacked  # here: workers that import this module draw nothing

    table = tally(verdicts)
    draft.write_table("tally", table)
    draft.write_table("matches", repeated(verdicts))
    draft.write_table("clusters", cluster_sizes(verdicts))
    with draft.folder("report") as folder:
        (folder / "reasons.svg").write_text(stacked(_fates(table), "What became of the documents"), encoding="utf-8")


def _fates(table: pa.Table) -> dict[str, dict[str, int]]:
    """Documents by source and reason, the kept ones first."""
    fates: dict[str, dict[str, int]] = {}
    for row in table.sort_by([("source", "ascending"), ("reason", "ascending")]).to_pylist():
        own = fates.setdefault(row["source"], {"kept": 0})
        reason = row["reason"] or "kept"
        own[reason] = own.get(reason, 0) + row["documents"]
    return fates


def _told(verdicts: Verdicts, sources: Mapping[str, TextSource], repeats: Repeats, draft: Draft) -> CorpusFacts:
    """Count what was read, kept and dropped."""
    counts = count(verdicts, sources)
    draft.rows_in = len(verdicts.reason)
    draft.rows_out = len(verdicts.open())
    for name, counted in counts.items():
        dropped = ", ".join(f"{reason} {number:,}" for reason, number in counted.dropped.items())
        log.info("%s: %d of %d documents kept%s", name, counted.kept, counted.read, f"; dropped {dropped}" if dropped else "")
        for reason, number in counted.dropped.items():
            draft.drop(reason, number)
    if not draft.rows_out:
        raise InputError(f"sources: not one document is left after filtering; dropped {draft.dropped}")
    return CorpusFacts(sources=counts, repeats=repeats)


def _all(runs: Iterable[Sequence[Run]]) -> list[Run]:
    return [run for own in runs for run in own]


def _rows(runs: Iterable[Run]) -> int:
    return sum(run.rows for run in runs)
