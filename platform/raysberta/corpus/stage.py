"""The documents: read all sources, judge each document, compare them all, write what stays and what does not.

Reading and the rules for single documents run as one Ray Data pipeline, a task a work unit. Its blocks stay where they are; only columns
without text come together here for duplicates and limits, and the verdicts go back to the blocks. Nothing depends on how rows lie in
blocks: ties are broken by content, files are cut by ranges of doc_id and sorted.
"""

import logging
import pickle
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import ray
import ray.data

from raysberta.corpus.decontaminate import PASSAGE, held_out
from raysberta.corpus.duplicates import BANDS
from raysberta.corpus.evaluation_sets import all_read, evaluation_files, read_set
from raysberta.corpus.facts import CorpusFacts, Repeats
from raysberta.corpus.filter import Settings
from raysberta.corpus.length import counted_by
from raysberta.corpus.read import Shard, shards
from raysberta.corpus.settings import Corpus, Documents, TextSource
from raysberta.corpus.spread import band_parts, evaluation_passages, light, meet, overlaps, read_and_filter, samples, settle, write_part
from raysberta.corpus.verdicts import (
    IN_EVALUATION,
    IN_PASSAGES,
    Verdicts,
    apply_limits,
    check_readable,
    cluster_sizes,
    count,
    drop_exact,
    drop_near,
    repeated,
    tally,
)
from raysberta.errors import InputError
from raysberta.schema import DOCUMENT, REJECTED
from raysberta.spread import spread
from raysberta.storage.artifacts import Draft
from raysberta.work import Work, Workers

ROWS_PER_FILE = 200_000
HASHES_PER_TASK = 4_000_000
"""Rows of one range of one band that a task compares: some hundred megabytes at most."""
SAMPLES = 5
"""Documents of each source and reason for a person to read."""

log = logging.getLogger(__name__)


def run(work: Work[Documents]) -> CorpusFacts:
    """Write the tables `documents` (DOCUMENT) and `rejected` (REJECTED), sorted by doc_id; the facts count both, a source each.

    Beside them: `matches` (training document and the held-out one that it repeats), `clusters` (how many documents one stands for), `tally`
    (documents and bytes by source, language and reason), `samples` (some documents of each source and reason, cut), `report/reasons.svg`.

    Raises:
        InputError: a source is wrong, empty, or holds more broken records than corpus.failure_budget allows; or nothing is left.
    """
    sources, rules, workers, draft = work.settings.sources, work.settings.rules, work.workers, work.draft
    if not sources:
        draft.write_table("documents", DOCUMENT.empty_table())
        draft.write_table("rejected", REJECTED.empty_table())
        return CorpusFacts(sources={})
    blocks, tables = _filtered(work)
    verdicts = Verdicts.of(pa.concat_tables(tables), rules, [name for name, source in sources.items() if source.held_out])
    check_readable(verdicts, rules.failure_budget, sources)
    log.info("%d documents read, %d left by the rules for single ones", len(verdicts.reasons), len(verdicts.open()))
    ends = np.cumsum([table.num_rows for table in tables])
    places = [slice(end - table.num_rows, end) for table, end in zip(tables, ends.tolist(), strict=True)]
    drop_exact(verdicts)
    if rules.near_duplicates:
        drop_near(verdicts, _meetings(verdicts, blocks, places, workers))
    apply_limits(verdicts, {name: source.limit for name, source in sources.items()})
    repeats = _decontaminate(verdicts, blocks, places, rules, workers) if rules.decontaminate_ngram else Repeats()
    _write(verdicts, blocks, places, draft, workers)
    facts = _told(verdicts, sources, repeats, draft)
    _show(verdicts, blocks, places, draft, workers)
    return facts


def _filtered(work: Work[Documents]) -> tuple[list[ray.ObjectRef], list[pa.Table]]:
    """The judged documents as blocks in the object store, and the columns without text of each."""
    sources, rules, workers = work.settings.sources, work.settings.rules, work.workers
    settings = {
        name: Settings(rules, work.settings.languages, source.language, source.kind == "files", source.kind != "home_assistant_intents")
        for name, source in sources.items()
    }
    counts = counted_by(work.inputs, rules.tokenizer, "corpus.tokenizer")
    units = shards(sources)
    log.info("reading %s in %d work units", ", ".join(sources), len(units))
    ray.data.DataContext.get_current().enable_progress_bars = False
    task = partial(read_and_filter, sources=sources, settings=settings, counts=counts)
    judged = ray.data.from_items(
        [{"shard": pickle.dumps(unit)} for unit in _large_first(units)], override_num_blocks=len(units)
    ).map_batches(task, batch_size=1, batch_format="pyarrow", num_cpus=workers.cpus, compute=ray.data.TaskPoolStrategy(workers.workers))
    blocks = judged.materialize().to_arrow_refs()
    tables: list[pa.Table] = ray.get(spread(light, [(block,) for block in blocks], workers))
    filled = [index for index, table in enumerate(tables) if table.num_rows]
    if not filled:
        raise InputError(f"sources: there is not one record in {', '.join(sources)}")
    return [blocks[index] for index in filled], [tables[index] for index in filled]


def _large_first(units: Sequence[Shard]) -> list[Shard]:
    """Units of files by size, so that no worker starts the largest last."""
    return sorted(units, key=lambda unit: -sum(file.bytes for file in unit.files))


