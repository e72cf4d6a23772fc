"""Registered tasks read from a folder in the snapshot layout, with texts of our own in the place of the public data."""

import json
import tempfile
from pathlib import Path

import mteb
import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from raysberta.errors import InputError
from raysberta.evaluation import snapshot
from raysberta.evaluation.outside import benchmark_state, check_benchmark
from raysberta.evaluation.score import score_tasks
from raysberta.evaluation.settings import Benchmark
from raysberta.prefixes import Prefixes
from raysberta.retrieval.embed import Embedder
from raysberta.storage.location import filesystem, join

NAME = "MTEB(rus, v1.1)"
TASKS = ["TERRa", "RuBQRetrieval", "STS22"]
README = """---
configs:
- config_name: default
  data_files: [{split: test, path: qrels.jsonl}]
- config_name: corpus
  data_files: [{split: corpus, path: corpus.jsonl}]
- config_name: queries
  data_files: [{split: queries, path: queries.jsonl}]
---
"""
TERRA_README = """---
configs:
- config_name: default
  data_files: [{split: dev, path: dev.jsonl}]
---
"""
STS_README = """---
configs:
- config_name: default
  data_files: [{split: test, path: data/*.jsonl}]
- config_name: ru
  data_files: [{split: test, path: data/ru.jsonl}]
- config_name: en
  data_files: [{split: test, path: data/en.jsonl}]
---
"""


