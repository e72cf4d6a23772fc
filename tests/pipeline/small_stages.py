"""Small stages and plans of them, for the tests of the runner; a module, so that Ray workers can import it."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pyarrow as pa

from raysberta.errors import InputError
from raysberta.evaluation.facts import ScoresFacts
from raysberta.evaluation.settings import ModelScores
from raysberta.graph import NodeRef, Section, identity
from raysberta.merging.facts import MergeFacts
from raysberta.merging.settings import MergePhase
from raysberta.nodes import Node
from raysberta.pipeline.plan import Plan, Planned
from raysberta.pipeline.stages import Stage
from raysberta.pipeline.view import Event
from raysberta.progress import progress
from raysberta.recipe import Recipe
from raysberta.spread import alone
from raysberta.storage.artifacts import Store, artifact_id, fingerprint
from raysberta.work import Facts, Work, Workers

RECIPE = Recipe.model_validate({"name": "runner", "sources": {"d": {"kind": "wiki_ru_wordnet"}}, "limits": {"lease_seconds": 4}})


class Rows(Section):
    """What the small stages are given."""

    made_from: tuple[NodeRef, ...] = ()
    seconds: float = 1.0
    mark: str = ""


class RowFacts(Facts):
    """How many rows there were before."""

    seen: int


def one_row(work: Work[Rows]) -> RowFacts:
    """One row more than all inputs have; says how far it is on the way, and warns."""
    for step in range(4):
        time.sleep(work.settings.seconds / 4)
        progress(work.node, "quarters", step + 1, 4)
    seen = sum(artifact.table("rows").num_rows for artifact in work.inputs.values())
    work.draft.write_table("rows", pa.table({"n": list(range(seen + 1))}))
    work.draft.rows_out = seen + 1
    if work.settings.mark.startswith("/"):
        with Path(work.settings.mark).open("a") as stream:
            stream.write(f"{work.node} {os.getpid()}\n")
    return RowFacts(seen=seen)


def wrong_input(work: Work[Rows]) -> RowFacts:
    raise InputError("sources.d.path: no such folder")


def breaks(work: Work[Rows]) -> RowFacts:
    work.draft.write_table("rows", pa.table({"n": [1]}))
    raise ZeroDivisionError("by hand")


def dies(work: Work[Rows]) -> RowFacts:
    os.kill(os.getpid(), 9)
    raise AssertionError


def dies_twice(work: Work[Rows]) -> RowFacts:
    """Leaves a line in the mark each time it is started."""
    with Path(work.settings.mark).open("a") as stream:
        stream.write(f"{work.node}\n")
    if len(Path(work.settings.mark).read_text().splitlines()) < 3:
        os.kill(os.getpid(), 9)
    return one_row(work)


def dies_twice_in_a_task(work: Work[Rows]) -> RowFacts:
    """The same in a task of its own, which Ray does not start again."""
    return cast(RowFacts, alone(dies_twice, work.workers, work.node, work))


def merges(work: Work[MergePhase]) -> MergeFacts:
    """The shares that the recipe says, of no tensors."""
    return MergeFacts(shares=list(work.settings.phase.shares()), tensors=0, merged=0, linear=0, copied=0, least_cosine=1.0, chosen={})


def rests(work: Work[Section]) -> Facts:
    """Makes nothing."""
    return Facts()


def scores(work: Work[ModelScores]) -> ScoresFacts:
    """On no task."""
    time.sleep(2)
    return ScoresFacts(scores={}, details={}, seconds={}, pooling="mean", prefixes={})


Make = Callable[..., Plan]


def planned(store: Store, *nodes: tuple[str, tuple[str, ...], dict], recipe: Recipe = RECIPE) -> Plan:
    """A plan of nodes (name, made from, more): more may hold run, version, workers, seconds, mark."""
    found: dict[str, Planned] = {}
    for name, feeds, more in nodes:
        settings = Rows(made_from=tuple(NodeRef(feed) for feed in feeds), seconds=more.get("seconds", 1.0), mark=more.get("mark", ""))
        node = Node(name, "written", "pairs", settings, name)
        stage = Stage(more.get("run", one_row), more.get("version", 1), memory_gib=0.1)
        ids = {feed: found[feed].id for feed in feeds}
        what = {"version": stage.version, "settings": identity(settings, ids), "name": name}
        mark = fingerprint("written", what, 42)
        workers = more.get("workers", Workers())
        found[name] = Planned(node, name, stage, workers, mark, what, ids, 42, store.find("written", mark))
    chains = {item.id: 1 for item in found.values()}
    for item in reversed(found.values()):
        for feed in item.inputs.values():
            chains[feed] = max(chains[feed], chains[item.id] + 1)
    own = {name: artifact_id("written", item.fingerprint) for name, item in found.items()}
    return Plan([recipe], list(found.values()), {recipe.name: own}, chains)


class Seen:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def show(self, event: Event) -> None:
        self.events.append(event)

    def __enter__(self) -> "Seen":
        return self

    def __exit__(self, *_: object) -> None:
        return
