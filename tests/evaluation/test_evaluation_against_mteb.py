"""Every kind of task that recipes use, scored by the stage and by mteb's own run of the same folder through sentence-transformers.

The stage's scores are the same whatever its workers, and whatever kills it on the way.
"""

import pickle
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from evaluation.registered import NAME, TYPES, write_snapshot
from killed import killed_once
from raysberta.evaluation import snapshot, stage, task_folder, units
from raysberta.evaluation import tasks as held_out_tasks
from raysberta.evaluation.facts import BenchmarkFacts, ScoresFacts, TasksFacts
from raysberta.evaluation.settings import Benchmark, ModelScores, Scoring
from raysberta.graph import BenchmarkRef, EncoderRef, TasksRef
from raysberta.schema import text_id
from raysberta.storage.artifacts import Artifact, Draft, Store
from raysberta.work import Work, Workers

OWN = {
    "Capitals": "Retrieval",
    "Atlas": "BitextMining",
    "Senses": "PairClassification",
    "Intents": "Classification",
    "Themes": "Clustering",
}
HOW = Scoring(max_tokens=64)
ALIKE, ALIKE_NUMBERS = 1e-4, 1e-5


@pytest.fixture(scope="module")
def store(module_path: Path) -> Store:
    return Store(str(module_path / "store"))


