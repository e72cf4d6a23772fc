"""What the cluster has when it is asked, what of it is free, and what it is asked to bring."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysberta.errors import InputError
from raysberta.work import Workers

GIB = 2**30


@dataclass
class Free:
    """Cores and GPUs that nothing uses."""

    cpus: float
    gpus: float

    def holds(self, workers: Workers) -> bool:
        """Whether these workers fit."""
        return workers.workers * workers.cpus <= self.cpus + 1e-9 and workers.workers * workers.gpus <= self.gpus + 1e-9

    def take(self, workers: Workers) -> None:
        """Give them to these workers."""
        self.cpus -= workers.workers * workers.cpus
        self.gpus -= workers.workers * workers.gpus


class Cluster:
    """The cluster of a run. Nothing of it is remembered: nodes come and go."""

    def __init__(self, wait_for_nodes: bool, patience_seconds: float) -> None:
        self.wait, self.seconds = wait_for_nodes, patience_seconds
        self._asked: list[dict[str, float]] = []
        self._since: float | None = None
        self._seen: tuple[float, float] | None = None
        self._turn = 0

    def check(self, title: str, workers: Workers) -> None:
        """Refuse what can never run here.

        Raises:
            InputError: naming the node, what it asks for, and what there is.
        """
        if self.wait:
            return
        total = ray.cluster_resources()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for kind, each in (("CPU", workers.cpus), ("GPU", workers.gpus)):
            asked, most = each * workers.workers, max((node.get(kind, 0.0) for node in nodes), default=0.0)
            if asked > total.get(kind, 0.0) + 1e-9:
                raise InputError(
                    f"resources: {title} asks for {asked:g} {kind}, the cluster has {total.get(kind, 0.0):g}; "
                    "lower it, or set limits.wait_for_nodes where an autoscaler brings more"
                )
            if each > most + 1e-9:
                raise InputError(f"resources: a worker of {title} asks for {each:g} {kind}, the largest node has {most:g}; lower it")

    def free(self, running: Sequence[tuple[str, Workers]]) -> Free:
        """What is left now beside what runs."""
        total = ray.cluster_resources()
        left = Free(total.get("CPU", 0.0), total.get("GPU", 0.0))
        for _, workers in running:
            left.take(workers)
        return left

    def ask(self, wanted: Sequence[Workers]) -> None:
        """Tell the autoscaler what is wanted now, where there is one."""
        if not self.wait:
            return
        bundles = [_bundle(workers) for workers in wanted for _ in range(workers.workers)]
        if bundles != self._asked:
            from ray.autoscaler.sdk import request_resources

            request_resources(bundles=bundles)
            self._asked = bundles

    def patience(self, title: str, workers: Workers) -> None:
        """Called while nothing runs because nothing fits.

        Raises:
            InputError: no node has come for so long that none will.
        """
        total = ray.cluster_resources()
        seen, now = (total.get("CPU", 0.0), total.get("GPU", 0.0)), time.monotonic()
        if self._since is None or seen != self._seen:
            self._since, self._seen = now, seen
        if Free(*seen).holds(workers):  # it waits for another run's lease, not for nodes
            self._since = now
        elif now - self._since > self.seconds:
            asked = ", ".join(f"{value * workers.workers:g} {kind}" for kind, value in _bundle(workers).items())
            raise InputError(
                f"resources: {title} asks for {asked}, the cluster has {seen[0]:g} CPU and {seen[1]:g} GPU and no node has come for "
                f"{self.seconds / 60:g} minutes; lower it, or raise limits.wait_minutes"
            )

    def place(self, memory_gib: float) -> dict[str, Any]:
        """Options of the process that leads a stage: memory, and a node that works. A head that gives no cores is left alone."""
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
        if not nodes:
            return {"memory": int(memory_gib * GIB)}
        self._turn += 1
        node = sorted(nodes, key=lambda node: node["NodeID"])[self._turn % len(nodes)]
        asked = min(memory_gib * GIB, node["Resources"].get("memory", memory_gib * GIB))
        return {"memory": int(asked), "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)}

    def close(self) -> None:
        """Take back what was asked of the autoscaler."""
        if self._asked and ray.is_initialized():
            from ray.autoscaler.sdk import request_resources

            request_resources(bundles=[])


def _bundle(workers: Workers) -> dict[str, float]:
    return {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}
