"""Run a plan on Ray: each node one named task, started when what it is made from is committed and its cores and GPUs are free.

Every node is made under a lease, so runs that share nodes make each once: the one that has the lease makes it, the others wait for it.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from raysberta.board import open_board
from raysberta.errors import InputError, StageFailed
from raysberta.evaluation.facts import ScoresFacts
from raysberta.evaluation.means import Means, two_means
from raysberta.evaluation.same import as_merged
from raysberta.evaluation.settings import ModelScores
from raysberta.pipeline.cluster import Cluster
from raysberta.pipeline.plan import Plan, Planned
from raysberta.pipeline.view import Event, View
from raysberta.pipeline.worker import stage_task
from raysberta.storage.artifacts import Artifact, Draft, Store
from raysberta.storage.leases import Leases
from raysberta.storage.location import first_line
from raysberta.telemetry import gauge, repeat
from raysberta.work import Facts, Work

log = logging.getLogger(__name__)

WORKER_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
}
LOOK_SECONDS = 1.0
"""Between two looks at what runs, what is said, and what other runs have made."""
LOST = (ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError)
"""What Ray raises where a process or its machine is gone."""
RESTARTS = 3
"""Of a node whose process, or machine, is gone. What kills its process by itself does so again, and is told then."""


@dataclass
class _Running:
    planned: Planned
    draft: Draft
    started: float


class _Lost(Exception):
    """The process that led a stage is gone, by itself or with its machine."""


@dataclass
class Outcome:
    """What a run left, by the ids of the artifacts."""

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    """Titles of nodes that were there before, or that another run made meanwhile."""
    seconds: float = 0.0


def connect(network: bool = False, show_logs: bool = False) -> None:
    """Join the Ray that this process was submitted to, or the one that runs here, or start a local one.

    The package travels as a module of the job, so workers run the code of this checkout and no other.

    Args:
        network: Whether models may be fetched from a hub.
        show_logs: Whether what workers print comes to this process's standard error.
    """
    package = Path(__file__).parents[1]
    environment = dict(WORKER_ENVIRONMENT)
    if network:
        environment["HF_HUB_OFFLINE"] = "0"
    if not ray.is_initialized():
        ray.init(
            runtime_env={"py_modules": [str(package)], "env_vars": environment},
            logging_level=logging.ERROR,
            configure_logging=True,
            log_to_driver=show_logs,
        )


def execute(plan: Plan, store: Store, view: View) -> Outcome:
    """Run what is not there yet.

    Raises:
        InputError: a stage found its input to be wrong, or asks for more than the cluster has.
        StageFailed: a stage broke, or its process was lost more than RESTARTS times. What was committed stays; what runs beside it is
            stopped.
    """
    limits = plan.recipes[0].limits
    run = _Run(plan, store, view, Leases(store, limits.lease_seconds), Cluster(limits.wait_for_nodes, 60 * limits.wait_minutes))
    try:
        return run.all()
    except OSError as error:  # a full disk, an object store that does not answer
        raise StageFailed(f"storage {store.shown}: {first_line(error)}") from error


class _Run:
    """The state of one execution."""

    def __init__(self, plan: Plan, store: Store, view: View, leases: Leases, cluster: Cluster) -> None:
        self.plan, self.store, self.view, self.leases, self.cluster = plan, store, view, leases, cluster
        self.outcome = Outcome()
        self.begun = time.monotonic()
        self.running: dict[ray.ObjectRef, _Running] = {}
        order = {item.id: (-plan.chains[item.id], place) for place, item in enumerate(plan.nodes)}
        self.waiting = sorted((item for item in plan.nodes if item.artifact is None), key=lambda item: order[item.id])
        self.told_to_wait: set[str] = set()
        self.lost: Counter[str] = Counter()
        """How often each node's process was."""

    def all(self) -> Outcome:
        """Everything, until it is done."""
        for item in self.plan.nodes:
            if item.artifact is not None:
                self._take_over(item, item.artifact)
        if self.outcome.reused:
            self.view.show(Event("said", text=f"reused: {', '.join(self.outcome.reused)}"))
        for item in self.waiting:
            self.cluster.check(item.title, item.workers)
        board = open_board() if self.waiting else None
        with self._leased():
            while self.waiting or self.running:
                self._start_ready()
                done, _ = ray.wait(list(self.running), num_returns=1, timeout=LOOK_SECONDS) if self.running else ([], [])
                if not self.running:
                    time.sleep(LOOK_SECONDS)
                repeat()
                self._show(board)
                for ref in done:
                    self._finish(ref)
        if board is not None:
            ray.kill(board)
        self.outcome.seconds = time.monotonic() - self.begun
        return self.outcome

    @contextmanager
    def _leased(self) -> Iterator[None]:
        """Whatever happens, what runs is stopped and no lease is kept."""
        try:
            yield
        finally:
            for ref in self.running:
                ray.cancel(ref, force=True, recursive=True)
            self.cluster.close()
            self.leases.close()

    def _start_ready(self) -> None:
        """Start, longest chain first, what is ready and fits beside what runs; take over what another run has made."""
        ready = [item for item in self.waiting if all(feed in self.outcome.artifacts for feed in item.inputs.values())]
        ready = [item for item in ready if not self._scored_elsewhere(item)]
        free = self.cluster.free([(item.planned.title, item.planned.workers) for item in self.running.values()])
        self.cluster.ask([item.workers for item in ready] + [item.planned.workers for item in self.running.values()])
        started = False
        for item in ready:
            if not free.holds(item.workers):
                continue
            holder = self.leases.take(item.node.kind, item.fingerprint)
            if holder is not None:
                if not self._other_made(item) and item.id not in self.told_to_wait:
                    self.told_to_wait.add(item.id)
                    self.view.show(Event("waits", item.title, f"another run makes it ({holder}); waiting for that"))
                continue
            if self._other_made(item) or not self.leases.holds(item.node.kind, item.fingerprint):  # drafting removes others' attempts
                self.leases.give(item.node.kind, item.fingerprint)
                continue
            free.take(item.workers)
            self._start(item)
            started = True
        if not started and not self.running and ready:
            self.cluster.patience(ready[0].title, ready[0].workers)

    def _scored_elsewhere(self, item: Planned) -> bool:
        """Whether a model that a merge left as it is has scores still to come: scored after them, it takes them over."""
        if not isinstance(item.node.settings, ModelScores):
            return False
        model = item.inputs[item.node.settings.model]
        first = as_merged(self.outcome.artifacts[model])
        if first == model:
            return False
        wanted = {first if feed == model else feed for feed in item.inputs.values()}
        unfinished = [*self.waiting, *(each.planned for each in self.running.values())]
        return any(each.node.kind == item.node.kind and {*each.inputs.values()} == wanted for each in unfinished)

    def _start(self, item: Planned) -> None:
        self.waiting.remove(item)
        draft = self.store.draft(item.node.kind, item.fingerprint)
        inputs = {name: self.outcome.artifacts[feed] for name, feed in item.inputs.items()}
        work = Work(item.node.settings, inputs, draft, item.workers, item.seed, item.title)
        ref = stage_task.options(name=item.title, **self.cluster.place(item.stage.memory_gib)).remote(item.stage.run, work)
        self.running[ref] = _Running(item, draft, time.time())
        self.view.show(Event("started", item.title))

    def _other_made(self, item: Planned) -> bool:
        """Take a node over that another run has committed meanwhile."""
        artifact = self.store.find(item.node.kind, item.fingerprint)
        if artifact is None:
            return False
        self.waiting.remove(item)
        self._take_over(item, artifact)
        self.view.show(Event("done", item.title, "made by another run"))
        return True

    def _take_over(self, item: Planned, artifact: Artifact) -> None:
        self.outcome.artifacts[item.id] = artifact
        self.outcome.reused.append(item.title)
        _measure(item.title, artifact)

    def _finish(self, ref: ray.ObjectRef) -> None:
        item = self.running.pop(ref)
        planned, title = item.planned, item.planned.title
        try:
            draft, facts = _result(ref, title)
        except _Lost as error:
            self._again(planned, str(error))
            return
        if not self.leases.holds(planned.node.kind, planned.fingerprint):
            raise StageFailed(f"{title}: this run stood still for so long that its lease ran out; run it again")
        artifact = self.store.commit(
            draft, planned.node.kind, planned.fingerprint, planned.identity, planned.inputs, planned.seed, item.started, facts
        )
        self.leases.give(planned.node.kind, planned.fingerprint)
        self.outcome.artifacts[planned.id] = artifact
        self.view.show(Event("done", title, _told(artifact, time.monotonic() - self.begun)))
        _measure(title, artifact)

    def _again(self, item: Planned, why: str) -> None:
        """Let a node whose process is gone wait for its turn once more: it goes on from what it has kept on storage."""
        self.lost[item.id] += 1
        if self.lost[item.id] > RESTARTS:
            raise StageFailed(f"{item.title}: its process was lost {self.lost[item.id]} times, the last time: {why}")
        self.leases.give(item.node.kind, item.fingerprint)
        self.waiting.insert(0, item)
        self.view.show(Event("warned", item.title, f"{item.title}: its process was lost and is started again ({why})"))

    def _show(self, board: Any) -> None:
        """What the processes of the run have said."""
        if board is None:
            return
        try:
            reports, warnings = ray.get(board.read.remote(), timeout=5)
        except ray.exceptions.RayError:
            return
        for report in reports:
            self.view.show(Event("progress", report.node, report.what, report.done, report.total))
        for text in warnings:
            self.view.show(Event("warned", text=text))


