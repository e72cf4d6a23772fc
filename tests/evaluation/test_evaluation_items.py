"""Scores taken apart into items: with a real encoder and every type of task, what the items give is what mteb gives."""

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.evaluation import bootstrap, items, task_folder
from raysberta.evaluation import tasks as held_out_tasks
from raysberta.evaluation.recorder import Recorder, _clustering
from raysberta.evaluation.score import Scored, score_own
from raysberta.prefixes import E5
from raysberta.retrieval.embed import Embedder

SIZES = {"Capitals": 24, "Atlas": 24, "Themes": 60}


@pytest.fixture(scope="module")
def scored(encoder: Path, held_out: Path) -> Scored:
    return score_own(Embedder(encoder, 48, "fp32").encode, E5, held_out, "test")


@pytest.fixture(scope="module")
def blind(spoiled: Path, held_out: Path) -> Scored:
    return score_own(Embedder(spoiled, 48, "fp32").encode, E5, held_out, "test")


def table_of(scored: Scored, task: str) -> pa.Table:
    table = scored.items[task]
    assert table is not None
    return table


@pytest.mark.parametrize("task", ["Capitals", "Atlas", "Senses", "Intents", "Themes"])
def test_items_give_the_score_of_mteb(scored: Scored, blind: Scored, held_out: Path, task: str) -> None:
    for found in (scored, blind):
        table = table_of(found, task)
        exact = 5e-6 if task == "Capitals" else 1e-6  # mteb rounds retrieval scores to five digits
        assert items.score(table) == pytest.approx(found.scores[task], abs=exact)
        assert table.num_rows == task_folder.read(held_out)[1].tasks[task].halves["test"].scored


def test_items_are_of_the_queries_and_texts_themselves(scored: Scored, held_out: Path) -> None:
    queries = table_of(scored, "Capitals").column("value").to_numpy()
    assert ((queries >= 0) & (queries <= 1)).all() and len(set(queries.tolist())) > 2
    known = table_of(scored, "Intents").column("value").to_numpy()
    assert np.allclose(known * 10, np.round(known * 10)), "ten probes"
    labels = table_of(scored, "Themes").column("label").to_pylist()
    assert labels == pq.read_table(held_out / "test" / "Themes" / "texts.parquet")["label"].to_pylist()


def test_a_score_lies_in_its_interval_and_a_planted_difference_is_found(scored: Scored, blind: Scored) -> None:
    changed = {}
    for task, table in scored.items.items():
        assert table is not None
        seed = items.seed_of(task, "r")
        mine, theirs = items.draws(table, seed), items.draws(table_of(blind, task), seed)
        low, high = bootstrap.interval(scored.scores[task], mine)
        assert low < scored.scores[task] < high and high - low < 0.5
        assert np.array_equal(mine, items.draws(table, seed)) and not np.array_equal(mine, items.draws(table, seed + 1))
        changed[task] = bootstrap.interval(scored.scores[task] - blind.scores[task], mine - theirs)
    assert all(changed[task][0] > 0 for task in ("Capitals", "Atlas")), "what only words tell apart"
    same = items.draws(table_of(scored, "Senses"), 1) - items.draws(table_of(scored, "Senses"), 1)
    assert bootstrap.interval(0.0, same) == (0.0, 0.0)


def test_a_task_of_another_metric_has_no_items(encoder: Path, held_out: Path, caplog: pytest.LogCaptureFixture) -> None:
    location, index = task_folder.read(held_out)
    (task,) = held_out_tasks.load(location, index, "test", ["Capitals"]).values()
    recorder = Recorder(task)
    assert recorder.items(0.5) is None, "nothing was evaluated"
    recorder.tables = [pa.table({"value": [0.0, 1.0]})]
    assert recorder.items(0.5) is not None and recorder.items(0.51) is None
    assert "Capitals.test: no interval: its items give 0.500000, mteb 0.510000" in caplog.text
    recorder.predictions = {"query": {"map_cut_10": 0.5}}
    assert recorder._table(None, "test", None) is None and "its items cannot be read: KeyError: 'ndcg_cut_10'" in caplog.text
    recorder.tables *= 2
    assert recorder.items(0.5) is None, "two subsets"


def test_texts_of_a_clustering_are_drawn_again_as_mteb_drew_them() -> None:
    class Task:
        label_column_name = "label"
        max_document_to_embed = max_fraction_of_documents_to_embed = None

    labels: Mapping[str, list[int]] = {"label": [0, 0, 1, 1, 2]}
    state = random.Random(5).getstate()
    drawing = random.Random(5)
    drawn = [drawing.choices(range(5), k=5) for _ in range(3)]
    assigned = {"Level 0": [[10 + place for place in chosen] for chosen in drawn]}
    table = _clustering(Task(), assigned, labels, state)
    assert table is not None
    for number, chosen in enumerate(drawn):
        assert table.column(f"times.{number}").to_pylist() == [chosen.count(place) for place in range(5)]
        assert table.column(f"cluster.{number}").to_pylist() == [10 + place if place in chosen else -1 for place in range(5)]
