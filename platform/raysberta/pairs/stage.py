"""The stage `pairs`: documents and data sets to pairs, spread over workers by Ray Data, judged in one place."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from raysberta.artifacts import Artifact, Draft, filesystem
from raysberta.corpus.decontaminate import HeldOut, hashed, held_out, matches
from raysberta.corpus.stage import evaluation_sets
from raysberta.encoder.fetch import model_folder
from raysberta.encoder.load import load_tokenizer
from raysberta.errors import InputError
from raysberta.pairs.filter import CountTokens, filter_pairs
from raysberta.pairs.make import make
from raysberta.pairs.match import LABELLED, same_label
from raysberta.pairs.read import files_of, read
from raysberta.recipe import DatasetSource, Recipe
from raysberta.schema import PAIR, Task

log = logging.getLogger(__name__)

VERSION: int = 2

MATCHES = pa.schema([("pair_id", pa.string()), ("held_out", pa.string())])
PAIRS_OF_A_TASK = 50_000
LIGHT = 0.25
"""Cores of a task that makes pairs: it waits for reads, and shares the machine with heavier stages."""


def run(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Write the tables `pairs` (PAIR) and `rejected` (REJECTED_PAIR), both sorted by pair_id.

    Beside them `matches`: each pair of a data set that repeats an item of an evaluation set, and the item.

    All pairs pass through this task's memory once (about 1 KB each): copies and leaks can only be seen across all of them.

    Raises:
        InputError: a data set is wrong, or no training pair is left.
    """
    ray.data.DataContext.get_current().enable_progress_bars = False
    mappings: dict[str, Mapping[str, Task]] = {}
    for name, source in recipe.sources.items():
        if not isinstance(source, DatasetSource):
            mappings[name] = {str(kind): task for kind, task in source.pairs.items()}
    given = {name: source for name, source in recipe.sources.items() if isinstance(source, DatasetSource)}
    files = [(name, file) for name, source in given.items() for file in files_of(name, source)]
    longest = recipe.pairs.max_characters
    tables = []
    repeated: dict[str, str] = {}
    documents = inputs["corpus"].manifest.rows_out
    if mappings:
        tables.append(_from_documents(inputs["corpus"], mappings, longest))
        tables.append(_from_labels(inputs["corpus"], mappings, longest))
    if files:
        tables.append(_from_datasets(given, files, longest))
        if recipe.corpus.evaluation_sets and recipe.corpus.decontaminate_ngram:
            repeated = _repeated(tables[-1], recipe)
    pairs = pa.concat_tables(tables)
    log.info("pairs: %d made of %d documents and %d data set files", pairs.num_rows, documents, len(files))
    filtered = filter_pairs(pairs, recipe.pairs, _token_counter(recipe, inputs), repeated)
    draft.metrics["pairs"] = counts(filtered.kept)
    for name, split in draft.metrics["pairs"].items():
        log.info("pairs: %s: %d to train, %d dev, %d test", name, split["train"], split["dev"], split["test"])
    if not any(split["train"] for split in draft.metrics["pairs"].values()):
        raise InputError(f"sources: no training pair came out of {documents} documents and {len(files)} data set files")
    draft.write_table("pairs", filtered.kept)
    draft.write_table("rejected", filtered.rejected)
    draft.write_table("matches", pa.table([sorted(repeated), [repeated[name] for name in sorted(repeated)]], MATCHES))
    draft.rows_in, draft.rows_out = pairs.num_rows, filtered.kept.num_rows
    for reason, rows in sorted(filtered.dropped.items()):
        draft.drop(reason, rows)


def counts(pairs: pa.Table) -> dict[str, dict[str, int]]:
    """Pairs by `source/kind` and split."""
    grouped = pairs.group_by(["source", "kind", "split"]).aggregate([("pair_id", "count")])
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"train": 0, "dev": 0, "test": 0})
    for row in sorted(grouped.to_pylist(), key=lambda row: (row["source"], row["kind"])):
        found[f"{row['source']}/{row['kind']}"][row["split"]] = row["pair_id_count"]
    return dict(found)


