"""Held-out tasks, the check of a registered benchmark, and scores as Ray tasks: a model is scored from its folder, aside."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from raysberta.errors import InputError
from raysberta.evaluation import task_folder
from raysberta.evaluation.bootstrap import interval
from raysberta.evaluation.facts import BenchmarkFacts, ScoreDetail, ScoresFacts, TaskFacts, TasksFacts
from raysberta.evaluation.job import Job, Wanted
from raysberta.evaluation.kept import Score
from raysberta.evaluation.means import two_means
from raysberta.evaluation.same import scored_before
from raysberta.evaluation.settings import VERSION, Benchmark, HeldOutTasks, ModelScores
from raysberta.models.describe import Description, describe
from raysberta.prefixes import Prefixes
from raysberta.progress import progress
from raysberta.storage.artifacts import Artifact, Draft, fingerprint, versions
from raysberta.storage.location import join
from raysberta.work import Work

if TYPE_CHECKING:
    from raysberta.evaluation.units import Unit

log = logging.getLogger(__name__)

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
    the model. A model that was scored before under another name is not scored again; nor is a task whose score a killed run has kept.

    Raises:
        InputError: there is no task at all, or a benchmark's snapshot is missing or altered.
    """
    own = _own_tasks(work)
    wanted = _wanted(work, own)
    content, said, arithmetic = ray.get(_remote(work, _content).remote(work.inputs[work.settings.model]))
    before = scored_before(work, content)
    if before is not None:
        return _taken(work, before)
    started = time.monotonic()
    job = _job(work, content, arithmetic, said.prefixes)
    found = _score(work, wanted, job)
    _write(work.draft, found)
    work.draft.spent.append(job.scores)
    work.draft.rows_out = len(found)
    scores = {key: one.score for key, one in found.items()}
    details = {one.key: _detail(one, found[one.key], own.get(one.task)) for one in wanted}
    means = two_means(scores, [key for key, detail in details.items() if detail.general])
    log.info("%s: %s, %d tasks in %.1f s", work.node, means, len(found), time.monotonic() - started)
    return ScoresFacts(
        scores=scores,
        details=details,
        seconds={key: one.seconds for key, one in found.items()},
        pooling=said.pooling,
        prefixes=said.prefixes.model_dump(exclude_none=True),
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


def _write(draft: Draft, found: Mapping[str, Score]) -> None:
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


def _wanted(work: Work[ModelScores], own: Mapping[str, TaskFacts]) -> list[Wanted]:
    """The held-out tasks as they stand, then those of all benchmarks by name; a name that is taken gets its benchmark's behind it."""
    tasks, benchmarks = work.settings.tasks, [work.inputs[ref] for ref in work.settings.benchmarks]
    found = {name: Wanted(name, name, work.inputs[tasks].manifest.id, None) for name in own} if tasks is not None else {}
    by_name = {facts.name: (benchmark.manifest.id, facts) for benchmark in benchmarks for facts in [benchmark.told(BenchmarkFacts)]}
    for source, facts in by_name.values():  # one benchmark under two names counts once
        for name in facts.tasks:
            key = name if name not in found else f"{name}, {facts.name}"
            found[key] = Wanted(key, name, source, facts)
    if not found:
        raise InputError(f"{work.node}: no task to score on; right would be entries under tasks or benchmarks")
    return [*(found[name] for name in own), *(found[key] for key in sorted(set(found) - set(own)))]


def _job(work: Work[ModelScores], content: str, arithmetic: int, prefixes: Prefixes) -> Job:
    """What is scored, and where what is made of it lies: texts by what decides them, vectors by what decides them."""
    settings, inputs, how = work.settings, work.inputs, work.settings.how
    asked = {"prefixes": prefixes.model_dump(exclude_none=True), "mteb": versions().get("mteb"), "version": VERSION}
    made = {"content": content, "arithmetic": arithmetic, "torch": versions().get("torch")}
    made |= {"max_tokens": how.max_tokens, "precision": how.precision}
    return Job(
        node=work.node,
        model=inputs[settings.model],
        prefixes=prefixes,
        tasks=None if settings.tasks is None else inputs[settings.tasks],
        how=how,
        cpus=work.workers.cpus,
        texts=join(work.draft.vectors, fingerprint("texts", asked)),
        vectors=join(work.draft.vectors, fingerprint("vectors", made)),
        scores=join(work.draft.checkpoints, "scores"),
    )


def _score(work: Work[ModelScores], wanted: Sequence[Wanted], job: Job) -> dict[str, Score]:
    """The scores, by the steps of steps.py: all in one process where the stage has one and no GPU, else over its workers."""
    if work.workers.workers == 1 and not work.workers.gpus:
        ray.get(_remote(work, _here).remote(job, wanted))
    else:
        from raysberta.evaluation.steps import score_all

        score_all(job, wanted, partial(_spread, work), partial(_embed, work, job))
    found = {one.key: job.score_of(one) for one in wanted}
    return {key: score for key, score in found.items() if score is not None}


def _here(job: Job, wanted: Sequence[Wanted]) -> None:
    from raysberta.evaluation.steps import score_here

    score_here(job, wanted)


def _content(model: Artifact) -> tuple[str, Description, int]:
    """A hash of the model's content, what its folder says of its use, and the version of the arithmetic that embeds with it."""
    from raysberta.evaluation.content import content_of
    from raysberta.retrieval.embed import VERSION as ARITHMETIC

    return content_of(model.folder("model")), describe(model.folder("model")), ARITHMETIC


def _remote(work: Work[ModelScores], function: Callable[..., Any]) -> Any:
    """A step as a Ray task with a worker's cores. It may be done again: what it writes is the same."""
    return ray.remote(function).options(name=work.node, num_cpus=work.workers.cpus)


def _spread(work: Work[ModelScores], step: Callable[..., None], arguments: Iterable[tuple[Any, ...]]) -> None:
    """A step for each of some tasks, as many at once as the stage has workers."""
    task, running = _remote(work, step), list[Any]()
    for each in arguments:
        if len(running) == work.workers.workers:
            done, running = ray.wait(running, num_returns=1)
            ray.get(done)
        running.append(task.remote(*each))
    ray.get(running)


def _embed(work: Work[ModelScores], job: Job, units: "list[Unit]") -> None:
    """Units over the pool of actors that mining embeds with."""
    from raysberta.evaluation.units import UnitEmbedder
    from raysberta.retrieval.workers import pooled

    done, total = 0, sum(len(unit.rows) for unit in units)
    blocks = [pa.Table.from_pylist([vars(unit)]) for unit in units]
    for batch in pooled(blocks, UnitEmbedder, (job,), work.workers) if blocks else ():
        done += pc.sum(batch["rows"]).as_py()
        progress(work.node, "texts embedded", done, total)


def _detail(wanted: Wanted, found: Score, own: TaskFacts | None) -> ScoreDetail:
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
