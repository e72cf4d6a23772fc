"""Connected components of near-duplicates by ranges of documents: alternating stars (Kiveris et al. 2014, "Connected components in
MapReduce and beyond").

A step looks at one node's edges at a time, so a task holds a range of nodes. Each moves edges towards smaller nodes and keeps what is
connected; where nothing moves any more, every edge joins a node to the least one of its component. That takes some log n rounds.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raysberta.corpus.duplicates import BANDS, forest, meetings
from raysberta.corpus.shingles import mix
from raysberta.corpus.verdicts import Stays
from raysberta.storage.runs import Place, Run, read_runs

BANDED = pa.schema([("hash", pa.uint64()), ("band", pa.uint8()), ("row", pa.uint64())])
"""The hash of each band of each document."""
EDGES = pa.schema([("node", pa.uint64()), ("to", pa.uint64())])
"""Two rows of documents that are connected. Each edge stands there both ways."""
Runs = Sequence[Sequence[Run]]
Moved = tuple[list[Run], bool]
"""EDGES by node, and whether any edge was moved."""


def large_star(nodes: np.ndarray, to: np.ndarray) -> tuple[np.ndarray, bool]:
    """Give each node's larger neighbours to the least of it and its neighbours.

    Args:
        nodes: uint64, a range of them, with all their edges.
        to: uint64, their neighbours.

    Returns:
        Edges, uint64 [edges, 2], the larger node first; whether one is new.
    """
    nodes, to, starts, sizes = _grouped(nodes, to)
    least = np.repeat(np.minimum(to[starts], nodes[starts]), sizes)
    larger = to > nodes
    return np.stack([to, least], axis=1)[larger], bool((least != nodes)[larger].any())


def small_star(nodes: np.ndarray, to: np.ndarray) -> tuple[np.ndarray, bool]:
    """Give each node and its smaller neighbours to the least of them. As `large_star`; edges to larger nodes are passed over."""
    smaller = to < nodes
    nodes, to, starts, sizes = _grouped(nodes[smaller], to[smaller])
    least = np.repeat(to[starts], sizes)
    moved = to != least
    own = np.stack([nodes[starts], to[starts]], axis=1)
    return np.concatenate([own, np.stack([to, least], axis=1)[moved]]), bool(moved.any())


def _grouped(nodes: np.ndarray, to: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each edge once, by node and neighbour; where the edges of each node start, and how many there are."""
    order = np.lexsort((to, nodes))
    nodes, to = nodes[order], to[order]
    again = np.r_[False, (nodes[1:] == nodes[:-1]) & (to[1:] == to[:-1])] if len(nodes) else np.empty(0, bool)
    nodes, to = nodes[~again], to[~again]
    starts = np.flatnonzero(np.r_[True, nodes[1:] != nodes[:-1]]) if len(nodes) else np.empty(0, np.int64)
    return nodes, to, starts, np.diff(np.r_[starts, len(nodes)])


def meet_in_range(runs: Runs, first: int, last: int, stays: Stays, place: Place) -> list[Run]:
    """Documents that share a band within a range of hashes; `runs`: BANDED. Those that do not stay are passed over."""
    table = read_runs(runs[0], first, last, BANDED)
    table = table.filter(pa.array(stays.of(table["row"].to_numpy())))
    hashes, band, rows = (table[name].to_numpy() for name in ("hash", "band", "row"))
    pairs = [meetings(hashes[band == each], rows[band == each]) for each in range(BANDS)]
    return _written(forest(np.concatenate(pairs)), place)


def star_in_range(runs: Runs, first: int, last: int, place: Place, large: bool) -> Moved:
    """One step over a range of nodes; `runs`: EDGES."""
    table = read_runs(runs[0], first, last, EDGES)
    edges, moved = (large_star if large else small_star)(table["node"].to_numpy(), table["to"].to_numpy())
    return _written(edges, place), moved


def _written(edges: np.ndarray, place: Place) -> list[Run]:
    writer = place.writer("edges")
    for node, to in ((0, 1), (1, 0)):
        own = edges[:, node]
        writer.add(pa.table([own, edges[:, to]], EDGES), mix(own))
    return writer.done()