def _result(ref: ray.ObjectRef, title: str) -> tuple[Draft, Facts]:
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        wrong = _input_error(error)
        if wrong is not None:
            raise InputError(f"{title}: {wrong}") from error
        lost = next((cause for cause in _causes(error) if isinstance(cause, LOST)), None)
        if lost is not None:  # its leading process, or a task of it that Ray did not start again, or not once more
            raise _Lost(_last_line(lost).partition(". ")[0]) from error  # what follows is where to look, for who cares for one process
        raise StageFailed(f"{title}: {_last_line(error)}") from error


def _told(artifact: Artifact, since: float) -> str:
    manifest = artifact.manifest
    dropped = f"; dropped {', '.join(f'{reason} {rows:,}' for reason, rows in manifest.dropped.items())}" if manifest.dropped else ""
    rows = f": {manifest.rows_in:,} in, {manifest.rows_out:,} out" if manifest.rows_in or manifest.rows_out else ""
    means = f", {_means(artifact)}" if manifest.kind == "score" else ""
    return f"done in {manifest.seconds:.1f} s ({since:.0f} s since the start){rows}{means}{dropped}"


def _means(scores: Artifact) -> Means:
    facts = scores.told(ScoresFacts)
    return two_means(facts.scores, [task for task, detail in facts.details.items() if detail.general])


