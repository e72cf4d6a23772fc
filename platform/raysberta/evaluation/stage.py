"""Held-out tasks, the check of a registered benchmark, and scores as Ray tasks: a model is scored from its folder, aside."""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from raysberta.errors import InputError
from raysberta.evaluation import task_folder
from raysberta.evaluation.bootstrap import interval
from raysberta.evaluation.facts import BenchmarkFacts, ScoreDetail, ScoresFacts, TaskFacts, TasksFacts
from raysberta.evaluation.means import two_means
from raysberta.evaluation.settings import Benchmark, HeldOutTasks, ModelScores, Scoring
from raysberta.storage.artifacts import Artifact, Draft
from raysberta.work import Work

if TYPE_CHECKING:
    from raysberta.evaluation.score import Scored

log = logging.getLogger(__name__)

NOISY = ("mteb", "datasets", "transformers")
DRAWS = pa.schema([("task", pa.string()), ("draws", pa.list_(pa.float64()))])


def tasks(work: Work[HeldOutTasks]) -> TasksFacts:
    """Held-out tasks from the dev and test documents and pairs, into the folder `tasks`.

    Raises:
        InputError: a task comes out too small, or bears a public task's name.
    """
    settings, draft = work.settings, work.draft
    pairs, documents = work.inputs[settings.pairs], work.inputs[settings.documents]
    with draft.folder(task_folder.FOLDER) as folder:
        index = task_folder.write(
            folder, settings.tasks, pairs.dataset("pairs"), documents.dataset("documents"), work.seed, settings.general
        )
    draft.rows_in = pairs.rows("pairs") + documents.rows("documents")
    draft.rows_out = sum(half.scored for task in index.tasks.values() for half in task.halves.values())
    for rows in index.left_out.values():
        draft.drop("in training or in the other half", rows)
    sizes = ", ".join(f"{name} {task.halves['test'].scored}" for name, task in index.tasks.items())
    log.info("%s: %d tasks: %s", work.node, len(index.tasks), sizes)
    return TasksFacts(tasks=index.tasks)


def benchmark(work: Work[Benchmark]) -> BenchmarkFacts:
    """Compare every file of a registered benchmark's snapshot with the hash that its index has of it. Nothing is written.

    Raises:
        InputError: the snapshot is missing, of another benchmark or revision, or altered, or lacks a task that is said to be in domain.
    """
    from raysberta.evaluation import snapshot

    settings = work.settings
    found = sorted(snapshot.load(settings.name, settings.snapshot, hashes=True))
    for name in settings.in_domain:
        if name not in found:
            raise InputError(f"benchmarks.{work.node}.in_domain: the snapshot has no task {name!r}; right would be {', '.join(found)}")
    work.draft.rows_out = len(found)
    log.info("%s: %d tasks of %s are whole", work.node, len(found), settings.name)
    return BenchmarkFacts(name=settings.name, snapshot=settings.snapshot, tasks=found, in_domain=sorted(settings.in_domain))


def score(work: Work[ModelScores]) -> ScoresFacts:
    """Score a model on the test halves of the held-out tasks and on the registered benchmarks.

    Writes the folders `results` with mteb's full result of each task and `items` with a table of what each query, pair or text adds to
    its score (items.py), and the table `draws` (DRAWS): the score of each task in each draw of the bootstrap, the same draws whatever
    the model. A model that was scored before under another name is not scored again.

    Raises:
        InputError: there is no task at all, or a benchmark's snapshot is missing or altered.
    """
    from raysberta.evaluation.same import content_of, scored_before

    own = _own_tasks(work)
    wanted = _wanted(work, own)
    content = content_of(work.inputs[work.settings.model].folder("model"))
    before = scored_before(work, content)
    if before is not None:
        return _taken(work, before)
    started = time.monotonic()
    parts = _score(work, wanted)
    done = {key: one for part in parts for key, one in part.scores.items()}
    found = {one.key: done[one.key] for one in wanted}
    _write(work.draft, found)
    work.draft.rows_out = len(found)
    scores = {key: one.score for key, one in found.items()}
    details = {one.key: _detail(one, found[one.key], own.get(one.task)) for one in wanted}
    means = two_means(scores, [key for key, detail in details.items() if detail.general])
    log.info("%s: %s, %d tasks in %.1f s", work.node, means, len(found), time.monotonic() - started)
    return ScoresFacts(
        scores=scores,
        details=details,
        seconds={key: one.seconds for key, one in found.items()},
        pooling=parts[0].pooling,
        prefixes=parts[0].prefixes,
        content=content,
        taken_from=None,
    )


def _taken(work: Work[ModelScores], scores: Artifact) -> ScoresFacts:
    """Take scores over."""
    for name in ("results", "items"):
        with work.draft.folder(name) as folder:
            shutil.copytree(scores.folder(name), folder, dirs_exist_ok=True)
    work.draft.write_table("draws", scores.table("draws"))
    told = scores.told(ScoresFacts)
    work.draft.rows_out = len(told.scores)
    log.info("%s: the same model as that of %s, whose scores are taken over", work.node, scores.manifest.id)
    return told.model_copy(update={"taken_from": told.taken_from or scores.manifest.id})


@dataclass(frozen=True)
class _Wanted:
    """A task to score on."""

    key: str
    """What its score is kept under."""
    task: str
    """Its own name."""
    benchmark: BenchmarkFacts | None
    """The registered benchmark it is of; None of a held-out task."""


