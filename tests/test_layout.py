"""The layout of a graph: columns by depth, arrows that say something, nothing in the way of anything."""

import random
from itertools import pairwise

import pytest

from raysberta.layout import PASSING, layout

SOURCES = {
    "e5": [],
    "corpus": ["e5"],
    "natural": ["corpus"],
    "trimmed": ["e5", "natural"],
    "mined": ["natural", "e5"],
    "tuned": ["trimmed", "mined"],
    "merged": ["tuned", "trimmed", "other"],
    "other": [],
    "release": ["merged", "e5", "corpus", "natural", "trimmed", "mined", "tuned"],
}


def crossings(sources: dict[str, list[str]]) -> int:
    found = layout(sources)
    steps = set()
    for source, name in found.arrows:
        way = [*((source, column) for column in range(found.depth[source], found.depth[name])), (name, found.depth[name])]
        steps |= set(pairwise(way))
    pairs = [(one, two) for one in steps for two in steps if one < two and one[0][1] == two[0][1]]
    return sum((found.middle[a] - found.middle[c]) * (found.middle[b] - found.middle[d]) < 0 for (a, b), (c, d) in pairs)


def test_only_arrows_that_no_longer_path_says() -> None:
    assert set(layout(SOURCES).arrows) == {
        *(("e5", "corpus"), ("corpus", "natural"), ("natural", "trimmed"), ("natural", "mined"), ("trimmed", "tuned")),
        *(("mined", "tuned"), ("tuned", "merged"), ("other", "merged"), ("merged", "release")),
    }


def test_a_node_stands_right_of_all_that_it_is_made_from() -> None:
    found = layout(SOURCES)
    assert all(found.depth[source] < found.depth[name] for name, sources in SOURCES.items() for source in sources)
    assert found.depth["trimmed"] == found.depth["mined"] == 3 and found.columns == 7


def test_nothing_lies_over_anything_and_a_long_arrow_has_room_in_each_column() -> None:
    found = layout(SOURCES)
    assert {("other", column) for column in range(5)} <= set(found.middle)
    for column in range(found.columns):
        places = sorted(
            (middle, 1.0 if found.depth[name] == at else PASSING) for (name, at), middle in found.middle.items() if at == column
        )
        ends = [(middle - tall / 2, middle + tall / 2) for middle, tall in places]
        assert ends[0][0] >= 0 and ends[-1][1] <= found.height + 1e-9
        assert all(above[1] <= below[0] + 1e-9 for above, below in pairwise(ends))


def test_rows_are_sorted_so_that_arrows_cross_little() -> None:
    letters = [f"n{number}" for number in range(6)]
    tangled = {**{name: [] for name in letters}, **{f"m{number}": [letters[5 - number]] for number in range(6)}}
    assert crossings(tangled) == 0
    assert crossings(SOURCES) == 0


def test_the_order_in_which_nodes_are_named_moves_no_node_to_another_column() -> None:
    names = list(SOURCES)
    random.Random(3).shuffle(names)
    shuffled = layout({name: SOURCES[name] for name in names})
    assert shuffled.depth == layout(SOURCES).depth and set(shuffled.arrows) == set(layout(SOURCES).arrows)


def test_a_graph_of_nothing_and_one_of_what_is_not_there() -> None:
    assert layout({}).columns == 0 and layout({}).height == 0
    with pytest.raises(KeyError, match="nowhere"):
        layout({"tuned": ["nowhere"]})