def _meetings(verdicts: Verdicts, blocks: Sequence[ray.ObjectRef], places: Sequence[slice], workers: Workers) -> np.ndarray:
    """Pairs of open documents that share a band, int64 [pairs, 2].

    Each block is cut by ranges of the hashes, each range is compared by a task of its own: a worker holds a block or one range, here come
    together only the pairs.
    """
    asked = (verdicts.reasons == "") & verdicts.column("signed")
    parts = max(1, -(-int(asked.sum()) // HASHES_PER_TASK))
    cut = [(block, asked[place], place.start, parts) for block, place in zip(blocks, places, strict=True)]
    pieces = spread(band_parts, cut, workers, returns=BANDS * parts)
    found = spread(meet, [tuple(piece[number] for piece in pieces) for number in range(BANDS * parts)], workers)
    return np.concatenate([*ray.get(found), np.empty((0, 2), np.int64)])


def _show(verdicts: Verdicts, blocks: Sequence[ray.ObjectRef], places: Sequence[slice], draft: Draft, workers: Workers) -> None:
    """What a person looks at: counts, a picture of them, and some documents of each reason."""
    from raysberta.pictures import stacked  # here: workers that import this module draw nothing

    table = tally(verdicts)
    draft.write_table("tally", table)
    draft.write_table("matches", repeated(verdicts))
    draft.write_table("clusters", cluster_sizes(verdicts))
    with draft.folder("report") as folder:
        (folder / "reasons.svg").write_text(stacked(_fates(table), "What became of the documents"), encoding="utf-8")
    asked = [(block, pa.array(verdicts.reasons[place], pa.string()), SAMPLES) for block, place in zip(blocks, places, strict=True)]
    drawn = pa.concat_tables(ray.get(spread(samples, asked, workers)))
    named = pa.array([reason.split(":", 1)[0] for reason in drawn.column("reason").to_pylist()], pa.string())
    drawn = drawn.append_column("named", named).sort_by([(name, "ascending") for name in ("source", "named", "doc_id", "reason", "group")])
    keys = list(zip(drawn.column("source").to_pylist(), drawn.column("named").to_pylist(), strict=True))
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    few = [index for index, key in enumerate(keys) if index - first[key] < SAMPLES]
    draft.write_table("samples", drawn.drop_columns(["named"]).take(few))


def _fates(table: pa.Table) -> dict[str, dict[str, int]]:
    """Documents by source and reason, the kept ones first."""
    fates: dict[str, dict[str, int]] = {}
    for row in table.sort_by([("source", "ascending"), ("reason", "ascending")]).to_pylist():
        own = fates.setdefault(row["source"], {"kept": 0})
        reason = row["reason"] or "kept"
        own[reason] = own.get(reason, 0) + row["documents"]
    return fates


def _decontaminate(
    verdicts: Verdicts, blocks: Sequence[ray.ObjectRef], places: Sequence[slice], rules: Corpus, workers: Workers
) -> Repeats:
    """Drop training documents that say what a held-out one or a test text says, and where asked what passages of benchmarks say."""
    size = rules.decontaminate_ngram
    training = verdicts.splits == "train"
    stays = verdicts.reasons == ""
    kept_out = stays & ~training
    told = [(block, kept_out[place], size) for block, place in zip(blocks, places, strict=True)]
    public = spread(read_set, [(file, size) for file in evaluation_files(rules.evaluation_sets)], workers)
    own = spread(evaluation_passages, told, workers)
    known = ray.put(held_out([*ray.get(own), *all_read(ray.get(public))]))
    trained_on = stays & training
    asked = [(block, trained_on[place], size, known) for block, place in zip(blocks, places, strict=True)]
    texts = passages = 0
    for place, matches in zip(places, ray.get(spread(overlaps, asked, workers)), strict=True):
        for index, match in zip(range(place.start, place.stop), matches, strict=True):
            if match is not None and match.startswith(PASSAGE):
                passages += 1
                if rules.decontaminate_passages:
                    verdicts.reasons[index] = IN_PASSAGES + match.removeprefix(PASSAGE)
            elif match is not None:
                texts += 1
                verdicts.reasons[index] = IN_EVALUATION + match
    log.info("%d training documents share words with a held-out one or a test text, %d with passages of benchmarks", texts, passages)
    return Repeats(texts=texts, passages=passages, passages_dropped=rules.decontaminate_passages)


def _write(verdicts: Verdicts, blocks: Sequence[ray.ObjectRef], places: Sequence[slice], draft: Draft, workers: Workers) -> None:
    """Cut every block by ranges of doc_id, bring the pieces of a range together, sort and write them."""
    parts = max(1, -(-len(verdicts.reasons) // ROWS_PER_FILE))
    asked = [
        (block, pa.array(verdicts.reasons[place], pa.string()), pa.array(verdicts.splits[place], pa.string()), parts)
        for block, place in zip(blocks, places, strict=True)
    ]
    pieces = spread(settle, asked, workers, returns=2 * parts)
    for offset, name in ((0, "documents"), (parts, "rejected")):
        written = ray.get(
            spread(write_part, [(draft, name, part, *(piece[offset + part] for piece in pieces)) for part in range(parts)], workers)
        )
        log.info("%s: %d rows", name, sum(written))


def _told(verdicts: Verdicts, sources: Mapping[str, TextSource], repeats: Repeats, draft: Draft) -> CorpusFacts:
    """Count what was read, kept and dropped."""
    counts = count(verdicts, sources)
    draft.rows_in = len(verdicts.reasons)
    draft.rows_out = len(verdicts.open())
    for name, counted in counts.items():
        dropped = ", ".join(f"{reason} {number:,}" for reason, number in counted.dropped.items())
        log.info("%s: %d of %d documents kept%s", name, counted.kept, counted.read, f"; dropped {dropped}" if dropped else "")
        for reason, number in counted.dropped.items():
            draft.drop(reason, number)
    if not draft.rows_out:
        raise InputError(f"sources: not one document is left after filtering; dropped {draft.dropped}")
    return CorpusFacts(sources=counts, repeats=repeats)
