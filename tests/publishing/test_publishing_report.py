"""The report: every number of the table is there, what got worse is named, nothing comes from elsewhere, nothing breaks out."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from run_of_hand import PAIRS, SOURCES, STEPS, TASKS, manifest

from raysberta.artifacts import Manifest
from raysberta.publishing import facts
from raysberta.publishing.report import report
from raysberta.recipe import Recipe


class Page(HTMLParser):
    """Text, tags and attributes of a page; complains where tags do not match."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open[-1:]:
            return
        self.text += data
        if self.rows and any(tag in self._open for tag in ("td", "th")):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def html(recipe: Recipe, stages: dict[str, Manifest], model: dict, samples: list) -> str:
    return report(recipe, stages, model, samples)


def test_every_number_of_the_score_table_is_in_its_row(html: str) -> None:
    rows = {row[0].split("\n")[0].strip(): row for row in Page(html).rows if len(row) == len(STEPS) + 2}
    for task, (_, _, values) in TASKS.items():
        expected = [f"{100 * value:.2f}" for value in values] + [f"{100 * (values[-1] - values[0]):+.2f}"]
        assert [cell.strip() for cell in rows[task][1:]] == expected
    means = [sum(values[step] for _, _, values in TASKS.values()) / len(TASKS) * 100 for step in range(len(STEPS))]
    assert [cell.strip() for cell in rows["mean"][1:]] == [f"{mean:.2f}" for mean in means] + [f"{means[-1] - means[0]:+.2f}"]


def test_what_got_worse_is_named_and_only_that(html: str, recipe: Recipe, stages: dict[str, Manifest], model: dict) -> None:
    assert "Worse than the base: WordSense (-1.41)." in Page(html).text
    better = {name: item for name, item in stages.items() if name != "score_final"}
    better["score_final"] = manifest("score_final", 700, 30, {"scores": {"WordSense": 0.7}, "details": {}})
    better["score_base"] = manifest("score_base", 600, 30, {"scores": {"WordSense": 0.6}, "details": {}})
    for step in STEPS[1:-1]:
        del better[f"score_{step}"]
    text = Page(report(recipe, better, model)).text
    assert "No task got worse." in text and "gains 10.00 points: 60.00 to 70.00" in text


def test_counts_engines_samples_searches_and_lineage_are_there(html: str, stages: dict[str, Manifest]) -> None:
    page = Page(html)
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in page.rows if row}
    for source, found in SOURCES.items():
        assert rows[source][:2] == [f"{found['read']:,}", f"{found['kept']:,}"]
        assert all(f"{count:,}" in rows[source] for count in found["dropped"].values())
    for pairs, counts in PAIRS.items():
        assert [f"{counts[split]:,}" for split in ("train", "dev", "test")] in [row for name, row in _rows(page) if name == pairs]
    assert "vllm 0.32.0" in page.text and "off: no ruT5 checkpoint" in page.text
    assert rows["requested"] == ["500"] and rows["dropped: round trip"] == ["163"]
    assert "How do I add up elements as I go?" in page.text
    assert rows["0.03"][-1] == "73.55" and "0.03 of 3 tried" in page.text
    assert rows["0.1"][-1] == "74.33" and "0.1 of 4 tried" in page.text
    losses = {"mean_of_pieces": "7.5012", "gaussian": "8.2500", "focus (chosen)": "7.4408"}
    assert {name: rows[name][0] for name in losses} == losses and "brings no head" in page.text
    assert rows["▁энкодер"] == ["▁код, ▁модель"]
    for name, item in stages.items():
        assert (item.fingerprint, f"{item.seconds:,.1f}") == (rows[name][0], rows[name][-1]), name


def _rows(page: Page) -> list[tuple[str, list[str]]]:
    return [(row[0].strip(), [cell.strip() for cell in row[1:]]) for row in page.rows if row]


def test_all_pictures_are_drawn_inside_the_page(html: str) -> None:
    page = Page(html)
    assert page.tags.count("svg") == 11
    labels = set(re.findall(r'aria-label="([^"]*)"', html))
    assert {
        "When each stage ran",
        "Contrastive",
        "Masked language modelling",
        "Contrastive temperature",
        "Weight of the final merge",
    } <= labels


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert not {"script", "iframe", "link", "img", "object", "embed"} & set(page.tags)
    assert page.links and all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids), "every inner link has its target"
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names of XML vocabularies, which nothing fetches"


def test_values_are_escaped_everywhere(recipe: Recipe, stages: dict[str, Manifest], model: dict) -> None:
    evil = "<script>alert(1)</script>$x_{&\"'"
    settings = recipe.model_copy(update={"publishing": recipe.publishing.model_copy(update={"model_name": evil, "description": evil})})
    sources = {evil: {"read": 3, "kept": 1, "dropped": {evil: 2}}}
    scores = {"scores": {evil: 0.5, "Other": 0.25}, "details": {evil: {"type": evil, "metrics": {}}}}
    found = dict(stages)
    found["corpus"] = manifest("corpus", 1, 2, {"sources": sources}, rows_in=3, rows_out=1, dropped={evil: 2})
    found["pairs"] = manifest("pairs", 1, 2, {"pairs": {evil: {"train": 1, "dev": 0, "test": 0}}})
    found = {name: manifest(name, 9, 2, scores) if name.startswith("score_") else item for name, item in found.items()}
    sample = [{"request_id": "x", "kind": evil, "passage": evil, "output": evil, "reason": evil}]
    html = report(settings, found, model, sample)
    page = Page(html)
    assert "script" not in page.tags and "<script" not in html
    assert page.text.count("alert(1)") >= 12


def test_a_run_with_little_in_it_still_has_a_report(recipe: Recipe, model: dict[str, Any]) -> None:
    text = Page(report(recipe, {"merge": manifest("merge", 5, 1.5, {"best": 0.1, "trials": []})}, model)).text
    assert "Not searched; 0.1 from the recipe." in text and "The stages ran one after the other." in text
    assert "Scores" not in text


def test_idle_time_is_cut_out_of_the_timeline_and_overlaps_are_found() -> None:
    found = [facts.Span("old", 0, 10), facts.Span("new", 5000, 20), facts.Span("beside", 5010, 30)]
    moved, cuts = facts.without_idle(found)
    assert [(span.stage, span.started) for span in moved] == [("old", 0), ("new", 20), ("beside", 30)]
    assert cuts == [15]
    assert facts.overlaps(found) == [("new", "beside", 10)]


def test_a_mean_needs_every_task(stages: dict[str, Manifest]) -> None:
    found = dict(stages)
    metrics = stages["score_mlm"].metrics
    some = {name: value for name, value in metrics["scores"].items() if name != "WordSense"}
    found["score_mlm"] = manifest("score_mlm", 1, 1, {**metrics, "scores": some})
    scores = facts.scores(found)
    assert scores.means["mlm"] is None and scores.means["base"] == pytest.approx(59.4383, abs=1e-3)
    assert (
        scores.table()[3]["task"] == "WordSense"
        and scores.table()[3]["mlm"] is None
        and scores.table()[3]["change"] == pytest.approx(-1.41)
    )
