"""The stages through Ray and the artifact store, with the first layers of the real base encoder."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from raysberta.errors import InputError
from raysberta.evaluation import items, snapshot, stage
from raysberta.evaluation.facts import BenchmarkFacts, ScoresFacts, TasksFacts
from raysberta.evaluation.outside import benchmark_state, check_benchmark
from raysberta.evaluation.score import score_model, score_own, score_tasks
from raysberta.evaluation.settings import VERSION, Benchmark, HeldOutTasks, ModelScores, Scoring
from raysberta.graph import BenchmarkRef, DocumentsRef, EncoderRef, PairsRef, TasksRef
from raysberta.models.describe import Description, write_description
from raysberta.prefixes import E5, NOMIC
from raysberta.retrieval.embed import Embedder
from raysberta.storage.artifacts import Artifact, Draft, Store
from raysberta.work import Work, Workers

HOW = Scoring(max_tokens=32)
REGISTERED = "MTEB(rus, v1.1)"


def commit(store: Store, kind: str, draft: Draft, facts: BaseModel | None = None) -> Artifact:
    return store.commit(draft, kind, "f" * 16, {}, {}, 42, time.time(), facts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def models(store: Store, encoder: Path) -> dict[str, Artifact]:
    """The same weights under two names: as they were trained, and as if they were another's."""
    found = {}
    for name in ("e5", "tuned"):
        draft = store.draft(name, "f" * 16)
        with draft.folder("model") as folder:
            shutil.copytree(encoder, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
            if name == "tuned":
                write_description(folder, Description("mean", NOMIC, 512))
        found[name] = commit(store, name, draft)
    return found


@pytest.fixture
def tables(store: Store, pairs: pa.Table, documents: pa.Table) -> dict[str, Artifact]:
    found = {}
    for node, name, table in (("natural", "pairs", pairs), ("corpus", "documents", documents)):
        draft = store.draft(node, "f" * 16)
        draft.write_table(name, table)
        found[node] = commit(store, node, draft)
    return found


@pytest.fixture
def held(store: Store, tables: dict[str, Artifact], tasks: dict) -> Artifact:
    """Two held-out tasks, made by their stage."""
    chosen = {name: tasks[name] for name in ("Capitals", "Intents")}
    draft = store.draft("tasks", "f" * 16)
    settings = HeldOutTasks(documents=DocumentsRef("corpus"), pairs=PairsRef("natural"), tasks=chosen, general=("Intents",))
    facts = stage.tasks(Work(settings, tables, draft))
    return commit(store, "tasks", draft, facts)


@pytest.fixture
def terra(tmp_path: Path) -> Benchmark:
    """A snapshot with one registered task, its texts our own."""
    root = tmp_path / "snapshot"
    task = snapshot._tasks(REGISTERED, ["TERRa"])["TERRa"]
    folder = root / snapshot._place(task)
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: [{split: dev, path: dev.jsonl}]\n---\n")
    rows = [(f"столица страны {number}", f"главный город страны {number}", 1) for number in ("один", "два", "три", "пять")]
    rows += [(query, "на улице идёт дождь", 0) for query, _, _ in rows]
    lines = [json.dumps({"sentence1": a, "sentence2": b, "labels": label}, ensure_ascii=False) for a, b, label in rows]
    (folder / "dev.jsonl").write_text("\n".join(lines), encoding="utf-8")
    snapshot.seal(REGISTERED, root, ["TERRa"])
    return Benchmark(name=REGISTERED, snapshot=str(root))


def test_tasks_tell_what_they_hold(held: Artifact) -> None:
    told = held.told(TasksFacts).tasks
    assert {name: task.general for name, task in told.items()} == {"Capitals": False, "Intents": True}
    assert told["Capitals"].halves["test"].scored == 24
    assert held.manifest.rows_out == sum(half.scored for task in told.values() for half in task.halves.values())
    assert held.manifest.dropped == {"in training or in the other half": 1}
    assert held.manifest.rows_in == 145 + 336


def test_a_model_is_scored_with_what_it_was_trained_to_read(
    ray_local: None, store: Store, held: Artifact, models: dict[str, Artifact]
) -> None:
    found: dict[str, ScoresFacts] = {}
    drafts = {name: store.draft(f"score_{name}", "f" * 16) for name in models}
    for name in models:
        settings = ModelScores(model=EncoderRef(name), tasks=TasksRef("tasks"), benchmarks=(), how=HOW)
        inputs = {**models, "tasks": held}
        found[name] = stage.score(Work(settings, inputs, drafts[name], Workers(workers=2, cpus=0.5), node=f"score_{name}"))
        assert list(found[name].scores) == ["Capitals", "Intents"]
        alone = score_model(models[name].folder("model"), held, "test", HOW)
        assert found[name].scores["Capitals"] == pytest.approx(alone["Capitals"], abs=1e-4)
        assert found[name].scores["Intents"] == pytest.approx(alone["Intents"], abs=0.0025), (
            "one prediction of 480: other batches, another seventh digit"
        )
    assert found["e5"].prefixes == E5.model_dump(exclude_none=True) and found["tuned"].prefixes == NOMIC.model_dump(exclude_none=True)
    assert found["e5"].pooling == "mean" and found["e5"].scores != found["tuned"].scores
    detail = found["e5"].details["Capitals"]
    assert detail.type == "Retrieval" and detail.held_out and detail.scored == 24 and detail.dataset == "held out from atlas"
    assert detail.metrics["ndcg_at_10"] == found["e5"].scores["Capitals"]
    assert found["e5"].details["Intents"].general and not detail.general
    assert detail.interval is not None and detail.interval[0] < found["e5"].scores["Capitals"] < detail.interval[1]
    root = Path(drafts["e5"].uri)
    table = pq.read_table(root / "items" / "Capitals.parquet")
    assert items.score(table) == pytest.approx(found["e5"].scores["Capitals"], abs=5e-6) and table.num_rows == 24
    drawn = {row["task"]: row["draws"] for row in pq.read_table(root / "draws").to_pylist()}
    assert list(drawn) == ["Capitals", "Intents"]
    assert drawn["Capitals"] == items.draws(table, items.seed_of("Capitals", detail.revision)).tolist()
    result = json.loads((Path(drafts["e5"].uri) / "results" / "Intents.json").read_text(encoding="utf-8"))
    assert len(result["scores"]["test"][0]["scores_per_experiment"]) == 10


def test_a_model_of_the_same_content_is_not_scored_again(
    ray_local: None, store: Store, held: Artifact, models: dict[str, Artifact], encoder: Path
) -> None:
    settings = ModelScores(model=EncoderRef("e5"), tasks=TasksRef("tasks"), benchmarks=(), how=HOW)
    inputs: dict[str, Artifact] = {**models, "tasks": held}
    draft = store.draft("score", "1" * 16)
    first = stage.score(Work(settings, inputs, draft, Workers(cpus=0.5), node="score_e5"))
    identity = {"version": VERSION, "settings": {"model": "e5/x", "tasks": held.manifest.id, "benchmarks": [], "how": HOW.model_dump()}}
    store.commit(draft, "score", "1" * 16, identity, {}, 42, time.time(), first)

    def scored(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], how: Scoring = HOW) -> tuple[ScoresFacts, Draft]:
        made = store.draft("merge", "f" * 16)
        with made.folder("model") as folder:
            shutil.copytree(encoder, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
            tensors = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
            [file.unlink() for file in folder.glob("*.safetensors*")]
            save_file(change(tensors), folder / "model.safetensors", {"format": "pt", "made_by": "a merge"})
        inputs["same"] = commit(store, "merge", made)
        draft = store.draft("score", "3" * 16)
        asked = settings.model_copy(update={"model": EncoderRef("same"), "how": how})
        return stage.score(Work(asked, inputs, draft, Workers(cpus=0.5), node="score_same")), draft

    again, taken = scored(lambda tensors: dict(reversed(tensors.items())))
    assert again == first.model_copy(update={"taken_from": f"score/{'1' * 16}"})
    for name in ("results", "items", "draws"):
        assert {file.name for file in (Path(taken.uri) / name).iterdir()} == {file.name for file in (Path(draft.uri) / name).iterdir()}
    name = "encoder.layer.0.output.dense.bias"
    other, _ = scored(lambda tensors: {**tensors, name: tensors[name] + 0.01})
    assert other.taken_from is None and other.content != first.content
    assert scored(lambda tensors: tensors, Scoring(max_tokens=16))[0].taken_from is None


def test_registered_benchmarks_are_checked_and_scored_beside_held_out_tasks(
    ray_local: None, store: Store, held: Artifact, models: dict[str, Artifact], terra: Benchmark
) -> None:
    draft = store.draft("rus", "f" * 16)
    told = stage.benchmark(Work(terra, {}, draft, node="rus"))
    assert told == BenchmarkFacts(name=REGISTERED, snapshot=terra.snapshot, tasks=["TERRa"])
    inputs = {**models, "tasks": held, "rus": commit(store, "rus", draft, told)}
    settings = ModelScores(model=EncoderRef("tuned"), tasks=TasksRef("tasks"), benchmarks=(BenchmarkRef("rus"),), how=HOW)
    scored = stage.score(Work(settings, inputs, store.draft("score_tuned", "f" * 16), Workers(workers=2, cpus=0.5), node="score_tuned"))
    assert list(scored.scores) == ["Capitals", "Intents", "TERRa"]
    embed = Embedder(models["tuned"].folder("model"), 32, "fp32").encode
    own = score_own(embed, NOMIC, held, "test").scores
    public = score_tasks(snapshot.load(terra.name, terra.snapshot), embed, NOMIC, overrides=snapshot.overrides(NOMIC)).scores
    assert scored.scores == pytest.approx(own | public, abs=1e-4)
    assert not scored.details["TERRa"].held_out and scored.details["TERRa"].dataset == "TERRa" and scored.details["TERRa"].scored is None
    assert scored.details["TERRa"].general and scored.details["TERRa"].interval is not None


def test_a_registered_task_that_is_in_domain_is_no_general_one(
    ray_local: None, store: Store, models: dict[str, Artifact], terra: Benchmark
) -> None:
    learned = terra.model_copy(update={"in_domain": ("TERRa",)})
    draft = store.draft("rus", "f" * 16)
    told = stage.benchmark(Work(learned, {}, draft, node="rus"))
    assert told.in_domain == ["TERRa"]
    inputs = {**models, "rus": commit(store, "rus", draft, told)}
    settings = ModelScores(model=EncoderRef("e5"), tasks=None, benchmarks=(BenchmarkRef("rus"),), how=HOW)
    detail = stage.score(Work(settings, inputs, store.draft("score", "f" * 16))).details["TERRa"]
    assert not detail.general and not detail.held_out and detail.dataset == "TERRa"
    wrong = terra.model_copy(update={"in_domain": ("STS22",)})
    with pytest.raises(InputError, match=r"benchmarks\.rus\.in_domain: the snapshot has no task 'STS22'; right would be TERRa"):
        stage.benchmark(Work(wrong, {}, store.draft("other", "f" * 16), node="rus"))


def test_a_task_of_two_benchmarks_is_scored_for_both(
    ray_local: None, store: Store, models: dict[str, Artifact], terra: Benchmark, tmp_path: Path
) -> None:
    older = Benchmark(name="MTEB(rus, v1)", snapshot=str(tmp_path / "older"))
    shutil.copytree(terra.snapshot, older.snapshot)
    snapshot.seal(older.name, Path(older.snapshot), ["TERRa"])
    inputs = dict(models)
    for ref, benchmark in (("rus", terra), ("older", older), ("again", terra)):
        draft = store.draft(ref, "f" * 16)
        inputs[ref] = commit(store, ref, draft, stage.benchmark(Work(benchmark, {}, draft)))
    benchmarks = (BenchmarkRef("rus"), BenchmarkRef("older"), BenchmarkRef("again"))
    settings = ModelScores(model=EncoderRef("e5"), tasks=None, benchmarks=benchmarks, how=HOW)
    scored = stage.score(Work(settings, inputs, store.draft("score", "f" * 16)))
    assert list(scored.scores) == ["TERRa", "TERRa, MTEB(rus, v1)"]
    assert len(set(scored.scores.values())) == 1
    assert {detail.dataset for detail in scored.details.values()} == {"TERRa"}


def test_nothing_to_score_on_is_said(store: Store, models: dict[str, Artifact]) -> None:
    settings = ModelScores(model=EncoderRef("e5"), tasks=None, benchmarks=(), how=HOW)
    with pytest.raises(InputError, match="score_e5: no task to score on"):
        stage.score(Work(settings, models, store.draft("score", "f" * 16), node="score_e5"))


def test_an_altered_snapshot_is_refused_by_the_stage_and_a_cut_one_by_the_dry_run(store: Store, terra: Benchmark) -> None:
    assert check_benchmark("rus", terra) == []
    before = benchmark_state(terra)
    file = next(Path(terra.snapshot).rglob("dev.jsonl"))
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"1", b"0", 1))
    assert check_benchmark("rus", terra) == []
    with pytest.raises(InputError, match="not the file that was fetched"):
        stage.benchmark(Work(terra, {}, store.draft("rus", "f" * 16)))
    assert benchmark_state(terra) == before, "the index is the same"
    file.write_bytes(whole[:-3])
    (problem,) = check_benchmark("rus", terra)
    assert problem.startswith("benchmarks.rus.snapshot: ") and problem.endswith("missing or cut; fetch the snapshot again")
    snapshot.seal(terra.name, Path(terra.snapshot), ["TERRa"])
    assert benchmark_state(terra) != before and check_benchmark("rus", terra) == []


def test_a_snapshot_that_is_not_there_is_told(terra: Benchmark, tmp_path: Path) -> None:
    nowhere = terra.model_copy(update={"snapshot": str(tmp_path / "nowhere")})
    assert benchmark_state(nowhere) == {"missing": True}
    (problem,) = check_benchmark("rus", nowhere)
    assert "benchmarks.rus.snapshot: " in problem and "has no snapshot.json; right would be a folder that jobs/fetch" in problem
    (problem,) = check_benchmark("eng", terra.model_copy(update={"name": "MTEB(eng, v2)"}))
    assert "holds MTEB(rus, v1.1)" in problem
    (Path(terra.snapshot) / "snapshot.json").write_text("{")
    (problem,) = check_benchmark("rus", terra)
    assert "unreadable; fetch it again" in problem
