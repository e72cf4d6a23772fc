"""The runner on a real local Ray, with small stages: order, overlap, reuse, failures, and cores that are never oversubscribed."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from raysberta.artifacts import Artifact, Draft, Store, fingerprint
from raysberta.errors import InputError
from raysberta.execution import Outcome, StageFailed, execute, link_latest, summary
from raysberta.pipeline import Planned, Stage
from raysberta.recipe import Recipe
from raysberta.worker import StageFunction

RECIPE = Recipe.model_validate(
    {"name": "runner", "sources": {"d": {"kind": "wiki_ru_wordnet"}}, "resources": {"tuning": {"workers": 2, "cpus": 1}}}
)


def one_row(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    time.sleep(1)
    seen = sum(artifact.table("rows").num_rows for artifact in inputs.values())
    draft.write_table("rows", pa.table({"n": list(range(seen + 1))}))
    draft.rows_out = seen + 1


def wrong_input(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    raise InputError("sources.d.path: no such folder")


def breaks(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    draft.write_table("rows", pa.table({"n": [1]}))
    raise ZeroDivisionError("by hand")


def dies(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    os.kill(os.getpid(), 9)


def plan(store: Store, *stages: Stage) -> list[Planned]:
    planned: dict[str, Planned] = {}
    for stage in stages:
        inputs = {name: planned[name].fingerprint for name in stage.inputs}
        mark = fingerprint(stage.name, {"version": stage.version}, inputs, 42)
        planned[stage.name] = Planned(stage, mark, {}, inputs, store.find(stage.name, mark))
    return list(planned.values())


def stage(name: str, inputs: tuple[str, ...] = (), run: StageFunction = one_row, runs_on: str | None = None, version: int = 1) -> Stage:
    return Stage(name, run, version, inputs, (), runs_on)


DIAMOND = (stage("a"), stage("b", ("a",)), stage("c", ("a",)), stage("wide", ("b",), runs_on="tuning"), stage("d", ("b", "c", "wide")))


@pytest.mark.usefixtures("ray_local")
def test_stages_overlap_where_cores_allow_and_are_reused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    outcome = execute(RECIPE, store, plan(store, *DIAMOND))
    assert outcome.artifacts["d"].manifest.rows_out == 1 + 2 + 2 + 3
    span = {
        name: (artifact.manifest.started, artifact.manifest.started + artifact.manifest.seconds)
        for name, artifact in outcome.artifacts.items()
    }
    assert max(span["b"][0], span["c"][0]) < min(span["b"][1], span["c"][1]), "b and c run side by side"
    assert span["wide"][0] >= max(span["b"][1], span["c"][1]), "what needs both cores waits for both"
    again = execute(RECIPE, store, plan(store, *DIAMOND))
    assert again.reused == ["a", "b", "c", "wide", "d"]
    changed = (*DIAMOND[:2], stage("c", ("a",), version=2), *DIAMOND[3:])
    third = execute(RECIPE, store, plan(store, *changed))
    assert third.reused == ["a", "b", "wide"], "only what depends on the change runs again"


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    ("run", "error", "says"),
    [(wrong_input, InputError, "b: sources.d.path: no such folder"), (breaks, StageFailed, "b: .*by hand"), (dies, StageFailed, "b: ")],
)
def test_a_failure_names_its_stage_and_leaves_the_rest_committed(
    tmp_path: Path, run: StageFunction, error: type[Exception], says: str
) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(error, match=says) as caught:
        execute(RECIPE, store, plan(store, stage("a"), stage("b", ("a",), run)))
    assert "\n" not in str(caught.value)
    planned = plan(store, stage("a"), stage("b", ("a",)))
    assert [item.artifact is not None for item in planned] == [True, False]
    assert execute(RECIPE, store, planned).reused == ["a"]


@pytest.mark.usefixtures("ray_local")
def test_more_than_the_cluster_has_is_refused_before_anything_starts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    greedy = RECIPE.model_copy(
        update={"resources": RECIPE.resources.model_copy(update={"tuning": RECIPE.resources.tuning.model_copy(update={"gpus": 8})})}
    )
    with pytest.raises(InputError, match=r"resources.tuning: wide asks for 16 GPU, the cluster has 0"):
        execute(greedy, store, plan(store, stage("a"), stage("wide", ("a",), runs_on="tuning")))
    assert not (tmp_path / "a").exists()


@pytest.mark.usefixtures("ray_local")
def test_two_runs_do_not_write_to_one_storage(tmp_path: Path) -> None:
    import fcntl

    store = Store(str(tmp_path))
    with (tmp_path / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing there"):
            execute(RECIPE, store, plan(store, stage("a")))


def test_the_latest_link_moves(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    artifacts = []
    for mark in ("one", "two"):
        draft = store.draft("publish", mark)
        draft.metrics.update(base_mean=1.0, final_mean=2.0)
        artifacts.append(store.commit(draft, "publish", mark, {}, {}, 1, time.time()))
        link = link_latest(store, RECIPE, artifacts[-1])
    assert link is not None
    assert link.resolve() == Path(artifacts[1].uri).resolve()
    found = summary(Outcome({"publish": artifacts[1]}, ["a"], 3.0), link, 12.34)
    assert found == {
        "model": f"{link}/model",
        "report": f"{link}/report/report.html",
        "seconds": 12.3,
        "reused": ["a"],
        "base_mean": 1.0,
        "final_mean": 2.0,
    }
