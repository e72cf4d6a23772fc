"""benchmarks/rehearsal_*.py: what a rehearsal says of processes, of rows and of two runs is what is there."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysberta.corpus.facts import Repeats
from raysberta.pairs.facts import PairsFacts
from raysberta.schema import PAIR, REJECTED_PAIR
from raysberta.storage.artifacts import Artifact, Store
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from rehearsal_figures import content, figure, growth, rows, same
from rehearsal_records import Planned
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