@pytest.fixture(scope="module")
def inputs(store: Store, encoder: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The model, the held-out tasks and the benchmark."""
    found = {}
    place = str(write_snapshot(tmp_path_factory.mktemp("registered")))
    facts = {
        "tasks": TasksFacts(tasks=task_folder.read(held_out)[1].tasks),
        "rus": BenchmarkFacts(name=NAME, snapshot=place, tasks=sorted(TYPES)),
        "e5": None,
    }
    for name, source, inside in (("e5", encoder, "model"), ("tasks", held_out, task_folder.FOLDER), ("rus", None, "")):
        draft = store.draft(name, "f" * 16)
        if source is not None:
            with draft.folder(inside) as folder:
                shutil.copytree(source, folder, dirs_exist_ok=True)
        found[name] = store.commit(draft, name, "f" * 16, {}, {}, 42, time.time(), facts[name])
    assert stage.benchmark(Work(Benchmark(name=NAME, snapshot=place), {}, store.draft("rus", "0" * 16))).tasks == sorted(TYPES)
    return found


def scored(store: Store, inputs: dict[str, Artifact], mark: str, workers: Workers) -> tuple[ScoresFacts, Draft]:
    draft = store.draft("score", mark * 16)
    settings = ModelScores(model=EncoderRef("e5"), tasks=TasksRef("tasks"), benchmarks=(BenchmarkRef("rus"),), how=HOW)
    return stage.score(Work(settings, inputs, draft, workers, node="score_e5")), draft


@pytest.fixture(scope="module")
def alone(ray_local: None, store: Store, inputs: dict[str, Artifact]) -> tuple[ScoresFacts, Draft]:
    return scored(store, inputs, "1", Workers(cpus=1))


@pytest.fixture(scope="module")
def reference(encoder: Path, held_out: Path, inputs: dict[str, Artifact]) -> Iterator[tuple[SentenceTransformer, dict[str, mteb.AbsTask]]]:
    """The folder as sentence-transformers loads it, and fresh tasks."""
    model = SentenceTransformer(str(encoder), device="cpu")
    model.max_seq_length = HOW.max_tokens
    folder, index = task_folder.read(held_out)
    rus = inputs["rus"].told(BenchmarkFacts)
    yield model, {**held_out_tasks.load(folder, index, "test", index.tasks), **snapshot.load(rus.name, rus.snapshot)}


@pytest.fixture(scope="module")
def embedded(alone: tuple[ScoresFacts, Draft], store: Store, inputs: dict[str, Artifact]) -> dict[str, np.ndarray]:
    """The stage's own vectors, by text with its prefix."""
    sources = {task: inputs["tasks" if task in OWN else "rus"].manifest.id for task in alone[0].scores}
    folder = Path(store.uri, "vectors")
    files = [str(next(folder.rglob(f"{text_id(source, task)}.parquet"))) for task, source in sources.items()]
    [of_model] = {file.parent for file in folder.rglob("*.f32")}
    found = {}
    for file, places in zip(files, units.plan(files, str(of_model))[1], strict=True):
        texts = pq.read_table(file)["text"].to_pylist()
        found.update(zip(texts, units.Stored(places)(texts), strict=True))
    return found


@pytest.mark.parametrize("task", [*OWN, *TYPES])
def test_scores_are_mtebs_own(
    alone: tuple[ScoresFacts, Draft],
    reference: tuple[SentenceTransformer, dict[str, mteb.AbsTask]],
    embedded: dict[str, np.ndarray],
    task: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every vector is the peer's own to 1e-5. A probe is fitted on the stage's: on the peer's, a prediction on the border may turn over."""
    model, tasks = reference
    facts, _ = alone
    encode = model.encode

    def compared(inputs: list[str], **how: Any) -> np.ndarray:
        theirs = encode(inputs, **{**how, "convert_to_numpy": True, "normalize_embeddings": True})
        ours = np.stack([embedded[(how.get("prompt") or "") + text] for text in inputs])
        np.testing.assert_allclose(ours, theirs, atol=ALIKE_NUMBERS)
        return ours if facts.details[task].type == "Classification" else theirs

    monkeypatch.setattr(model, "encode", compared)
    how = {"batch_size": 32, "show_progress_bar": False}
    result = mteb.evaluate(model, tasks[task], cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs=how).task_results[0]
    assert facts.scores[task] == pytest.approx(result.get_score(), abs=ALIKE)
    assert facts.details[task].type == {**OWN, **TYPES}[task]
    split = facts.details[task].split
    for name, value in result.scores[split][0].items():
        if isinstance(value, float) and not name.startswith("nauc") and name in facts.details[task].metrics:
            assert facts.details[task].metrics[name] == pytest.approx(value, abs=ALIKE, nan_ok=True), name
    assert 0 < facts.scores[task] <= 1


def test_any_number_of_workers_gives_the_same_to_the_last_bit(
    ray_local: None, store: Store, inputs: dict[str, Artifact], alone: tuple[ScoresFacts, Draft], encoder: Path
) -> None:
    """The pool embeds what one process embedded; nothing of it is taken from what that one left."""
    apart = Store(f"{store.uri}-apart")
    facts, draft = scored(apart, inputs, "1", Workers(workers=2, cpus=0.5))
    before, first = alone
    assert facts.model_copy(update={"seconds": {}}) == before.model_copy(update={"seconds": {}})
    for name in ("items", "draws"):
        theirs, mine = ({file.name: pq.read_table(file) for file in (Path(each.uri) / name).glob("*.parquet")} for each in (first, draft))
        assert theirs.keys() == mine.keys() and all(mine[file].equals(table) for file, table in theirs.items())


def test_texts_that_tasks_share_are_embedded_once(alone: tuple[ScoresFacts, Draft], store: Store) -> None:
    """The reranking asks what the retrieval asks, and clustering what classification asks."""
    lists = [pq.read_table(file) for file in Path(store.uri, "vectors").rglob("*.parquet")]
    assert len(lists) == len(OWN) + len(TYPES)
    every = pa.concat_tables(lists)["text"].to_pylist()
    vectors = list(Path(store.uri, "vectors").rglob("*.f32"))
    dimension = 384
    assert sum(file.stat().st_size for file in vectors) == 4 * dimension * len(set(every))
    assert len(set(every)) < 0.8 * len(every)


def test_a_kill_loses_the_task_in_flight_at_most(
    ray_local: None, inputs: dict[str, Artifact], alone: tuple[ScoresFacts, Draft], tmp_path: Path
) -> None:
    """In a storage of its own, so that the second attempt has nothing but what the killed one left."""
    other = Store(str(tmp_path / "store"))
    settings = ModelScores(model=EncoderRef("e5"), tasks=TasksRef("tasks"), benchmarks=(BenchmarkRef("rus"),), how=HOW)
    work = Work(settings, inputs, other.draft("score", "2" * 16), Workers(cpus=1), node="score_e5")
    file = tmp_path / "work.pickle"
    file.write_bytes(pickle.dumps(work))
    folder = Path(work.draft.checkpoints, "scores")
    killed_once(lambda: len(list(folder.glob("*.arrow"))) >= 3, Path(__file__).with_name("scoring_process.py"), file)
    left = {each.name: each.stat().st_mtime_ns for each in folder.glob("*.arrow")}
    assert 3 <= len(left) < len(alone[0].scores)
    again = Work(settings, inputs, other.draft("score", "2" * 16), Workers(workers=2, cpus=0.5), node="score_e5")
    facts = stage.score(again)
    assert facts.model_copy(update={"seconds": {}}) == alone[0].model_copy(update={"seconds": {}})
    assert {name: (folder / name).stat().st_mtime_ns for name in left} == left, "what was scored is not scored again"