def lines(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("snapshot")
    places = {}
    for name in TASKS:
        data = mteb.get_task(name).metadata.dataset
        places[name] = root / "data" / f"{data['path'].replace('/', '__')}@{data['revision']}"
    capitals = {"Россия": "Москва", "Франция": "Париж", "Италия": "Рим", "Япония": "Токио"}
    pairs = [(f"столица страны {c}", f"главный город страны {c} — {city}", 1) for c, city in capitals.items()]
    pairs += [(f"столица страны {c}", "на улице идёт дождь", 0) for c in capitals]
    places["TERRa"].mkdir(parents=True)
    (places["TERRa"] / "README.md").write_text(TERRA_README, encoding="utf-8")
    lines(places["TERRa"] / "dev.jsonl", [{"sentence1": a, "sentence2": b, "labels": label} for a, b, label in pairs])
    retrieval = places["RuBQRetrieval"]
    retrieval.mkdir(parents=True)
    (retrieval / "README.md").write_text(README, encoding="utf-8")
    lines(
        retrieval / "corpus.jsonl",
        [{"_id": f"d{i}", "title": "", "text": f"{city} — столица страны {c}"} for i, (c, city) in enumerate(capitals.items())],
    )
    lines(retrieval / "queries.jsonl", [{"_id": f"q{i}", "text": f"столица страны {c}"} for i, c in enumerate(capitals)])
    lines(retrieval / "qrels.jsonl", [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(4)])
    sts = places["STS22"]
    sts.mkdir(parents=True)
    (sts / "README.md").write_text(STS_README, encoding="utf-8")
    for lang in ("ru", "en"):
        lines(
            sts / "data" / f"{lang}.jsonl",
            [{"sentence1": a, "sentence2": b, "score": 4.0 * label + i / 10, "lang": lang} for i, (a, b, label) in enumerate(pairs)],
        )
    snapshot.seal(NAME, root, TASKS)
    return root


def test_registered_tasks_are_scored_from_the_folder_with_their_prefixes(folder: Path, e5_folder: Path) -> None:
    found = snapshot.load(NAME, folder, hashes=True)
    assert sorted(found) == sorted(TASKS)
    seen: list[str] = []
    embedder = Embedder(e5_folder, 48, "bf16")

    def embed(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return embedder.encode(texts)

    scored = score_tasks(found, embed, Prefixes(), overrides=snapshot.overrides(Prefixes()))
    assert scored.scores["RuBQRetrieval"] > 0.8 and scored.scores["TERRa"] > 0.8
    assert scored.types == {"TERRa": "PairClassification", "RuBQRetrieval": "Retrieval", "STS22": "STS"}
    assert "search_query: столица страны Россия" in seen and "search_document: Москва — столица страны Россия" in seen
    assert "classification: столица страны Россия" in seen, "TERRa"
    assert "clustering: на улице идёт дождь" in seen, "STS22 is thematic"
    assert not any(text.startswith("столица") for text in seen)


def test_texts_of_the_scored_splits_can_be_kept_apart(folder: Path) -> None:
    count = snapshot.write_texts(NAME, folder)
    table = pq.read_table(folder / "texts.parquet")
    assert table.num_rows == count
    rows = {(row["item"].split("#")[0], row["part"], row["text"]) for row in table.to_pylist()}
    assert ("RuBQRetrieval", "text", "столица страны Россия") in rows, "a query"
    assert ("RuBQRetrieval", "passage", "Москва — столица страны Россия") in rows
    assert ("TERRa", "text", "главный город страны Япония — Токио") in rows
    assert {(name, part) for name, part, _ in rows} == {*((name, "text") for name in TASKS), ("RuBQRetrieval", "passage")}
    snapshot.load(NAME, folder, hashes=True)


def test_mtebs_shared_tasks_stay_as_they_are(folder: Path) -> None:
    snapshot.load(NAME, folder)
    assert all(not Path(task.metadata.dataset["path"]).is_absolute() for task in mteb.get_benchmark(NAME).tasks)


def test_what_is_missing_or_altered_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no snapshot.json; right would be a folder that jobs/fetch_benchmark.py filled with MTEB"):
        snapshot.load(NAME, tmp_path)
    with pytest.raises(InputError, match="mteb knows no 'MTEB\\(klingon\\)'"):
        snapshot.seal("MTEB(klingon)", tmp_path)
    with pytest.raises(InputError, match=r"the data of .* is missing"):
        snapshot.seal(NAME, tmp_path)
    index = folder / "snapshot.json"
    with pytest.raises(InputError, match=r"holds MTEB\(rus, v1.1\)"):
        snapshot.load("MTEB(eng, v2)", folder)
    entry = json.loads(index.read_text(encoding="utf-8"))["tasks"]["RuBQRetrieval"]
    file = folder / entry["files"][-1]["path"]
    whole = file.read_bytes()
    try:
        file.write_bytes(whole.replace(b"1", b"2", 1))
        snapshot.load(NAME, folder)
        with pytest.raises(InputError, match="not the file that was fetched"):
            snapshot.load(NAME, folder, hashes=True)
        file.write_bytes(whole[:-3])
        with pytest.raises(InputError, match="missing or cut"):
            snapshot.load(NAME, folder)
    finally:
        file.write_bytes(whole)


def test_only_the_wanted_language_is_fetched(folder: Path) -> None:
    sts = next((folder / "data").glob("mteb__sts22*"))
    assert snapshot.wanted_files(sts, ["ru"]) == ["README.md", "data/ru.jsonl"]
    retrieval = next((folder / "data").glob("*rubq*"))
    assert snapshot.wanted_files(retrieval, ["default"]) is None


def test_a_snapshot_is_read_from_an_object_store(folder: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node has nothing of it but what a task needs, copied once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = join(s3, "snapshot")
    fs, path = filesystem(place)
    pafs.copy_files(str(folder), path, destination_filesystem=fs)
    benchmark = Benchmark(name=NAME, snapshot=place)
    assert check_benchmark("rus", benchmark) == []
    assert benchmark_state(benchmark) == benchmark_state(Benchmark(name=NAME, snapshot=str(folder)))
    found = {where: snapshot.load(NAME, where, ["TERRa"], hashes=True)["TERRa"] for where in (str(folder), place)}
    for task in found.values():
        task.load_data()
    near, far = (task.dataset["dev"].to_list() for task in found.values())
    assert near == far and near
    copied = {file.name for file in tmp_path.rglob("*.jsonl")}
    assert copied == {"dev.jsonl"}, "of the other tasks nothing is copied"
    fs.delete_file(f"{path}/{json.loads((folder / 'snapshot.json').read_text())['tasks']['TERRa']['files'][-1]['path']}")
    (problem,) = check_benchmark("rus", benchmark)
    assert "missing or cut" in problem and "planted" not in problem.lower()
    with pytest.raises(InputError, match="missing or cut"):
        snapshot.load(NAME, place, ["TERRa"])
    with pytest.raises(InputError, match=r"nowhere.* has no snapshot\.json; right would be"):
        snapshot.load(NAME, join(s3, "nowhere"))
