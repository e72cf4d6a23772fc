"""The natural pairs: documents and data sets to pairs, spread over workers by Ray, judged in one place."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from raysberta.corpus.decontaminate import PASSAGE, HeldOut, hashed, held_out, matches
from raysberta.corpus.evaluation_sets import all_read, evaluation_files, read_set
from raysberta.corpus.facts import Repeats
from raysberta.corpus.length import FILE, counted_by, token_counts
from raysberta.data_sets.outside import units
from raysberta.data_sets.read import KIND, Taken, read
from raysberta.data_sets.records import Unit
from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.pairs.facts import PairsFacts
from raysberta.pairs.filter import CountTokens, Filtered, filter_pairs
from raysberta.pairs.make import Mappings, make
from raysberta.pairs.match import LABELLED, same_label
from raysberta.pairs.settings import NaturalPairs
from raysberta.schema import PAIR, REJECTED_PAIR, Split
from raysberta.spread import spread
from raysberta.storage.artifacts import Artifact, Draft
from raysberta.storage.location import filesystem
from raysberta.work import Work, Workers

log = logging.getLogger(__name__)

MATCHES = pa.schema([("pair_id", pa.string()), ("held_out", pa.string())])
PAIRS_OF_A_TASK = 50_000
LIGHT = 0.25
"""Cores of a task that makes pairs: it waits for reads, and shares the machine with heavier stages."""


def run(work: Work[NaturalPairs]) -> PairsFacts:
    """Write the tables `pairs` (PAIR) and `rejected` (REJECTED_PAIR), both sorted by pair_id.

    Beside them `matches`: each pair of a data set that repeats an item of an evaluation set, and the item.

    All pairs pass through this task's memory once (about 1 KB each): copies and leaks can only be seen across all of them.

    Raises:
        InputError: a data set is wrong, or no training pair is left.
    """
    settings, rules = work.settings, work.settings.rules
    counter = _token_counter(work)
    corpus = work.inputs[settings.documents]
    asked = [unit for name, source in settings.data_sets.items() for unit in units(name, source)]
    tables = [PAIR.empty_table()]
    if settings.kinds:
        tables.append(_from_documents(corpus, settings.kinds, rules.max_characters))
        tables.append(_from_labels(corpus, settings.kinds, rules.max_characters))
    repeated: dict[str, str] = {}
    unreadable, left_out = REJECTED_PAIR.empty_table(), Counter[str]()
    if asked:
        given, unreadable, left_out = _from_data_sets(settings.data_sets, asked, rules.max_characters, work.workers)
        tables.append(given)
        if settings.evaluation_sets and settings.decontaminate_ngram:
            repeated = _repeated(given, settings, work.workers)
    pairs = pa.concat_tables(tables)
    made = f"{corpus.manifest.rows_out} documents and {len(asked)} parts of data sets"
    log.info("%d pairs made of %s", pairs.num_rows, made)
    limits = {f"{name}/{KIND}": source.limit for name, source in settings.data_sets.items() if source.limit is not None}
    passages = sum(item.startswith(PASSAGE) for item in repeated.values())
    dropped = {pair for pair, item in repeated.items() if settings.decontaminate_passages or not item.startswith(PASSAGE)}
    filtered = filter_pairs(pairs, rules, counter, dropped, limits)
    filtered.rejected = pa.concat_tables([filtered.rejected, unreadable]).sort_by("pair_id")
    filtered.dropped = dict(Counter(filtered.dropped) + left_out + Counter(unreadable=unreadable.num_rows))
    repeats = Repeats(texts=len(repeated) - passages, passages=passages, passages_dropped=settings.decontaminate_passages)
    facts = PairsFacts(pairs=counts(filtered.kept), repeats=repeats)
    for name, split in facts.pairs.items():
        log.info("%s: %d to train, %d dev, %d test", name, split["train"], split["dev"], split["test"])
    if not any(split["train"] for split in facts.pairs.values()):
        raise InputError(f"sources: no training pair came out of {made}")
    _write(filtered, repeated, pairs.num_rows + unreadable.num_rows + left_out.total(), work.draft)
    return facts


def counts(pairs: pa.Table) -> dict[str, dict[Split, int]]:
    """Pairs by `source/kind` and split."""
    grouped = pairs.group_by(["source", "kind", "split"]).aggregate([("pair_id", "count")])
    found: dict[str, dict[Split, int]] = defaultdict(lambda: {"train": 0, "dev": 0, "test": 0})
    for row in sorted(grouped.to_pylist(), key=lambda row: (row["source"], row["kind"])):
        found[f"{row['source']}/{row['kind']}"][row["split"]] = row["pair_id_count"]
    return dict(found)


def _write(filtered: Filtered, repeated: Mapping[str, str], made: int, draft: Draft) -> None:
    draft.write_table("pairs", filtered.kept)
    draft.write_table("rejected", filtered.rejected)
    draft.write_table("matches", pa.table([sorted(repeated), [repeated[name] for name in sorted(repeated)]], MATCHES))
    draft.rows_in, draft.rows_out = made, filtered.kept.num_rows
    for reason, rows in sorted(filtered.dropped.items()):
        draft.drop(reason, rows)


def _from_documents(corpus: Artifact, mappings: Mappings, longest: int) -> pa.Table:
    ray.data.DataContext.get_current().enable_progress_bars = False
    fs, _ = filesystem(corpus.uri)
    dataset = ray.data.read_parquet(corpus.paths("documents"), filesystem=fs, partitioning=None, num_cpus=LIGHT)
    make_batch = partial(make, mappings=mappings, max_characters=longest)
    return _gather(dataset.map_batches(make_batch, batch_format="pyarrow", batch_size=2048, num_cpus=LIGHT))


def _from_labels(corpus: Artifact, mappings: Mappings, longest: int) -> pa.Table:
    tasks = {name: kinds["same_label"] for name, kinds in mappings.items() if "same_label" in kinds}
    if not tasks:
        return PAIR.empty_table()
    wanted = pc.field("source").isin(sorted(tasks)) & (pc.field("label") != "")
    labelled = corpus.dataset("documents").to_table(columns=LABELLED, filter=wanted)
    return same_label(labelled, tasks, longest)


def _from_data_sets(
    data_sets: Mapping[str, DatasetSource], asked: Sequence[Unit], longest: int, workers: Workers
) -> tuple[pa.Table, pa.Table, Counter[str]]:
    """A task a unit. A wrong file comes back as a value: an exception would reach the user with Ray's own lines around it."""
    tasks = [(unit, data_sets[unit.source], longest) for unit in asked]
    results = ray.get(spread(_read, tasks, workers.model_copy(update={"cpus": LIGHT})))
    for _, problem in results:
        if problem:
            raise InputError(problem)
    taken: list[Taken] = [each for own, _ in results for each in own]
    dropped = sum((Counter(each.dropped) for each in taken), Counter[str]())
    return pa.concat_tables([each.pairs for each in taken]), pa.concat_tables([each.rejected for each in taken]), dropped