def _measure(title: str, artifact: Artifact) -> None:
    """A node's figures as metrics on the dashboard."""
    manifest = artifact.manifest
    gauge("stage_seconds", manifest.seconds, stage=title)
    gauge("rows_out", manifest.rows_out, stage=title)
    for reason, rows in manifest.dropped.items():
        gauge("dropped", rows, stage=title, reason=reason)
    if manifest.kind in ("corpus", "natural"):
        gauge("documents" if manifest.kind == "corpus" else "pairs", manifest.rows_out)
    if manifest.kind == "score":
        for side, mean in vars(_means(artifact)).items():
            if mean is not None:
                gauge("score_mean", 100 * mean, model=title, tasks=side)


def _input_error(error: BaseException | None) -> InputError | None:
    """The InputError that a failure carries, however deeply Ray wrapped it."""
    for cause in _causes(error):
        if isinstance(cause, InputError) and not isinstance(cause, ray.exceptions.RayError):
            return InputError(str(cause).splitlines()[0])  # Ray Data appends lines of its own
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """A failure and what it carries, each once."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        found = todo.pop()
        if found is None or any(found is known for known in seen):
            continue
        yield found
        seen.append(found)
        todo.extend([found.__cause__, getattr(found, "cause", None)])
        todo.extend(getattr(found, "worker_failures", {}).values())


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def link_latest(store: Store, name: str, artifact: Artifact) -> Path | None:
    """Point `<storage>/latest-<recipe>` at a release, where storage is a folder."""
    if not store.local or "://" in store.uri:
        return None
    link = Path(store.uri) / f"latest-{name}"
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(artifact.uri, link.parent))
    aside.replace(link)
    return link
