"""The report: every number of the table is there, what got worse is named, nothing comes from elsewhere, nothing breaks out."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_run import (
    EXPORTED,
    FIRST_LOSSES,
    GENERAL,
    MERGED_TRIALS,
    MODELS,
    PAIRS,
    RECIPE,
    SAMPLES,
    SOURCES,
    TASKS,
    Run,
    facts,
    merge,
    scores,
    source,
)

from raysberta.corpus.facts import CorpusFacts
from raysberta.evaluation.facts import ScoresFacts
from raysberta.pairs.facts import PairsFacts
from raysberta.publishing.gather import Told
from raysberta.publishing.report import report


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
def html(told: Told) -> str:
    return report(told, {"questions": SAMPLES})


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def rows_of(page: Page) -> dict[str, list[str]]:
    """The last row of each first cell."""
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in page.rows if row}


def scored(**values: float) -> ScoresFacts:
    """Scores of a model on fewer tasks."""
    full = scores("e5")
    return full.model_copy(update={"scores": values, "details": {name: full.details[name] for name in values}})


def test_every_number_of_the_score_tables_is_in_its_row(page: Page) -> None:
    heads = [row for row in page.rows if row and row[:2] == ["task", "change"]]
    assert [tuple(head[2:]) for head in heads] == [MODELS, MODELS]
    found = [[cell.strip() for cell in row] for row in page.rows if len(row) == len(MODELS) + 2 and "±" in row[2]]
    rows = {row[0].split("\n")[0]: row[1:] for row in found}
    for task, (_, _, values) in TASKS.items():
        assert [cell.split(" ± ")[0] for cell in rows[task][1:]] == [f"{100 * value:.2f}" for value in values]
        assert 3 < float(rows[task][1].split(" ± ")[1]) < 5, "1.96 standard deviations of the draws"
        assert rows[task][0].startswith(f"{100 * (values[-1] - values[0]):+.2f} [")
    for name, wanted in (("own", set(TASKS) - set(GENERAL)), ("general", set(GENERAL))):
        means = [sum(TASKS[task][2][place] for task in wanted) / len(wanted) * 100 for place in range(len(MODELS))]
        assert [cell.split(" ± ")[0] for cell in rows[f"mean of {name} tasks"][1:]] == [f"{mean:.2f}" for mean in means]
        assert rows[f"mean of {name} tasks"][0].startswith(f"{means[-1] - means[0]:+.2f} [")


def test_what_got_worse_is_named_and_only_that(page: Page, tmp_path: Path) -> None:
    assert "Worse than the base on general tasks: WordSense (-1.41 [" in page.text and "Worse than the base on own" not in page.text
    ends = {"score_e5": scored(WordSense=0.6), "score_merged": scored(WordSense=0.7)}
    text = Page(report(Run({**RECIPE, "score": ["e5", "merged"]}, tmp_path).fill({**facts(), **ends}).told())).text
    assert "No task clearly got worse." in text
    assert "On the mean of 1 general task, where it was not trained, the final model gains 10.00 points: 60.00 to 70.00, [+9" in text


def test_a_loss_where_it_was_not_trained_is_said_before_any_gain(tmp_path: Path) -> None:
    lost = scores("merged")
    lost = lost.model_copy(update={"scores": {**lost.scores, "DictionaryTopics": 0.12, "WordSense": 0.6}})
    text = Page(report(Run(RECIPE, tmp_path).fill({**facts(), "score_merged": lost}).told())).text
    first = text.index("On the mean of 2 general tasks, where it was not trained, the final model loses 6.21 points")
    assert first < text.index("On the mean of 3 own tasks the final model gains 5.64 points") < text.index("Main score of each task")


def test_without_general_tasks_the_report_says_what_nothing_tells(tmp_path: Path) -> None:
    ends = {"score_e5": scored(IntentRussian=0.6), "score_merged": scored(IntentRussian=0.7)}
    page = Page(report(Run({**RECIPE, "score": ["e5", "merged"]}, tmp_path).fill({**facts(), **ends}).told()))
    assert "Nothing tells how the model does where it was not trained" in page.text and "General tasks" not in page.text


def test_the_base_is_the_one_that_the_recipe_compares_with(tmp_path: Path) -> None:
    """Against `tuned` every change lies inside its interval."""
    text = Page(report(Run({**RECIPE, "compare_with": "tuned"}, tmp_path).fill(facts()).told())).text
    assert "No task clearly got worse." in text and "merged, minus the base model, tuned" in text
    assert re.search(r"\+0\.04 \[-0\.\d, \+0\.\d\], no clear change", text) and "3 own tasks the final model has no clear change: " in text


def test_counts_and_engines_are_under_their_nodes(page: Page) -> None:
    rows = rows_of(page)
    for name, counts in SOURCES.items():
        assert rows[name][:2] == [f"{counts.read:,}", f"{counts.kept:,}"]
        assert all(f"{count:,}" in rows[name] for count in counts.dropped.values())
    assert "25,191 documents read, 21,854 kept, 3,337 left out: near duplicate 1,526" in page.text
    assert "By language: ru 16,224, en 5,630. Personal data replaced: email 13, ip 3." in page.text
    found = [[cell.strip() for cell in row] for row in page.rows if row]
    for pairs, counts in PAIRS.items():
        assert [pairs, *(f"{counts.get(split, 0):,}" for split in ("train", "dev", "test"))] in found
    assert "By writer, vllm 0.32.0." in page.text
    assert rows["requested"] == ["500"] and rows["dropped: round trip"] == ["163"]
    assert "How do I add up elements?" in page.text
    assert "A cross-encoder scores 12.5 % of 400 negatives at least as high as their positive." in page.text
    assert "By its verdict 1,031 candidates became positives." in page.text
    assert ["dictionary/term_definition", "5,600", "5,600", "10 to 60"] in found and ["senses/same_label", "400", "5,600", ""] in found
    assert ["DictionaryRetrieval", "own", "Retrieval", "dictionary/term_definition", "ru"] in [row[:5] for row in found]


def test_phases_tell_their_numbers(page: Page) -> None:
    rows = rows_of(page)
    losses = {f"{name} (chosen)" if name == "focus" else name: f"{loss:.4f}" for name, loss in FIRST_LOSSES.items()}
    assert {name: rows[name][0] for name in losses} == losses and "brings no head" in page.text
    assert rows["▁энкодер"] == ["▁код, ▁модель"]
    assert ["ru", "tokens a word", "1.9312", "1.8021"] in [[cell.strip() for cell in row] for row in page.rows]
    assert "117.7M parameters became 31.8M." in page.text
    assert "110 steps of info_nce at temperature 0.03" in page.text and "the own mean best after step 110" in page.text
    assert rows["110"] == ["52.11", "52.11"]
    assert "192 of 199 tensors merged, 7 copied from the first. 5 were so nearly parallel" in page.text
    assert ["tuned", "0.9"] in page.rows


def test_every_trial_of_a_search_is_told_with_what_became_of_it(page: Page) -> None:
    assert "temperature 0.03, negatives 2: the best of 4 tried, in 123 s. 2 ended early." in page.text
    trials = [[cell.strip() for cell in row] for row in page.rows if len(row) == 9]
    assert ["0.03", "2", "chosen", "53.55", "63.55", "83.55", "73.55", "6", "41.5"] in trials
    assert ["0.02", "1", "ended early", "51.01", "61.01", "81.01", "71.01", "3", "21.0"] in trials
    assert ["0.02", "2", "", "53.12", "63.12", "83.12", "73.12", "6", "40.0"] in trials
    assert "weight 0.9: the best of 3 tried, in 60 s." in page.text
    merges = [[cell.strip() for cell in row] for row in page.rows if len(row) == 8]
    for trial in MERGED_TRIALS:
        fate = "chosen" if trial.values["weight"] == 0.9 else ""
        shown = [
            f"{trial.values['weight']:g}",
            fate,
            f"{100 * trial.score - 20:.2f}",
            f"{100 * trial.score - 10:.2f}",
            f"{100 * trial.score + 10:.2f}",
            f"{100 * trial.score:.2f}",
            "",
            f"{trial.seconds:.1f}",
        ]
        assert shown in merges


def test_lineage_says_what_each_node_was_made_from(page: Page, small_run: Run) -> None:
    rows = {row[0]: row for row in page.rows if len(row) == 7 and row[1] in {node.kind for node in small_run.nodes.values()}}
    for name, manifest in small_run.manifests.items():
        made_from = ", ".join(small_run.nodes[name].made_from)
        counts = [f"{manifest.rows_in:,}", f"{manifest.rows_out:,}"]
        assert rows[name] == [name, manifest.kind, manifest.fingerprint, made_from, *counts, "10.0"]
    assert ["e5", "encoder", "hub:intfloat/multilingual-e5-small@0123abc", "117.7M"] in page.rows
    assert "nodes shared time, corpus and e5 2 s" not in page.text and "nodes shared time" in page.text


def test_all_pictures_are_drawn_inside_the_page(html: str, page: Page) -> None:
    labels = re.findall(r'aria-label="([^"]*)"', html)
    assert sorted(label for label in labels if label != "sections") == sorted(
        [
            *(f"{name} tasks: score of each before and after" for name in ("Own", "General")),
            *(f"{name} tasks: mean score of each model" for name in ("Own", "General")),
            "corpus: documents by source and what became of them",
            "natural: pairs by source and kind",
            "mined: cosines and ranks",
            *(f"{name}: loss" for name in ("adapted", "general", "tuned", "aside")),
            "search_tuned: score of each trial",
            "search_merged: score of each trial",
            "When each node was made",
            "Graph of the recipe",
        ]
    )
    assert page.tags.count("svg") == len(labels) - 1


def test_nothing_is_loaded_from_elsewhere(html: str, page: Page) -> None:
    assert not {"script", "iframe", "link", "img", "object", "embed"} & set(page.tags)
    assert page.links and all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids), "every inner link has its target"
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names of XML vocabularies, which nothing fetches"


def test_values_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>$x_{&\"'"
    given = {
        "corpus": CorpusFacts(sources={evil: source(30, 21, evil, {evil: 2}, {evil: 1})}),
        "natural": PairsFacts(pairs={evil: {"train": 1}}),
        "score_e5": scores("e5").model_copy(update={"scores": {evil: 0.5}, "details": {evil: scores("e5").details["WordSense"]}}),
        "score_merged": scores("e5").model_copy(update={"scores": {evil: 0.6}, "details": {evil: scores("e5").details["WordSense"]}}),
    }
    run = Run({**RECIPE, "score": ["e5", "merged"]}, tmp_path).fill({**facts(), **given})
    sample = {"kind": evil, "passage": evil, "output": evil, "reason": evil}
    html = report(run.told(model_name=evil, description=evil), {"questions": [sample]})
    page = Page(html)
    assert "script" not in page.tags and "<script" not in html
    assert page.text.count("alert(1)") >= 12


def test_a_recipe_with_little_in_it_still_has_a_report(tmp_path: Path) -> None:
    """No corpus to speak of, no tasks, nothing that is trained: a data set and a merge of two models from outside."""
    sources = {"questions_of_people": RECIPE["sources"]["questions_of_people"]}
    models = {name: {"from": f"path:/models/{name}"} for name in ("e5", "other")}
    phases = {"merged": {"kind": "merge", "of": ["e5", "other"], "weight": 0.9}}
    run = Run({"name": "little", "sources": sources, "models": models, "phases": phases}, tmp_path)
    given = {"corpus": CorpusFacts(sources={}), "natural": PairsFacts(pairs={}), "other": facts()["e5"], "merged": merge([0.1, 0.9])}
    told = run.fill({**facts(), **given}).told()
    page = Page(report(told))
    assert [link for link in page.links if link.startswith("#") and link[1:] in page.ids][:3] == ["#phases", "#timeline", "#lineage"]
    assert "Slerp of all tensors, 0.1 of e5, 0.9 of other." in page.text
    assert "Scores" not in page.text and "nothing was drawn" in page.text
    assert f"{EXPORTED.parameters / 1e6:.1f}M" in page.text