def _read(unit: Unit, source: DatasetSource, longest: int) -> tuple[list[Taken], str]:
    try:
        return list(read(unit, source, longest)), ""
    except InputError as error:
        return [], str(error)


def _repeated(pairs: pa.Table, settings: NaturalPairs, workers: Workers) -> dict[str, str]:
    """The pairs, by pair_id, whose query or positive an item of an evaluation set has, and the item. Documents were compared before."""
    size = settings.decontaminate_ngram
    read_sets = spread(read_set, [(file, size) for file in evaluation_files(settings.evaluation_sets)], workers)
    known = ray.put(held_out(all_read(ray.get(read_sets))))
    asked = [(pairs.slice(start, PAIRS_OF_A_TASK), size, known) for start in range(0, pairs.num_rows, PAIRS_OF_A_TASK)]
    return {pair: item for found in ray.get(spread(_overlaps, asked, workers)) for pair, item in found}


def _overlaps(pairs: pa.Table, size: int, known: HeldOut) -> list[tuple[str, str]]:
    rows = list(range(pairs.num_rows)) * 2
    found = hashed(pairs["query"].to_pylist() + pairs["positive"].to_pylist(), rows, [True] * len(rows), size)
    items = matches(found, known, pairs.num_rows)
    return [(pair, item) for pair, item in zip(pairs["pair_id"].to_pylist(), items, strict=True) if item is not None]


def _gather(dataset: ray.data.Dataset) -> pa.Table:
    tables = [table.select(PAIR.names).cast(PAIR) for table in ray.get(dataset.to_arrow_refs()) if table.num_rows]
    return pa.concat_tables(tables) if tables else PAIR.empty_table()


def _token_counter(work: Work[NaturalPairs]) -> CountTokens | None:
    """What counts tokens as a model reads a text, with the special ones."""
    rules = work.settings.rules
    model = counted_by(work.inputs, rules.tokenizer, "pairs.tokenizer") if rules.max_tokens is not None else None
    return partial(token_counts, file=model.file(FILE), special=True) if model is not None else None
