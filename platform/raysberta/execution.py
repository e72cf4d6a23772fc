"""Run a plan on Ray: each stage one named task, started when its inputs are committed and its cores and GPUs are free."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from raysberta.artifacts import Artifact, Draft, Store
from raysberta.errors import InputError
from raysberta.pipeline import Planned
from raysberta.recipe import Recipe, Workers
from raysberta.telemetry import gauge, repeat
from raysberta.worker import stage_task

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
HEARTBEAT_SECONDS = 30.0


@dataclass
class _Running:
    planned: Planned
    draft: Draft
    started: float


@dataclass
class Outcome:
    """What a run left: the artifact of each stage, and which were there before."""

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    seconds: float = 0.0


class StageFailed(Exception):
    """A stage raised; the message names it and the cause."""


def connect(network: bool = False) -> None:
    """Join the Ray that this process was submitted to, or the one that runs here, or start a local one.

    The package travels as a module of the job, so workers run the code of this checkout and no other.
    """
    package = Path(__file__).parent
    environment = dict(WORKER_ENVIRONMENT)
    if network:
        environment["HF_HUB_OFFLINE"] = "0"
    if not ray.is_initialized():
        ray.init(
            runtime_env={"py_modules": [str(package)], "env_vars": environment},
            logging_level=logging.WARNING,
            configure_logging=True,
        )


def execute(recipe: Recipe, store: Store, planned: Sequence[Planned]) -> Outcome:
    """Run what is not there yet.

    Raises:
        InputError: a stage found its input to be wrong, or asks for more than the cluster has.
        StageFailed: a stage broke. What was committed stays; what runs beside it is stopped.
    """
    begun = time.monotonic()
    outcome = Outcome()
    for item in planned:
        if item.artifact is not None:
            outcome.artifacts[item.stage.name] = item.artifact
            outcome.reused.append(item.stage.name)
            _show(item.artifact)
    waiting = [item for item in planned if item.artifact is None]
    if outcome.reused:
        log.info("reused: %s", ", ".join(outcome.reused))
    total = ray.cluster_resources()
    for item in waiting:
        _fits(item, recipe, total)
    running: dict[ray.ObjectRef, _Running] = {}
    shown = time.monotonic()
    with _locked(store):
        try:
            while waiting or running:
                waiting = _start_ready(recipe, store, waiting, running, outcome, total)
                done, _ = ray.wait(list(running), num_returns=1, timeout=5)
                repeat()
                for ref in done:
                    _finish(recipe, store, running, ref, outcome, begun)
                if running and time.monotonic() - shown > HEARTBEAT_SECONDS:
                    shown = time.monotonic()
                    log.info(
                        "running: %s",
                        ", ".join(f"{item.planned.stage.name} ({time.time() - item.started:.0f} s)" for item in running.values()),
                    )
        finally:
            for ref in running:
                ray.cancel(ref, force=True, recursive=True)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _ask(workers: Workers) -> tuple[float, float]:
    return workers.workers * workers.cpus, workers.workers * workers.gpus


def _fits(item: Planned, recipe: Recipe, total: Mapping[str, float]) -> None:
    cpus, gpus = _ask(item.stage.resources(recipe))
    if recipe.resources.wait_for_nodes:
        return
    for kind, asked in (("CPU", cpus), ("GPU", gpus)):
        if asked > total.get(kind, 0):
            raise InputError(
                f"resources.{item.stage.runs_on}: {item.stage.name} asks for {asked:g} {kind}, the cluster has {total.get(kind, 0):g}; "
                "lower it, or set resources.wait_for_nodes where an autoscaler brings more"
            )


def _start_ready(
    recipe: Recipe,
    store: Store,
    waiting: list[Planned],
    running: dict[ray.ObjectRef, _Running],
    outcome: Outcome,
    total: Mapping[str, float],
) -> list[Planned]:
    """Start, in order of priority, what is ready and fits beside what runs; return what still waits."""
    asked = [_ask(item.planned.stage.resources(recipe)) for item in running.values()]
    cpus, gpus = (total.get("CPU", 0) - sum(ask[0] for ask in asked), total.get("GPU", 0) - sum(ask[1] for ask in asked))
    left = []
    for item in waiting:
        need = _ask(item.stage.resources(recipe))
        ready = all(name in outcome.artifacts for name in item.stage.inputs)
        fits = (need[0] <= cpus and need[1] <= gpus) or (recipe.resources.wait_for_nodes and not running)
        if not (ready and fits):
            left.append(item)
            continue
        cpus, gpus = cpus - need[0], gpus - need[1]
        draft = store.draft(item.stage.name, item.fingerprint)
        inputs = {name: outcome.artifacts[name] for name in item.stage.inputs}
        ref = stage_task.options(name=item.stage.name).remote(item.stage.run, recipe, inputs, draft)
        running[ref] = _Running(item, draft, time.time())
        log.info("%s: started", item.stage.name)
    return left


def _finish(
    recipe: Recipe, store: Store, running: dict[ray.ObjectRef, _Running], ref: ray.ObjectRef, outcome: Outcome, begun: float
) -> None:
    item = running.pop(ref)
    name = item.planned.stage.name
    try:
        draft = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        wrong = _input_error(error)
        if wrong is not None:
            raise InputError(f"{name}: {wrong}") from error
        raise StageFailed(f"{name}: {_last_line(error)}") from error
    except ray.exceptions.RayError as error:
        raise StageFailed(f"{name}: {_last_line(error)}") from error
    artifact = store.commit(draft, name, item.planned.fingerprint, item.planned.identity, item.planned.inputs, recipe.seed, item.started)
    outcome.artifacts[name] = artifact
    manifest = artifact.manifest
    dropped = f"; dropped {', '.join(f'{reason} {rows:,}' for reason, rows in manifest.dropped.items())}" if manifest.dropped else ""
    rows = f": {manifest.rows_in:,} in, {manifest.rows_out:,} out" if manifest.rows_in or manifest.rows_out else ""
    log.info("%s: done in %.1f s (%.0f s since the start)%s%s", name, manifest.seconds, time.monotonic() - begun, rows, dropped)
    _show(artifact)


def _show(artifact: Artifact) -> None:
    """A stage's figures as metrics on the dashboard."""
    manifest = artifact.manifest
    stage = manifest.stage
    gauge("stage_seconds", manifest.seconds, stage=stage)
    gauge("rows_out", manifest.rows_out, stage=stage)
    for reason, rows in manifest.dropped.items():
        gauge("dropped", rows, stage=stage, reason=reason)
    if stage in ("corpus", "pairs"):
        gauge("documents" if stage == "corpus" else "pairs", manifest.rows_out)
    if "scores" in manifest.metrics:
        scores = manifest.metrics["scores"]
        gauge("score_mean", 100 * sum(scores.values()) / len(scores), step=stage.removeprefix("score_"))