def _from_documents(corpus: Artifact, mappings: Mapping[str, Mapping[str, Task]], longest: int) -> pa.Table:
    fs, _ = filesystem(corpus.uri)
    dataset = ray.data.read_parquet(corpus.paths("documents"), filesystem=fs, partitioning=None, num_cpus=LIGHT)
    make_batch = partial(make, mappings=mappings, max_characters=longest)
    return _gather(dataset.map_batches(make_batch, batch_format="pyarrow", batch_size=2048, num_cpus=LIGHT))


def _from_labels(corpus: Artifact, mappings: Mapping[str, Mapping[str, Task]], longest: int) -> pa.Table:
    tasks = {name: kinds["same_label"] for name, kinds in mappings.items() if "same_label" in kinds}
    if not tasks:
        return PAIR.empty_table()
    labelled = corpus.dataset("documents").to_table(columns=LABELLED, filter=pc.field("source").isin(sorted(tasks)))
    return same_label(labelled, tasks, longest)


def _from_datasets(given: Mapping[str, DatasetSource], files: list[tuple[str, str]], longest: int) -> pa.Table:
    """A task a file. A wrong file comes back as a value: an exception would reach the user with Ray's own lines around it."""
    results = ray.get([_read.remote(name, given[name], file, longest) for name, file in files])
    for _, problem in results:
        if problem:
            raise InputError(problem)
    return pa.concat_tables([table for table, _ in results])


@ray.remote(num_cpus=LIGHT, max_retries=0)
def _read(name: str, source: DatasetSource, file: str, longest: int) -> tuple[pa.Table, str]:
    try:
        return pa.concat_tables(read(name, source, file, longest)), ""
    except InputError as error:
        return PAIR.empty_table(), str(error)


def _repeated(pairs: pa.Table, recipe: Recipe) -> dict[str, str]:
    """The pairs, by pair_id, whose query or positive an item of an evaluation set has, and the item. Documents were compared before."""
    known = ray.put(held_out(evaluation_sets(recipe)))
    size = recipe.corpus.decontaminate_ngram
    slices = [pairs.slice(start, PAIRS_OF_A_TASK) for start in range(0, pairs.num_rows, PAIRS_OF_A_TASK)]
    return {pair: item for found in ray.get([_overlaps.remote(each, size, known) for each in slices]) for pair, item in found}


@ray.remote(num_cpus=1)
def _overlaps(pairs: pa.Table, size: int, known: HeldOut) -> list[tuple[str, str]]:
    rows = list(range(pairs.num_rows)) * 2
    found = hashed(pairs["query"].to_pylist() + pairs["positive"].to_pylist(), rows, [True] * len(rows), size)
    items = matches(found, known, pairs.num_rows)
    return [(pair, item) for pair, item in zip(pairs["pair_id"].to_pylist(), items, strict=True) if item is not None]


def _gather(dataset: ray.data.Dataset) -> pa.Table:
    tables = [table.select(PAIR.names).cast(PAIR) for table in ray.get(dataset.to_arrow_refs()) if table.num_rows]
    return pa.concat_tables(tables) if tables else PAIR.empty_table()


def _token_counter(recipe: Recipe, inputs: Mapping[str, Artifact]) -> CountTokens | None:
    if recipe.pairs.max_tokens is None:
        return None
    tokenizer = load_tokenizer(model_folder(inputs["models"], "encoder"))

    def count(texts: Any) -> np.ndarray:
        lengths: list[int] = []
        for start in range(0, len(texts), 1024):
            lengths.extend(len(ids) for ids in tokenizer(list(texts[start : start + 1024]))["input_ids"])
        return np.array(lengths, dtype=np.int64)

    return count
