"""benchmarks/rehearsal_*.py: what a rehearsal says of processes, of rows and of two runs is what is there."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from raysberta.corpus.facts import Repeats
from raysberta.pairs.facts import PairsFacts
from raysberta.schema import PAIR, REJECTED_PAIR
from raysberta.storage.artifacts import Artifact, Store
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from rehearsal_cluster import TwoNodes
from rehearsal_figures import content, figure, growth, rows, same, storage
from rehearsal_records import Planned
from rehearsal_run import s3_server
from rehearsal_watch import Look, Watch, largest, look_at, read_looks

HOLDS = """
import mmap, sys
own = bytearray(b"x") * (120 << 20)
shared = mmap.mmap(-1, 60 << 20)
shared.write(b"x" * (60 << 20))
print("ready", flush=True)
sys.stdin.read()
"""


def test_own_pages_are_told_from_shared_ones(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        look = look_at([psutil.Process(process.pid)])
        assert look is not None
        assert 120 <= look.mib < 145
        assert 60 <= look.shared_mib < 90
        with Watch(lambda: [psutil.Process(process.pid)], tmp_path / "looks.jsonl"):
            time.sleep(1.5)
        process.stdin.close()
    looks = read_looks(tmp_path / "looks.jsonl")
    assert looks and all(120 <= each.mib < 145 for each in looks)
    with (tmp_path / "looks.jsonl").open("a") as stream:
        stream.write('{"time": 1')  # the line of a look that was cut off
    assert read_looks(tmp_path / "looks.jsonl") == looks


def test_the_largest_of_a_span() -> None:
    looks = [Look(1.0, 10, "a", 0), Look(2.0, 30, "b", 0), Look(3.0, 20, "c", 0)]
    assert largest(looks) == looks[1]
    assert largest(looks, 2.5, 9) == looks[2]
    assert largest(looks, 5, 9) is None


def pair(source: str, number: int, **more: object) -> dict:
    empty = dict.fromkeys(REJECTED_PAIR.names, "") | {"negatives": [], "given_score": None, "score": None}
    return empty | {"pair_id": f"{number:016x}", "source": source, "kind": "dataset", "split": "train", **more}


def natural(store: Store, kept: list[dict], rejected: list[dict], dropped: dict[str, int], repeats: Repeats, files: int = 1) -> Artifact:
    name = f"{len(list(Path(store.root).glob('natural/*'))):016x}" if Path(store.root).exists() else "0" * 16
    draft = store.draft("natural", name)
    fs, path = draft.path("pairs")
    table = pa.Table.from_pylist(kept, PAIR)
    for part in range(files):
        start, end = (len(kept) * each // files for each in (part, part + 1))
        pq.write_table(table.slice(start, end - start), f"{path}/part-{part:05d}.parquet", filesystem=fs)
    draft.write_table("rejected", pa.Table.from_pylist(rejected, REJECTED_PAIR))
    draft.rows_in, draft.rows_out, draft.dropped = 13, len(kept), dropped
    counts = {f"{source}/dataset": {"train": n, "dev": 0, "test": 0} for source, n in Counter(row["source"] for row in kept).items()}
    facts = PairsFacts.model_validate({"pairs": counts, "repeats": repeats})
    return store.commit(draft, "natural", name, {}, {}, 42, time.time(), facts)


PLANNED = {
    "one": Planned(9, 1, Counter(no_positive=2, label=1), 6, Counter(too_long=1, in_evaluation=1), {}, 1, 3),
    "two": Planned(4, 0, Counter(), 4, Counter(duplicate=1), {"one": 1}, 0, 1),
}
KEPT = [pair("one", 1), pair("one", 2), pair("one", 3), pair("two", 4)]
REJECTED = [
    pair("one", 5, reason="too_long"),
    pair("one", 6, reason="in_evaluation"),
    pair("one", 7, reason="unreadable: no JSON"),
    pair("two", 8, reason="duplicate"),
    pair("one", 9, reason="duplicate"),  # the one that stands in both sets
]
DROPPED = {"over_limit": 2, "no_positive": 2, "too_long": 1, "in_evaluation": 1, "unreadable": 1, "duplicate": 2}
REPEATS = Repeats(texts=1, passages=1)


def wrong(artifact: Artifact) -> dict:
    (line,) = rows(PLANNED, artifact)
    return line


def test_rows_are_held_against_the_plan(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    line = wrong(natural(store, KEPT, REJECTED, DROPPED, REPEATS))
    assert line["met"] and line["value"] == 0 and not line["differing"]


@pytest.mark.parametrize("lost", ["kept", "rejected", "dropped", "doubled", "mixture", "passages"])
def test_a_row_that_is_not_as_planned_is_named(lost: str, tmp_path: Path) -> None:
    kept, rejected, dropped, repeats = list(KEPT), list(REJECTED), dict(DROPPED), REPEATS
    match lost:
        case "kept":
            kept = KEPT[1:]
        case "rejected":
            rejected = REJECTED[:-2]
        case "dropped":
            dropped["over_limit"] = 1
        case "doubled":
            kept = [*KEPT, pair("two", 10)]
        case "mixture":
            kept = [*KEPT[:2], pair("two", 3), KEPT[3]]
        case "passages":
            repeats = Repeats(texts=1, passages=0)
    line = wrong(natural(Store(str(tmp_path)), kept, rejected, dropped, repeats))
    assert not line["met"] and line["value"] >= 1 and line["differing"]


def test_content_is_rows_not_files(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first = natural(store, KEPT, REJECTED, DROPPED, REPEATS)
    other = natural(store, KEPT, REJECTED, DROPPED, REPEATS, files=3)
    changed = natural(store, [*KEPT[:3], pair("two", 4, query="x")], REJECTED, DROPPED, REPEATS)
    assert content(first) == content(other) != content(changed)
    (alike,), (unlike,) = same({"a": first}, {"a": other}), same({"a": first}, {"a": changed})
    assert alike["met"] and not unlike["met"] and unlike["differing"] == ["a"]
    (missing,) = same({"a": first}, {})
    assert not missing["met"]


def test_growth_leaves_search_out() -> None:
    tenth = [figure("seconds of natural", 10.0), figure("seconds of mined", 1.0), figure("largest process, MiB of its own", 1000.0)]
    full = [figure("seconds of natural", 120.0), figure("seconds of mined", 90.0), figure("largest process, MiB of its own", 1250.0)]
    assert {line["name"]: line["met"] for line in growth(full, tenth)} == {
        "largest process against a tenth of the size": True,
        "seconds of natural against a tenth of the size": False,
    }


def test_requests_to_the_server_are_counted_and_its_objects_lie_on_the_disk(tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    begun = time.time()
    with s3_server(tmp_path / "objects", requests) as uri:
        fs, path = pafs.FileSystem.from_uri(uri)
        with fs.open_output_stream(f"{path}/large") as stream:
            stream.write(b"x" * (1 << 20))
        with fs.open_input_file(f"{path}/large") as stream:
            stream.seek(1000)
            assert stream.read(500_000) == b"x" * 500_000
        assert sum(info.st_size for info in map(Path.stat, (tmp_path / "objects").rglob("*"))) >= 1 << 20 or open_files(tmp_path)
    asked = [json.loads(line) for line in requests.read_text().splitlines()]
    assert sum(each["out"] for each in asked if each["method"] == "GET") == pytest.approx(500_000, rel=0.01)
    assert sum(each["in"] for each in asked if each["method"] in ("PUT", "POST")) >= 1 << 20
    assert all(begun <= each["time"] <= time.time() for each in asked)
    artifact = natural(Store(str(tmp_path / "store")), KEPT, REJECTED, DROPPED, REPEATS)
    span = artifact.manifest.model_copy(update={"started": begun, "seconds": 600.0})
    lines = {line["name"]: line for line in storage({"natural": Artifact(span, artifact.uri)}, requests, 0)}
    assert lines["requests during natural"]["value"] == len(asked)


def open_files(folder: Path) -> bool:
    """Whether the server holds an unnamed file there."""
    found = (file for process in psutil.process_iter() if "rehearsal_server" in " ".join(_words(process)) for file in _opened(process))
    return any(str(folder) in file for file in found)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _opened(process: psutil.Process) -> list[str]:
    links = Path(f"/proc/{process.pid}/fd").iterdir()
    return [str(link.readlink()) for link in links]


SLEEPS = """
import ray, sys
ray.init(log_to_driver=False, logging_level="ERROR")
assert len([node for node in ray.nodes() if node["Alive"]]) == 2
@ray.remote(max_retries=5)
def works(seconds):
    import tempfile, time
    time.sleep(seconds)
    return tempfile.gettempdir()
found = ray.get([works.remote(6) for _ in range(4)])
print(len(set(found)), flush=True)
"""


@pytest.mark.timeout(400)
def test_two_nodes_live_through_a_killed_worker_and_a_killed_raylet(tmp_path: Path) -> None:
    with TwoNodes(tmp_path / "runs") as nodes:
        command = [sys.executable, "-c", SLEEPS]
        with subprocess.Popen(command, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
            deadline = time.monotonic() + 120
            while (name := nodes.kill_worker({})) is None:
                assert time.monotonic() < deadline and job.poll() is None, job.stderr.read() if job.stderr and job.poll() else ""
                time.sleep(0.2)
            assert name == "ray::works"
            nodes.kill_second()
            nodes.start_second()
            out, err = job.communicate(timeout=200)
        assert job.returncode == 0, err[-2000:]
        assert out.strip() == "2", "each node has a temporary folder of its own"
        family = nodes.family()
        assert any(process.name() == "raylet" for process in family)
        folder = nodes.folder
    assert not folder.exists()
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