@dataclass(frozen=True)
class _Score:
    """What the model scored on one task."""

    score: float
    result: dict[str, Any]
    seconds: float
    type: str
    items: pa.Table | None
    """One row an item; None where mteb does not tell."""
    draws: np.ndarray | None
    """float64 [draws]: the score of each draw of the bootstrap; None where there are no items."""


@dataclass(frozen=True)
class _Part:
    """What one worker found, in plain types: whoever reads it needs no mteb."""

    scores: dict[str, _Score]
    pooling: str
    prefixes: dict[str, str]


def _write(draft: Draft, found: Mapping[str, _Score]) -> None:
    """Results, items and draws of each task."""
    with draft.folder("results") as folder:
        for key, one in found.items():
            (folder / f"{key}.json").write_text(json.dumps(one.result, ensure_ascii=False, indent=2), encoding="utf-8")
    with draft.folder("items") as folder:
        for key, one in found.items():
            if one.items is not None:
                pq.write_table(one.items, folder / f"{key}.parquet", compression="zstd")
    drawn = [{"task": key, "draws": one.draws} for key, one in found.items() if one.draws is not None]
    draft.write_table("draws", pa.Table.from_pylist(drawn, DRAWS))


def _own_tasks(work: Work[ModelScores]) -> dict[str, TaskFacts]:
    """The held-out tasks, by name."""
    tasks = work.settings.tasks
    return {} if tasks is None else work.inputs[tasks].told(TasksFacts).tasks


def _wanted(work: Work[ModelScores], own: Mapping[str, TaskFacts]) -> list[_Wanted]:
    """The held-out tasks as they stand, then those of all benchmarks by name; a name that is taken gets its benchmark's behind it."""
    found = {name: _Wanted(name, name, None) for name in own}
    by_name = {facts.name: facts for facts in (work.inputs[ref].told(BenchmarkFacts) for ref in work.settings.benchmarks)}
    for facts in by_name.values():  # one benchmark under two names counts once
        for name in facts.tasks:
            key = name if name not in found else f"{name}, {facts.name}"
            found[key] = _Wanted(key, name, facts)
    if not found:
        raise InputError(f"{work.node}: no task to score on; right would be entries under tasks or benchmarks")
    return [*(found[name] for name in own), *(found[key] for key in sorted(set(found) - set(own)))]


def _score(work: Work[ModelScores], wanted: Sequence[_Wanted]) -> list[_Part]:
    """The tasks dealt out to the workers, none left empty."""
    workers, tasks = work.workers, work.settings.tasks
    task = ray.remote(_score_part).options(name=work.node, num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=0)
    count = min(workers.workers, len(wanted))
    common = work.inputs[work.settings.model], None if tasks is None else work.inputs[tasks], work.settings.how, workers.cpus
    return ray.get([task.remote(wanted[worker::count], *common) for worker in range(count)])


def _score_part(wanted: Sequence[_Wanted], model: Artifact, tasks: Artifact | None, how: Scoring, cpus: float) -> _Part:
    """Scores of one worker's share of the tasks."""
    import torch

    from raysberta.evaluation import snapshot
    from raysberta.evaluation.score import Scored, score_own, score_tasks
    from raysberta.retrieval.embed import Embedder

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    torch.set_num_threads(max(1, int(cpus)))
    embedder = Embedder(model.folder("model"), how.max_tokens, how.precision)
    prefixes, revision = embedder.description.prefixes, model.manifest.fingerprint
    scored = Scored()
    own = [one.task for one in wanted if one.benchmark is None]
    if own and tasks is not None:
        scored = score_own(embedder.encode, prefixes, tasks, "test", own, revision=revision)
    for place in sorted({(one.benchmark.name, one.benchmark.snapshot) for one in wanted if one.benchmark is not None}):
        loaded = snapshot.load(*place)
        chosen = {one.key: loaded[one.task] for one in wanted if one.benchmark and (one.benchmark.name, one.benchmark.snapshot) == place}
        scored.add(score_tasks(chosen, embedder.encode, prefixes, overrides=snapshot.overrides(prefixes), revision=revision))
    return _Part({key: _one(scored, key) for key in scored.scores}, embedder.description.pooling, prefixes.model_dump())


def _one(scored: "Scored", key: str) -> _Score:
    """A task's score with its draws."""
    from raysberta.evaluation import items

    table, result = scored.items[key], scored.results[key]
    drawn = None if table is None else items.draws(table, items.seed_of(key, result["dataset_revision"]))
    return _Score(scored.scores[key], result, scored.seconds[key], scored.types[key], table, drawn)


def _detail(wanted: _Wanted, found: _Score, own: TaskFacts | None) -> ScoreDetail:
    """What a model card says of one score: the data set, its split and revision, and every metric of the first subset."""
    split, subsets = next(iter(found.result["scores"].items()))
    first = subsets[0]
    metrics = {key: value for key, value in first.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    held_out = own if wanted.benchmark is None else None
    in_domain = wanted.benchmark is not None and wanted.task in wanted.benchmark.in_domain
    return ScoreDetail(
        dataset=f"held out from {held_out.source}" if held_out else wanted.task,
        held_out=held_out is not None,
        general=not in_domain and (held_out is None or held_out.general),
        type=found.type,
        config=first["hf_subset"],
        split=split,
        revision=found.result["dataset_revision"],
        languages=first["languages"],
        metrics={key: value for key, value in metrics.items() if not key.startswith("nauc")},
        scored=held_out.halves["test"].scored if held_out else None,
        interval=None if found.draws is None else interval(found.score, found.draws),
    )
