"""What each source of a contrastive phase is worth: the phase without one after the other, on dev halves of the recipe's own tasks.

All variants are one plan, so what they share is made once: only the phase itself is made anew for each. It is made as the recipe has it,
but for a search, which each variant would repeat; its numbers are then those that stand in the recipe.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.nodes import NATURAL, nodes_of
from raysberta.recipe import Recipe
from raysberta.synthesis.requests import SOURCE, TASKS
from raysberta.training.facts import DevPoint
from raysberta.training.settings import Contrastive

LONGEST_NAME = 100


@dataclass(frozen=True)
class Left:
    """What the phase scores without a source."""

    source: str
    """`source/kind`."""
    rows: int
    """Its examples."""
    own: float | None
    """The mean over the dev halves of the own tasks, a fraction; None where there is none."""
    general: float | None
    """The same of the general tasks."""
    own_difference: float | None
    """To the mean with all sources: below 0 where the source helps."""
    general_difference: float | None
    scores: dict[str, float]
    """By task."""


def everything(recipe: Recipe, name: str, steps: int | None = None) -> Recipe:
    """The recipe with the phase as it is made here, all sources in.

    Args:
        recipe: As it was read.
        name: Of a contrastive phase.
        steps: Of each training; the phase's own where None.

    Raises:
        InputError: there is no such phase, its batches mix sources, or the recipe has no tasks.
    """
    phase = recipe.phases.get(name)
    fitting = [key for key, each in recipe.phases.items() if isinstance(each, Contrastive)]
    if not isinstance(phase, Contrastive):
        raise InputError(f"--phase {name}: no contrastive phase is called so; right would be {', '.join(fitting) or 'one in the recipe'}")
    if phase.sampling == "mixed":
        raise InputError(f"phases.{name}.sampling: mixed batches have no source to leave out; right would be stratified")
    every = phase.checkpoint_every if steps is None else max(steps, phase.checkpoint_every)  # each checkpoint would be scored
    changes: dict[str, object] = {"search": None, "dev_tasks": phase.dev_tasks or tuple(recipe.tasks), "checkpoint_every": every}
    changed = _with(recipe, name, phase, recipe.name, {**changes, **({"steps": steps} if steps is not None else {})})
    if not recipe.tasks:
        raise InputError("tasks: sources are judged on dev halves, and there are no tasks; right would be entries under tasks")
    nodes_of(changed)
    return changed


def sources(recipe: Recipe, name: str) -> list[str]:
    """Each `source/kind` that the phase's examples may hold, by the recipe alone; what is kept of them is known once they are made."""
    found: dict[str, None] = {}
    for ref in _phase(recipe, name).examples:
        examples = recipe.examples[ref]
        for pairs in examples.pairs:
            keys = list(_natural(recipe) if pairs == NATURAL else _written(recipe, pairs))
            found |= dict.fromkeys(key for key in keys if not examples.only or any(fnmatchcase(key, only) for only in examples.only))
    return list(found)


def variants(recipe: Recipe, name: str, keys: Sequence[str]) -> dict[str, Recipe]:
    """By source the recipe without it, of those that the phase trains on.

    Args:
        recipe: With all sources in.
        name: Of the phase.
        keys: Each `source/kind`.

    Raises:
        InputError: there are fewer than two to train on.
    """
    phase = _phase(recipe, name)
    trained = [key for key in keys if phase.source_weights.get(key, 1.0)]
    if len(trained) < 2:
        raise InputError(f"phases.{name}: trains on {', '.join(trained) or 'no source'} alone; right would be two sources or more")
    found: dict[str, Recipe] = {}
    for number, key in enumerate(trained):
        title = re.sub(r"[^a-z0-9_.=-]+", "_", f"{recipe.name}-without={key}".lower())[:LONGEST_NAME]
        taken = {each.name for each in found.values()}
        found[key] = _with(
            recipe,
            name,
            phase,
            f"{title}-{number}" if title in taken else title,
            {"source_weights": {**phase.source_weights, key: 0.0}},
        )
    return found


def judged(whole: DevPoint, without: Mapping[str, DevPoint], rows: Mapping[str, int]) -> list[Left]:
    """What each source is worth, the one that is missed most first."""
    found = [
        Left(
            source=key,
            rows=rows.get(key, 0),
            own=point.own,
            general=point.general,
            own_difference=_difference(point.own, whole.own),
            general_difference=_difference(point.general, whole.general),
            scores=dict(point.scores),
        )
        for key, point in without.items()
    ]
    return sorted(found, key=lambda left: ((left.own_difference or 0.0) + (left.general_difference or 0.0), left.source))


def _difference(without: float | None, whole: float | None) -> float | None:
    return None if without is None or whole is None else without - whole


def _phase(recipe: Recipe, name: str) -> Contrastive:
    phase = recipe.phases[name]
    assert isinstance(phase, Contrastive)
    return phase


def _with(recipe: Recipe, name: str, phase: Contrastive, title: str, changes: Mapping[str, object]) -> Recipe:
    return recipe.model_copy(update={"name": title, "phases": {**recipe.phases, name: phase.model_copy(update=dict(changes))}})


def _natural(recipe: Recipe) -> Iterator[str]:
    for name, source in recipe.sources.items():
        for kind in (source.pair_kind,) if isinstance(source, DatasetSource) else source.pairs:
            if recipe.pairs.limits.get(f"{name}/{kind}", 1):
                yield f"{name}/{kind}"


def _written(recipe: Recipe, name: str) -> Iterator[str]:
    kind = recipe.written[name].kind
    yield from (f"{SOURCE}/{each}" for each in TASKS if each.startswith(kind))
