"""Pictures: what is asked for is in them, by its name and in its place; markup that a page can hold."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from raysberta import pictures
from raysberta.nodes import KINDS

SVG = "{http://www.w3.org/2000/svg}"
NODES = [
    ("e5", "model", []),
    ("corpus", "corpus", ["e5"]),
    ("natural", "natural", ["corpus"]),
    ("trimmed", "vocabulary", ["e5", "natural"]),
    ("mined", "examples", ["natural", "e5"]),
    ("tuned", "contrastive", ["trimmed", "mined"]),
    ("merged", "merge", ["tuned", "trimmed"]),
    ("release", "release", ["merged", "e5", "corpus", "natural", "trimmed", "mined", "tuned"]),
]


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ET.fromstring(svg).iter(f"{SVG}text")]


def count(svg: str, pattern: str) -> int:
    return len(re.findall(pattern, svg))


def test_changes_are_green_up_and_red_down() -> None:
    svg = pictures.changes([("Rose", 40.0, 51.5, True), ("Fell", 63.0, 61.5, True)], "e5", "merged", "Changes")
    assert {"Rose", "Fell", "+11.50", "-1.50", "e5", "merged"} <= set(texts(svg))
    assert pictures.BETTER in svg and pictures.WORSE in svg
    grey = pictures.changes([("Rose", 40.0, 51.5, False), ("Fell", 2.0, 1.0, False)], "e5", "merged", "Changes")
    assert pictures.WORSE not in grey and pictures.BETTER not in grey, "inside its interval a change has no colour"


def test_means_are_named_in_order() -> None:
    shown = texts(pictures.means({"e5": 58.5, "merged": 62.73}, "Means"))
    assert shown.index("e5") < shown.index("merged") and {"58.50", "62.73"} <= set(shown)


def test_stacked_puts_what_was_kept_first_and_the_totals_beside() -> None:
    svg = pictures.stacked({"web": {"kept": 600, "too short": 400}, "books": {"kept": 50, "language": 1}}, "What became of them")
    shown = texts(svg)
    assert {"web", "books", "1,000", "51"} <= set(shown)
    assert [name for name in shown if name in ("kept", "too short", "language")] == ["kept", "too short", "language"]
    assert 'aria-label="What became of them"' in svg


def test_amounts_have_a_bar_for_each_part() -> None:
    assert {"a/b", "train", "dev", "pairs"} <= set(texts(pictures.amounts({"a/b": {"train": 5, "dev": 2}}, "Pairs", "pairs")))


def test_histograms_may_be_empty_on_one_side() -> None:
    bins = ([0.0, 0.5, 1.0], [3, 4])
    shown = texts(pictures.histograms(bins, bins, bins, "Scores"))
    assert {"positives", "negatives"} <= set(shown)
    without = ([], [])
    assert "positives" not in texts(pictures.histograms(without, bins, bins, "Scores"))
    assert "positives" not in texts(pictures.histograms(without, without, without, "Scores"))


def test_a_curve_shows_its_rate_by_its_power() -> None:
    shown = texts(pictures.curve([1, 2, 3], [3.0, 2.0, 1.5], [1e-5, 3e-5, 0.0], "Loss"))
    assert "learning rate, 1e-5" in shown and "loss" in shown
    assert "learning rate, 1e0" in texts(pictures.curve([1], [3.0], [0.0], "Loss"))


def test_smoothing_keeps_constants_and_lengths() -> None:
    assert pictures.smooth(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))
    assert len(pictures.smooth(np.arange(7.0))) == 7
    assert pictures.smooth(np.arange(41.0))[20] == pytest.approx(20.0)


def test_trials_have_a_panel_a_field_and_ended_ones_are_hollow() -> None:
    values = [{"temperature": 0.02, "weight": 0.1}, {"temperature": 0.05, "weight": 0.2}]
    one = pictures.trials([{"temperature": 0.02}, {"temperature": 0.05}], [0.7, 0.6], {}, [False, False], {"temperature": 0.02}, "Trials")
    two = pictures.trials(values, [0.7, 0.6], {"own": [0.8, 0.5], "general": [0.6, 0.7]}, [False, True], values[0], "Trials")
    assert count(one, 'id="axes_') == 1 and count(two, 'id="axes_') == 2
    assert {"temperature", "weight", "70.00", "60.00", "own", "general"} <= set(texts(two)) and "weight" not in texts(one)
    hollow = rf"fill: {pictures.PAPER}; stroke: {pictures.ACCENT}"
    assert count(two, hollow) == 2 and count(one, hollow) == 0
    chosen = rf"fill: none; stroke: {pictures.SECOND}"
    assert count(two, chosen) == 2 and count(one, chosen) == 1


def test_of_many_trials_only_the_best_has_its_score_beside_it() -> None:
    many = [{"weight": number / 100} for number in range(pictures.MOST_NAMED + 1)]
    shown = texts(pictures.trials(many, [0.5 + value["weight"] for value in many], {}, [False] * len(many), many[3], "Trials"))
    assert "53.00" in shown and "51.00" not in shown


def test_a_timeline_has_the_colours_of_the_kinds_that_are_in_it() -> None:
    svg = pictures.timeline([("corpus", "corpus", 0, 10), ("tuned", "contrastive", 10, 90)], [50.0], "When")
    assert {"corpus", "tuned", "10 s", "90 s", "corpus and pairs", "phases"} <= set(texts(svg))
    assert "searches" not in texts(svg)
    with pytest.raises(KeyError, match="unheard"):
        pictures.timeline([("settled", "unheard", 0, 10)], [], "When")


def test_every_kind_of_node_has_a_group_and_an_engine() -> None:
    assert {kind for kinds in pictures.GROUPS.values() for kind in kinds} == set(KINDS)
    assert {kind for _, kinds in pictures.ENGINES.values() for kind in kinds} == set(KINDS)


def test_a_graph_has_every_node_and_only_the_arrows_that_say_something() -> None:
    svg = pictures.graph(NODES)
    shown = texts(svg)
    assert {name for name, _, _ in NODES} <= set(shown) and set(pictures.ENGINES) <= set(shown)
    assert count(svg, 'marker-end="url') == 8


def test_a_graph_of_what_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        pictures.graph([("tuned", "contrastive", ["nowhere"])])
    with pytest.raises(KeyError, match="unheard"):
        pictures.graph([("tuned", "unheard", [])])


def test_names_are_escaped_in_markup_and_labels() -> None:
    evil = "<script>alert(1)</script>&\"'"
    for svg in (
        pictures.graph([(evil, "model", [])]),
        pictures.means({evil: 1.0, "b": 2.0}, evil),
        pictures.stacked({evil: {evil: 1}}, evil),
        pictures.trials([{evil: 1.0}], [0.5], {evil: [0.5], "b": [0.4]}, [False], {evil: 1.0}, evil),
    ):
        assert "<script" not in svg and evil in texts(svg)


def test_a_picture_scales_and_brings_no_style_of_its_own() -> None:
    svg = pictures.means({"a": 1.0, "b": 2.0}, "Means")
    opening = svg[: svg.index(">")]
    assert 'role="img"' in opening and "viewBox" in opening and "width=" not in opening and "height=" not in opening
    assert "<style" not in svg and "<metadata" not in svg and svg == pictures.means({"a": 1.0, "b": 2.0}, "Means")
