"""Where the nodes of a drawn graph stand: a column a depth, rows so that arrows cross little, and room for arrows to pass by.

The layered drawing of Sugiyama, Tagawa and Toda (1981): an arrow over several columns gets a place in each between, and rows are sorted
by the mean place of their neighbours, to and fro.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from statistics import fmean

SWEEPS = 8
PASSING = 0.4
"""Height of a place where arrows pass, in heights of a node."""

Place = tuple[str, int]
"""A node, or the arrows from a node, in one column."""


@dataclass(frozen=True)
class Layout:
    """A drawn graph in columns and heights of a node."""

    columns: int
    height: float
    middle: Mapping[Place, float]
    """Height of the middle of each place, from above."""
    depth: Mapping[str, int]
    """The column of each node."""
    arrows: Sequence[tuple[str, str]]
    """Source and node, but where a longer path says it already."""


def layout(sources: Mapping[str, Sequence[str]]) -> Layout:
    """Lay out a graph.

    Args:
        sources: By node, those it is made from, each a node too.

    Raises:
        KeyError: one of these is not there.
    """
    before: dict[str, set[str]] = {}
    depth: dict[str, int] = {}
    for name in TopologicalSorter(sources).static_order():
        before[name] = set(sources[name]).union(*(before[source] for source in sources[name]))
        depth[name] = max((depth[source] + 1 for source in sources[name]), default=0)
    direct = [(source, name) for name in sources for source in dict.fromkeys(sources[name])]
    arrows = [(source, name) for source, name in direct if not any(source in before[other] for other in sources[name])]
    steps = list(dict.fromkeys(step for source, name in arrows for step in _steps(source, name, depth)))
    places = dict.fromkeys([*((name, depth[name]) for name in sources), *(place for step in steps for place in step)])
    columns = [[place for place in places if place[1] == column] for column in range(max(depth.values(), default=-1) + 1)]
    _sort(columns, steps)
    middle, height = _heights(columns, depth)
    return Layout(len(columns), height, middle, depth, arrows)


def _steps(source: str, name: str, depth: Mapping[str, int]) -> list[tuple[Place, Place]]:
    """An arrow from column to column. Arrows from one node run together."""
    way = [*((source, column) for column in range(depth[source], depth[name])), (name, depth[name])]
    return list(pairwise(way))


def _sort(columns: list[list[Place]], steps: Sequence[tuple[Place, Place]]) -> None:
    """Sort each column by the mean row of what it is tied to in the column before it; then backwards; and so on."""
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        tied: dict[Place, list[Place]] = defaultdict(list)
        for start, end in steps:
            tied[end if forward else start].append(start if forward else end)
        for column in columns if forward else reversed(columns):
            rows = {place: _row(place, each) for each in columns for place in each}
            wanted = {place: fmean([rows[other] for other in tied[place]]) if tied[place] else rows[place] for place in column}
            column.sort(key=lambda place, wanted=wanted: wanted[place])  # type: ignore[misc]


def _row(place: Place, column: Sequence[Place]) -> float:
    """From -1/2 above to 1/2 below: columns have their middles beside one another."""
    return (column.index(place) + 0.5) / len(column) - 0.5


def _heights(columns: Sequence[Sequence[Place]], depth: Mapping[str, int]) -> tuple[dict[Place, float], float]:
    """The middle of each place, and the height of all."""
    heights = [[1.0 if depth[name] == at else PASSING for name, at in column] for column in columns]
    tallest = max((sum(column) for column in heights), default=0.0)
    middle: dict[Place, float] = {}
    for column, tall in zip(columns, heights, strict=True):
        top = (tallest - sum(tall)) / 2
        for place, height in zip(column, tall, strict=True):
            middle[place] = top + height / 2
            top += height
    return middle, tallest
