"""Cap and language of a data set through the real stage: the same pairs from one file, shuffled ones, Parquet, and a snapshot."""

import json
import random
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.data_sets.fetch import fetch
from raysberta.data_sets.settings import DatasetSource
from raysberta.pairs import stage
from raysberta.pairs.facts import PairsFacts
from raysberta.pairs.settings import NaturalPairs
from raysberta.schema import DOCUMENT, text_id
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work, Workers

pytestmark = pytest.mark.usefixtures("ray_local")

ROWS = [{"query": f"Кто открыл остров {n}?", "positive": f"Остров {n} открыл мореплаватель.", "score": n / 1000} for n in range(1000)]
ROWS += ROWS[500:550]  # planted duplicates
ROWS += [{"query": "", "positive": f"Без вопроса {n}.", "score": 0.5} for n in range(10)]
GOOD = [n for n in range(1000) if n >= 100]


def natural(folder: Path, workers: int, **source: Any) -> Artifact:
    store = Store(str(folder / "store"))
    draft = store.draft("corpus", "0")
    draft.write_table("documents", DOCUMENT.empty_table())
    corpus = store.commit(draft, "corpus", "0", {}, {}, 42, time.time())
    entry = {"kind": "dataset", "task": "retrieval", "score_field": "score", "minimum": {"score": 0.1}, **source}
    asked = NaturalPairs.model_validate({"documents": "corpus", "kinds": {}, "data_sets": {"islands": entry}, "rules": {}})
    if asked.data_sets["islands"].fetched:
        fetch(dict(asked.data_sets))
    draft = store.draft("natural", "0")
    facts = stage.run(Work(asked, {"corpus": corpus}, draft, Workers(workers=workers), node="natural"))
    return store.commit(draft, "natural", "0", {}, {}, 42, time.time(), facts)


def written(folder: Path, seed: int, files: int, parquet: bool) -> str:
    rows = random.Random(seed).sample(ROWS, len(ROWS))
    folder.mkdir(parents=True)
    for number in range(files):
        own = rows[number::files]
        if parquet:
            pq.write_table(pa.Table.from_pylist(own), folder / f"{number}.parquet", row_group_size=37)
        else:
            (folder / f"{number}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own))
    return str(folder)


def test_the_cap_takes_the_same_pairs_whatever_files_formats_and_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sorted(pair_id(n) for n in GOOD)
    for limit in (1, 77, 900, 5000):
        told = []
        for number, (files, parquet, workers) in enumerate(((1, False, 1), (5, True, 2), (3, False, 2))):
            folder = tmp_path / f"{limit}-{number}"
            monkeypatch.setattr("raysberta.data_sets.outside.UNIT_BYTES", (32 << 20, 9000, 5000)[number])
            path = written(folder / "rows", limit + number, files, parquet)
            artifact = natural(folder, workers, path=path, limit=limit, language="ru")
            told.append(artifact.table("pairs"))
            facts = artifact.told(PairsFacts)
            assert facts.pairs == {"islands/dataset": {"train": min(limit, len(GOOD)), "dev": 0, "test": 0}}
            dropped = dict(artifact.manifest.dropped)
            over = dropped.pop("over_limit", 0)
            assert dropped == {"minimum:score": 100, "too_short": 10, "duplicate": 50} and over == max(0, len(GOOD) - limit)
        assert told[0]["pair_id"].to_pylist() == expected[:limit], "the ones of least id, which is a hash"
        assert all(table.equals(told[0]) for table in told[1:])
        assert set(told[0]["language"].to_pylist()) == {"ru"}
        scores = dict(zip(told[0]["query"].to_pylist(), told[0]["given_score"].to_pylist(), strict=True))
        assert all(abs(score - int(query.split()[-1][:-1]) / 1000) < 1e-6 for query, score in scores.items()), "each pair keeps its score"


def pair_id(number: int) -> str:
    positive = f"Остров {number} открыл мореплаватель."
    return text_id("islands", "dataset", text_id("islands", positive), f"Кто открыл остров {number}?", positive)


def test_of_a_snapshot_too(tmp_path: Path) -> None:
    labelled = [{**row, "label": 1} for row in ROWS] + [
        {"query": row["query"], "positive": "Нет.", "score": 1.0, "label": 0} for row in ROWS[:300]
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labelled))
    named = {"label_field": "label", "labels": {1: "positive", 0: "negative"}, "snapshot": str(tmp_path / "snapshot")}
    pairs = natural(tmp_path, 2, path=str(tmp_path / "rows.jsonl"), limit=50, **named).table("pairs")
    assert pairs["pair_id"].to_pylist() == sorted(pair_id(n) for n in GOOD)[:50]
    for query, negatives in zip(pairs["query"].to_pylist(), pairs["negatives"].to_pylist(), strict=True):
        assert negatives == (["Нет."] if int(query.split()[-1][:-1]) < 300 else [])
    assert DatasetSource.model_validate({"kind": "dataset", "path": "x", "task": "topic", **named}).fetched
