"""A plan: the nodes of one recipe or several with their fingerprints, what is there already, and how long the rest may take.

Nodes of several recipes that mean the same thing have one fingerprint and are made once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from raysberta.errors import InputError
from raysberta.graph import identity
from raysberta.nodes import RELEASE, Node, needed, nodes_of
from raysberta.pipeline.stages import Stage, outside, stage_of, workers_of
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Artifact, Store, artifact_id, fingerprint
from raysberta.work import Workers

SEED = 42
"""Of stages that the recipe's seed does not reach."""


@dataclass(frozen=True)
class Planned:
    """A node of a plan."""

    node: Node
    title: str
    """What it is called in this plan: its name, with the recipe's where recipes mean different things by it."""
    stage: Stage
    workers: Workers
    fingerprint: str
    identity: Mapping[str, object]
    inputs: Mapping[str, str]
    """Ids of the artifacts it is made from, by the names that its settings use."""
    seed: int
    artifact: Artifact | None
    """Where it is there already."""

    @property
    def id(self) -> str:
        """Of its artifact."""
        return artifact_id(self.node.kind, self.fingerprint)


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    recipes: Sequence[Recipe]
    nodes: Sequence[Planned]
    """Each after those it is made from."""
    ids: Mapping[str, Mapping[str, str]]
    """By recipe and node name: the id of its artifact."""
    chains: Mapping[str, int] = field(default_factory=dict)
    """By id: how many nodes stand one after the other from it to the end. Of two that are ready, that with the longer chain goes first."""


def plan(recipes: Sequence[Recipe], store: Store, until: Sequence[str] = ()) -> Plan:
    """The nodes that the asked ones need, of all recipes, with what is there already.

    Args:
        recipes: One or several, on one storage.
        store: That storage.
        until: Names of nodes; a recipe without such a node is passed over. Where empty, the release, and all nodes of a recipe without one.

    Raises:
        InputError: no recipe has a node of such a name.
    """
    found: dict[str, Planned] = {}
    ids: dict[str, dict[str, str]] = {}
    known: dict[str, object] = {}
    for recipe in recipes:
        own = ids.setdefault(recipe.name, {})
        nodes = nodes_of(recipe)
        for node in needed(nodes, _asked(recipe, recipes, nodes, until)).values():
            planned = _planned(recipe, store, node, own, found, known)
            own[node.name] = planned.id
            found.setdefault(planned.id, planned)
    for name in until:
        if not any(name in own for own in ids.values()):
            raise InputError(f"no node {name!r} in any of the recipes")
    return Plan(recipes, _titled(list(found.values()), recipes, ids), ids, _chains(list(found.values())))


def _asked(recipe: Recipe, recipes: Sequence[Recipe], nodes: Mapping[str, Node], until: Sequence[str]) -> Sequence[str]:
    if not until:
        return (RELEASE,) if RELEASE in nodes else tuple(nodes)
    return until if len(recipes) == 1 else tuple(name for name in until if name in nodes)


def _planned(
    recipe: Recipe, store: Store, node: Node, ids: Mapping[str, str], found: Mapping[str, Planned], known: dict[str, object]
) -> Planned:
    stage = stage_of(node)
    what: dict[str, object] = {"version": stage.version, "settings": identity(node.settings, ids)}
    key = f"{node.kind} {node.settings!r}"
    if key not in known:
        known[key] = outside(node)
    if known[key] is not None:
        what["outside"] = known[key]
    seed = recipe.seed if stage.seeded else SEED
    mark = fingerprint(node.kind, what, seed)
    there = found.get(artifact_id(node.kind, mark))
    if there is not None:
        return there
    inputs = {name: ids[name] for name in node.made_from}
    return Planned(node, node.name, stage, workers_of(recipe, node), mark, what, inputs, seed, store.find(node.kind, mark))


def _titled(nodes: Sequence[Planned], recipes: Sequence[Recipe], ids: Mapping[str, Mapping[str, str]]) -> list[Planned]:
    """Nodes of one name that are not the same get their recipe's name too."""
    titled = []
    for item in nodes:
        others = {own[item.node.name] for own in ids.values() if item.node.name in own}
        owner = next(recipe.name for recipe in recipes if item.id in ids[recipe.name].values())
        titled.append(replace(item, title=f"{item.node.name} ({owner})") if len(others) > 1 else item)
    return titled


def _chains(nodes: Sequence[Planned]) -> dict[str, int]:
    lengths = {item.id: 1 for item in nodes}
    for item in reversed(nodes):
        for feed in item.inputs.values():
            lengths[feed] = max(lengths[feed], lengths[item.id] + 1)
    return lengths


def estimates(nodes: Sequence[Planned], store: Store) -> dict[str, float]:
    """Seconds that each node may take, by id: those of earlier nodes of its kind on this storage; left out where there were none."""
    kinds = {item.node.kind for item in nodes if item.artifact is None}
    seconds = {kind: [manifest.seconds for manifest in store.earlier(kind)] for kind in kinds}
    return {item.id: median(seconds[item.node.kind]) for item in nodes if item.artifact is None and seconds[item.node.kind]}
