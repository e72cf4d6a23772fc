"""The natural pairs: documents and data sets to pairs, judged by ranges of their ids, spread over workers by Ray.

Every step reads and writes runs, files cut by ranges of a hash: made pairs by their ids, keys of their texts by those. So a task holds
one range, this process holds counts and the runs' names, and the tables are the same however the work is cut.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raysberta.corpus.evaluation_sets import evaluation_files
from raysberta.corpus.facts import Repeats
from raysberta.corpus.length import counted_by
from raysberta.corpus.overlaps import bits_of_range, meet_in_range, set_runs, width_of
from raysberta.errors import InputError
from raysberta.pairs.facts import PairsFacts
from raysberta.pairs.match import CIRCLE, Cluster, circles
from raysberta.pairs.settings import NaturalPairs
from raysberta.pairs.spread import (
    Made,
    Making,
    Written,
    compare_range,
    good_range,
    label_runs,
    make_runs,
    write_range,
)
from raysberta.pairs.units import LabelUnit, PairUnit, data_set_units, document_units, label_counts, labelled
from raysberta.progress import progress
from raysberta.schema import Split
from raysberta.spread import by_range, spread
from raysberta.storage.runs import Place, Run, power_of_two, ranges, scratch
from raysberta.work import Work

log = logging.getLogger(__name__)

PART_BYTES = 128 << 20
"""Text of the pairs that one task judges and one file holds, about."""
RUN_BYTES = 256 << 20
"""What a writer of runs holds."""
ROWS_PER_TASK = 4_000_000
"""Keys or hashes that one task compares: some hundred megabytes."""
LEAST_BUCKETS, EXPANSION = 64, 16
"""Buckets are there for sources that become up to 16 times as large as they are stored; beyond that ranges grow."""


def run(work: Work[NaturalPairs]) -> PairsFacts:
    """Write the tables `pairs` (PAIR) and `rejected` (REJECTED_PAIR), both sorted by pair_id over all their files.

    Beside them `matches`: each pair of a data set that repeats an item of an evaluation set, and the item.

    A worker holds at most some four times RUN_BYTES, or a range of about PART_BYTES of text or ROWS_PER_TASK rows: below 2 GiB, as long
    as no single pair stands there a hundred thousand times over.

    Raises:
        InputError: a data set is wrong, or no training pair is left.
    """
    with scratch(work.draft) as folder:
        return _Stage(work, folder).run()


class _Stage:
    """The steps, and what they have in common."""

    def __init__(self, work: Work[NaturalPairs], folder: str) -> None:
        self.work, self.settings, self.workers = work, work.settings, work.workers
        self.documents = document_units(work.inputs[self.settings.documents]) if self.settings.kinds else []
        self.given = data_set_units(self.settings.data_sets)
        size = sum(unit.bytes for unit in self.documents) + sum(unit.bytes for unit in self.given)
        self.place = Place(folder, power_of_two(max(LEAST_BUCKETS, EXPANSION * size / PART_BYTES)), RUN_BYTES)
        self.kinds = self.settings.names

    def run(self) -> PairsFacts:
        held = self._held()
        made = self._made(held)
        rows = sum(each.rows for each in made)
        origin = f"{self.work.inputs[self.settings.documents].manifest.rows_out} documents and {len(self.given)} parts of data sets"
        log.info("%d pairs made of %s", rows, origin)
        verdicts = self._runs(compare_range, [_all(each.keys for each in made)])
        repeated = self._runs(meet_in_range, [held, _all(each.said for each in made)])
        written = self._written(made, verdicts, repeated, self._unlike(_all(each.sides for each in made)))
        facts = PairsFacts(pairs=_by_kind(written), repeats=_repeats(written, self.settings.decontaminate_passages))
        for name, split in facts.pairs.items():
            log.info("%s: %d to train, %d dev, %d test", name, split["train"], split["dev"], split["test"])
        if not any(split["train"] for split in facts.pairs.values()):
            raise InputError(f"sources: no training pair came out of {origin}")
        draft = self.work.draft
        draft.rows_in, draft.rows_out = rows, sum(each.kept.total() for each in written)
        for reason, number in sorted(sum((Counter(each) for each in _reasons(made, written)), Counter[str]()).items()):
            draft.drop(reason, number)
        return facts

    def _held(self) -> list[Run]:
        """What evaluation sets say that no pair of a data set may repeat."""
        settings = self.settings
        if not (self.given and settings.evaluation_sets and settings.decontaminate_ngram):
            return []
        files = evaluation_files(settings.evaluation_sets)
        return _all(_right(ray.get(spread(set_runs, [(file, settings.decontaminate_ngram, self.place) for file in files], self.workers))))

    def _made(self, held: Sequence[Run]) -> list[Made]:
        """The pairs of all units, the largest first: no worker starts the largest last."""
        settings, rules = self.settings, self.settings.rules
        counts = counted_by(self.work.inputs, rules.tokenizer, "pairs.tokenizer") if rules.max_tokens is not None else None
        making = ray.put(Making(settings.kinds, rules, counts, self.kinds, settings.decontaminate_ngram, self.place))
        bits = ray.put(self._bits(held)) if held else None
        by_label, labels = self._by_label()
        units: list[PairUnit] = sorted([*by_label, *self.documents, *self.given], key=lambda unit: -unit.bytes)
        shared = ray.put(labels)
        made: list[Made] = ray.get(spread(make_runs, [(unit, making, bits, shared) for unit in units], self.workers))
        for each in made:
            if each.problem:
                raise InputError(each.problem)
        return made

    def _bits(self, held: Sequence[Run]) -> np.ndarray:
        width = width_of(_rows(held), self.place.buckets)
        return np.concatenate(ray.get(self._by_range(bits_of_range, [held], _rows(held), self.place.buckets, width)))

    def _by_label(self) -> tuple[list[LabelUnit], list[Run]]:
        """Documents that are paired by their labels, together by label."""
        sources = sorted(labelled(self.settings.kinds))
        if not sources:
            return [], []
        counts: Counter[Cluster] = Counter()
        for own in ray.get(spread(label_counts, [(unit, sources) for unit in self.documents], self.workers)):
            counts.update(own)
        cut_into, longest = circles(counts), self.settings.rules.max_characters
        asked = [(unit, sources, cut_into, longest, self.place) for unit in self.documents]
        spans = ranges(self.place.buckets, power_of_two(counts.total() / CIRCLE))
        return [LabelUnit(first, last, cut_into) for first, last in spans], _all(ray.get(spread(label_runs, asked, self.workers)))

    def _unlike(self, sides: Sequence[Run]) -> list[Run]:
        """What an encoder finds unlike, by actors that hold it. This process holds no more than a writer of runs does."""
        alike, rows = self.settings.rules.alike, _rows(sides)
        if alike is None or not rows:
            return []
        from raysberta.pairs.alike import ROWS, Compare  # with torch, which most mixtures do without
        from raysberta.retrieval.workers import pooled

        spans = ranges(self.place.buckets, power_of_two(rows / ROWS))
        blocks = [pa.table({"first": [first], "last": [last]}) for first, last in spans]
        writer, model = self.place.writer("unlike"), self.work.inputs[alike.by]
        for done, found in enumerate(pooled(blocks, Compare, (alike, model, list(sides), self.workers.cpus), self.workers), 1):
            writer.add(found, found["pair"].to_numpy())
            progress(self.work.node, "ranges compared", done, len(blocks))
        return writer.done()

    def _written(self, made: Sequence[Made], verdicts: Sequence[Run], repeated: Sequence[Run], unlike: Sequence[Run]) -> list[Written]:
        spans = ranges(self.place.buckets, power_of_two(sum(each.bytes for each in made) / PART_BYTES))
        limits = self._limits()
        rooms: list[dict[str, int]] = [{} for _ in spans]
        if limits:
            runs = [_all(each.open for each in made), verdicts, repeated, unlike]
            good = np.array(ray.get(by_range(good_range, runs, spans, self.workers, len(self.kinds), self.settings.decontaminate_passages)))
            before = np.cumsum(good, axis=0) - good
            rooms = [{name: max(0, most - int(own[self.kinds.index(name)])) for name, most in limits.items()} for own in before]
        runs = [_all(each.pairs for each in made), verdicts, repeated, unlike]
        return ray.get(
            by_range(
                write_range, runs, spans, self.workers, self.work.draft, self.settings.decontaminate_passages, each=list(enumerate(rooms))
            )
        )

    def _limits(self) -> dict[str, int]:
        """Training pairs that are kept at most, by `source/kind`: the smaller of what the rules and a data set itself say."""
        rules, found = self.settings.rules, {}
        own = {f"{name}/{source.pair_kind}": source.limit for name, source in self.settings.data_sets.items()}
        for name in self.kinds:
            asked = [limit for limit in (rules.limits.get(name, rules.per_source), own.get(name)) if limit is not None]
            if asked:
                found[name] = min(asked)
        return found

    def _runs(self, function: Callable[..., list[Run]], runs: Sequence[Sequence[Run]]) -> list[Run]:
        """What a function writes for each range of the buckets; nothing where there is nothing to compare."""
        return _all(ray.get(self._by_range(function, runs, max(map(_rows, runs)), self.place))) if all(runs) else []

    def _by_range(self, function: Callable[..., Any], runs: Sequence[Sequence[Run]], rows: int, *same: Any) -> list[Any]:
        return by_range(function, runs, ranges(self.place.buckets, power_of_two(rows / ROWS_PER_TASK)), self.workers, *same)


def _by_kind(written: Iterable[Written]) -> dict[str, dict[Split, int]]:
    """Kept pairs by `source/kind` and split."""
    found: dict[str, dict[Split, int]] = {}
    for (source, kind, split), number in sorted(sum((each.kept for each in written), Counter[tuple[str, str, Split]]()).items()):
        found.setdefault(f"{source}/{kind}", {"train": 0, "dev": 0, "test": 0})[split] = number
    return found


def _reasons(made: Iterable[Made], written: Iterable[Written]) -> Iterator[Mapping[str, int]]:
    """Rows by the reason why they are not among the pairs; of unreadable ones the table says more."""
    yield from (each.left_out for each in made)
    for each in written:
        for reason, number in each.dropped.items():
            yield {reason.partition(":")[0]: number}


def _repeats(written: Iterable[Written], passages: bool) -> Repeats:
    found = sum((each.repeats for each in written), Counter[bool]())
    return Repeats(texts=found[False], passages=found[True], passages_dropped=passages)


def _all(runs: Iterable[Sequence[Run]]) -> list[Run]:
    return [run for own in runs for run in own]


def _rows(runs: Iterable[Run]) -> int:
    return sum(run.rows for run in runs)


def _right(found: Iterable[list[Run] | str]) -> list[list[Run]]:
    for each in found:
        if isinstance(each, str):
            raise InputError(each)
    return [each for each in found if not isinstance(each, str)]