def _input_error(error: BaseException | None) -> InputError | None:
    """The InputError that a failure carries, however deeply Ray wrapped it."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        found = todo.pop()
        if found is None or any(found is known for known in seen):
            continue
        if isinstance(found, InputError) and not isinstance(found, ray.exceptions.RayError):
            return InputError(str(found).splitlines()[0])  # Ray Data appends lines of its own
        seen.append(found)
        todo.extend([found.__cause__, getattr(found, "cause", None)])
        todo.extend(getattr(found, "worker_failures", {}).values())
    return None


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """One run at a time writes to a local storage; the lock goes with the process, however it ends."""
    if "://" in store.uri:
        yield
        return
    with (Path(store.uri) / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"storage {store.uri}: another run is writing there; wait for it or set another storage") from error
        yield


def link_latest(store: Store, recipe: Recipe, artifact: Artifact) -> Path | None:
    """Point `<storage>/latest-<recipe>` at a published artifact, where storage is local."""
    if "://" in store.uri:
        return None
    link = Path(store.uri) / f"latest-{recipe.name}"
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(artifact.uri, link.parent))
    aside.replace(link)
    return link


def summary(outcome: Outcome, link: Path | None, seconds: float) -> dict[str, Any]:
    """The object that the last line of a run prints."""
    published = outcome.artifacts["publish"]
    home = str(link) if link else published.uri
    return {
        "model": f"{home}/model",
        "report": f"{home}/report/report.html",
        "seconds": round(seconds, 1),
        "reused": outcome.reused,
        "base_mean": published.manifest.metrics["base_mean"],
        "final_mean": published.manifest.metrics["final_mean"],
    }
