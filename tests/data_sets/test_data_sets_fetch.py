"""The job against a hub on this machine, in each format that the published mixture comes in; cut off, refused, and without a hub."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub import COMMIT, Hub, serving

from raysberta.data_sets.outside import units
from raysberta.data_sets.read import Taken, read
from raysberta.data_sets.settings import DatasetSource
from raysberta.data_sets.snapshot import Index, place
from raysberta.nodes import located
from raysberta.parsing import load
from source_tree import ROOT


class Done(NamedTuple):
    code: int
    out: str
    errors: str


SQUAD = [
    {"question": f"Кто открыл остров номер {n}?", "context": f"Остров {n} открыл мореплаватель.", "answers": {"text": ["он"]}}
    for n in range(300)
]
POSTS = [{"title": f"Заметка {n}", "text_markdown": f"Текст заметки {n}, длинный.", "rating": n} for n in range(200)]
NLI = [
    {"premise": f"Посылка {n}", "hypothesis": f"Гипотеза {n} {label}", "label": label} for label in range(3) for n in range(100)
]  # those of one premise stand a hundred rows apart
MEDI = [{"query": f"query {n}", "pos": f"pos {n}", "neg": f"neg {n}", "task_name": ("agnews", "NQ", "xsum")[n % 3]} for n in range(600)]
PASSAGES = [{"docid": f"{n}#{part}", "title": f"Статья {n}", "text": f"Абзац {part} статьи {n}."} for part in (10, 2, 0) for n in range(50)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    for name in ("qa", "posts", "nli", "medi", "bitext", "paraphrases", "wiki", "card"):
        (root / "owner" / name).mkdir(parents=True)
    home = root / "owner"
    (home / "qa" / "sberquad").mkdir()
    pq.write_table(pa.Table.from_pylist(SQUAD), home / "qa" / "sberquad" / "train-00000-of-00001.parquet", row_group_size=50)
    pq.write_table(pa.Table.from_pylist(SQUAD[:5]), home / "qa" / "sberquad" / "test-00000-of-00001.parquet")
    with pa.OSFile(str(home / "posts" / "00.jsonl.zst"), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in POSTS).encode())
    with gzip.open(home / "nli" / "train.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in NLI)
    (home / "medi" / "medi.json").write_text(json.dumps(MEDI))
    (home / "bitext" / "train.csv").write_text(
        "id,original,ru,p_good\n" + "".join(f'{n},"Раз, {n}",Два {n},{n / 100}\n' for n in range(100))
    )
    (home / "paraphrases" / "all.tsv").write_text("first\tsecond\n" + "".join(f"один {n}\tдругой {n}\n" for n in range(40)))
    (home / "wiki" / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PASSAGES))
    configs = [{"config_name": "ru", "data_files": [{"split": "train", "path": "ru/train*"}, {"split": "test", "path": "ru/test*"}]}]
    (home / "card" / "README.md").write_text(f"---\n{yaml.safe_dump({'license': 'cc-by-4.0', 'configs': configs})}---\n# Card\n")
    (home / "card" / "ru").mkdir()
    for split in ("train-0", "train-1", "test"):
        (home / "card" / "ru" / f"{split}.jsonl").write_text(json.dumps({"query": f"of {split}", "positive": "it"}) + "\n")
    with serving(root) as running:
        yield running


def of_hub(name: str, **values: object) -> dict[str, object]:
    return {"kind": "dataset", "hub": f"owner/{name}", "revision": COMMIT, "task": "retrieval", **values}


SETS: dict[str, dict[str, object]] = {
    "squad": of_hub("qa", files="sberquad/train-*.parquet", query_field="question", positive_field="context", language="ru", licence="mit"),
    "posts": of_hub(
        "posts", files="*.jsonl.zst", query_field="title", positive_field="text_markdown", minimum={"rating": 150}, task="topic"
    ),
    "nli": of_hub(
        "nli",
        files="train.jsonl.gz",
        query_field="premise",
        positive_field="hypothesis",
        label_field="label",
        labels={0: "positive", 1: "unused", 2: "negative"},
        task="paraphrase",
    ),
    "agnews": of_hub("medi", files="medi.json", positive_field="pos", negatives_field="neg", where={"task_name": "agnews"}, limit=50),
    "nq": of_hub("medi", files="medi.json", positive_field="pos", negatives_field="neg", where={"task_name": "NQ"}, sample=20),
    "bitext": of_hub(
        "bitext", files="train.csv", query_field="original", positive_field="ru", score_field="p_good", minimum={"p_good": 0.9}
    ),
    "paraphrases": of_hub("paraphrases", files="all.tsv", query_field="first", positive_field="second"),
    "wiki": of_hub("wiki", files="docs.jsonl", query_field="title", positive_field="text", order_field="docid"),
    "card": of_hub("card", config="ru", split="train", licence="mit"),
}


def recipe(folder: Path, sets: dict[str, dict[str, object]], **more: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({"name": "mixture", "data": str(folder / "data"), "sources": sets, **more}, allow_unicode=True, sort_keys=False)
    )
    return path


def environment(hub: Hub | None, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    endpoint = hub.endpoint if hub else "http://127.0.0.1:9"
    return {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def fetch(hub: Hub | None, path: Path, *arguments: str) -> Done:
    command = [sys.executable, str(ROOT / "jobs" / "fetch_data.py"), "--recipe", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(hub, path.parent / "hf"), timeout=300)
    return Done(done.returncode, done.stdout, done.stderr)


def sources(path: Path) -> dict[str, DatasetSource]:
    return {name: each for name, each in located(load(path)).sources.items() if isinstance(each, DatasetSource)}


def taken(path: Path, name: str) -> list[Taken]:
    source = sources(path)[name]
    return [each for unit in units(name, source) for each in read(unit, source, 2000)]


def pairs(path: Path, name: str) -> list[dict[str, object]]:
    return [row for each in taken(path, name) for row in each.pairs.to_pylist()]


@pytest.fixture(scope="module")
def fetched(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = recipe(tmp_path_factory.mktemp("fetched"), SETS)
    done = fetch(hub, path)
    assert done.code == 0, done.errors
    assert done.out.startswith("9 data sets, 1,212 rows; licences: "), done.out
    return path


def test_every_format_gives_its_pairs(fetched: Path) -> None:
    found = {(row["query"], row["positive"], row["language"]) for row in pairs(fetched, "squad")}
    assert found == {(row["question"], row["context"], "ru") for row in SQUAD}
    assert {row["query"] for row in pairs(fetched, "posts")} == {f"Заметка {n}" for n in range(150, 200)}
    assert sum(each.dropped.get("minimum:rating", 0) for each in taken(fetched, "posts")) == 150
    found = {(row["query"], row["positive"], *row["negatives"]) for row in pairs(fetched, "nli")}
    assert found == {(f"Посылка {n}", f"Гипотеза {n} 0", f"Гипотеза {n} 2") for n in range(100)}
    found = {(row["query"], row["positive"], *row["negatives"]) for row in pairs(fetched, "agnews")}
    assert found == {(f"query {n}", f"pos {n}", f"neg {n}") for n in range(0, 600, 3)}, "limit is for the pairs that are left at the end"
    assert {row["query"]: round(row["given_score"], 4) for row in pairs(fetched, "bitext")} == {
        f"Раз, {n}": n / 100 for n in range(90, 100)
    }
    assert len(pairs(fetched, "paraphrases")) == 40
    found = {(row["query"], row["positive"]) for row in pairs(fetched, "wiki")}
    assert found == {(f"Статья {n}", "\n".join(f"Абзац {part} статьи {n}." for part in (0, 2, 10))) for n in range(50)}
    assert sorted(row["query"] for row in pairs(fetched, "card")) == ["of train-0", "of train-1"]


def test_a_sample_is_the_queries_of_least_hash(fetched: Path) -> None:
    from raysberta.pairs.text import normalise
    from raysberta.schema import text_id

    all_of_it = sorted((f"query {n}" for n in range(1, 600, 3)), key=lambda query: text_id(normalise(query)))
    assert [row["query"] for row in pairs(fetched, "nq")] == all_of_it[:20]


def test_the_table_of_licences(fetched: Path) -> None:
    lines = (fetched.parent / "data" / "snapshot" / "licences.md").read_text().splitlines()
    assert len(lines) == 2 + len(SETS)
    assert f"| squad | hub:owner/qa@{COMMIT} | mit | not stated | 300 | 300 |" in lines[2]
    assert "| mit | cc-by-4.0 (differs) | 2 | 2 |" in lines[-1]


def test_what_is_there_is_not_asked_for_again(hub: Hub, fetched: Path) -> None:
    before = sum(hub.asked.values())
    done = fetch(hub, fetched)
    assert done.code == 0 and sum(hub.asked.values()) == before, done.errors
    assert hub.asked[f"/datasets/owner/medi/resolve/{COMMIT}/medi.json"] == 2, "HEAD and GET, once for both of its sets"


def test_a_folder_of_downloads_gives_the_same_and_asks_no_hub(hub: Hub, fetched: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    for number, name in enumerate(sorted({str(each["hub"]) for each in SETS.values()})):
        flat = name.replace("/", "__")
        target = downloads / (f"{flat}@{COMMIT}", flat, name)[number % 3]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(hub.root / name)
    path = recipe(tmp_path / "again", SETS)
    done = fetch(None, path, "--downloads", str(downloads))
    assert done.code == 0, done.errors
    assert _indexes(path) == _indexes(fetched)


def _indexes(path: Path) -> dict[str, Index]:
    return {name: Index.model_validate_json((Path(place(source)) / "index.json").read_bytes()) for name, source in sources(path).items()}


def test_to_an_object_store(hub: Hub, fetched: Path, tmp_path: Path, s3: str) -> None:
    few = {name: SETS[name] for name in ("squad", "nli")}
    from raysberta.storage.location import join

    data = join(s3, tmp_path.name)
    path = recipe(tmp_path, few, **{"data": data})
    done = fetch(hub, path)
    assert done.code == 0, done.errors
    assert "planted" not in done.out + done.errors
    for name in few:
        assert pairs(path, name) == pairs(fetched, name)


def test_killed_and_started_again(hub: Hub, fetched: Path, tmp_path: Path) -> None:
    """After the first index is written; what was done stays, the rest is made, and all is as if nothing had been."""
    path = recipe(tmp_path / "killed", SETS)
    command = [sys.executable, str(ROOT / "jobs" / "fetch_data.py"), "--recipe", str(path)]
    process = subprocess.Popen(command, env=environment(hub, tmp_path / "hf"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (done := list(tmp_path.glob("killed/data/snapshot/*/index.json"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = done[0].stat().st_mtime_ns
    half = done[0].parent.parent / f"{Path(place(sources(path)['card'])).name}"
    half.mkdir(exist_ok=True)
    (half / "part-00007.parquet").write_text("of one that was cut off")
    (half / "index.json").unlink(missing_ok=True)
    assert fetch(hub, path).code == 0
    assert done[0].stat().st_mtime_ns == first and _indexes(path) == _indexes(fetched)
    assert sorted(file.name for file in half.iterdir()) == ["index.json", "part-00000.parquet"]


def test_a_hub_that_breaks_off_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    path = recipe(tmp_path, {"posts": SETS["posts"], "nli": SETS["nli"]})
    hub.broken[f"/api/datasets/owner/posts/tree/{COMMIT}"] = 1
    hub.broken["train.jsonl.gz"] = 1
    done = fetch(hub, path)
    assert done.code == 0, done.errors
    assert len(pairs(path, "nli")) == 100


def test_no_hub_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    path = recipe(tmp_path, {"posts": SETS["posts"]})
    environ = environment(None, tmp_path / "hf")
    script = f"import runpy, sys, raysberta.data_sets.fetch as f; f.WAITS, f.TRIES = 0.01, 2; sys.argv = ['x', '--recipe', {str(path)!r}]; "
    script += f"runpy.run_path({str(ROOT / 'jobs' / 'fetch_data.py')!r}, run_name='__main__')"
    environ["PYTHONPATH"] = str(ROOT / "platform")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, timeout=200)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("failed: sources.posts.hub: the hub ") and "goes on from there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hub": "owner/none"}, "sources.x.hub: the hub refuses: "),
        ({"revision": "0" * 40}, "sources.x.hub: the hub refuses: "),
        ({"files": "*.parquet"}, "sources.x.files: owner/posts has no file *.parquet at c0ffee01; there are 00.jsonl.zst"),
        (
            {"query_field": "header"},
            "sources.x.query_field: no record up to 00.jsonl.zst line 200 has 'header'; there are title, text_markdown, rating",
        ),
        ({"where": {"rating": 1000}}, "sources.x.where: no record of 1 files is so; there are rating=0, rating=1"),
        (
            {"revision": "OPEN"},
            "sources.x.revision: is OPEN, so what it would be read from is not settled; right would be a commit of owner/posts",
        ),
        ({"revision": "main"}, "sources.x.revision: 'main' is no commit; right would be its 40 hex digits"),
        ({"limit": 0}, "sources.x.limit: Input should be greater than 0, given 0"),
        ({"revision": None}, "sources.x: revision: owner/posts is named without a commit"),
        ({"path": "somewhere"}, "sources.x: path: right would be either path or hub"),
        (
            {"label_field": "rating", "labels": {0: "positive"}},
            "sources.x.labels: 00.jsonl.zst line 2 has the label '1', which is not named",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(hub: Hub, tmp_path: Path, change: dict[str, object], says: str) -> None:
    entry = {key: value for key, value in {**SETS["posts"], **change}.items() if value is not None}
    done = fetch(hub, recipe(tmp_path, {"x": entry}))
    assert done.code == 2, done.errors
    errors = [line for line in done.errors.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and says in errors[0], errors
    assert "Traceback" not in done.errors


def test_commits_that_a_recipe_leaves_open(hub: Hub, tmp_path: Path) -> None:
    entries = {name: {**SETS[name], "revision": "OPEN"} for name in ("posts", "agnews", "nq")}
    done = fetch(hub, recipe(tmp_path, {**entries, "nli": SETS["nli"]}), "--commits")
    assert done.code == 0, done.errors
    assert done.out == f"owner/posts: {COMMIT}\nowner/medi: {COMMIT}\n"


def test_one_wrong_entry_costs_the_others_nothing(hub: Hub, tmp_path: Path) -> None:
    wrong = {name: {**SETS["nq"], "where": {"task_name": name}} for name in ("trivia", "quora")}
    path = recipe(tmp_path, {"trivia": wrong["trivia"], "agnews": SETS["agnews"], "quora": wrong["quora"]})
    done = fetch(hub, path)
    assert done.code == 2
    says = "error: sources.trivia.where: no record of 1 files is so; there are task_name=NQ, task_name=agnews, task_name=xsum"
    assert done.errors.splitlines()[-1] == f"{says} (and something is wrong with quora)"
    assert len(pairs(path, "agnews")) == 200


def test_open_revisions_are_told_at_once(hub: Hub, tmp_path: Path) -> None:
    entries = {name: {**SETS[name], "revision": "OPEN"} for name in ("posts", "agnews", "nq")}
    done = fetch(hub, recipe(tmp_path, {"nli": SETS["nli"], **entries}))
    assert done.code == 2 and "error: sources.posts.revision: is OPEN" in done.errors and done.errors.rstrip().endswith("(and 2 more)")
    assert not (tmp_path / "data").exists()
