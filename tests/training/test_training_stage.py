"""Both phases as stages, on a local Ray: Ray Train, two workers, DeepSpeed; and what a killed run leaves is used."""

import os
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import ray
import ray.train

from raysberta.errors import InputError
from raysberta.evaluation import task_folder
from raysberta.evaluation.score import dev_scores
from raysberta.evaluation.settings import OwnTask, Scoring
from raysberta.models.describe import describe
from raysberta.models.load import load_encoder
from raysberta.schema import DOCUMENT, EXAMPLE, PAIR
from raysberta.storage.artifacts import Artifact, Draft, Store
from raysberta.storage.location import filesystem
from raysberta.training import ray_train, stage
from raysberta.training.engine import ALLOCATOR
from raysberta.training.facts import TrainingFacts
from raysberta.training.ray_train import halves_of
from raysberta.training.settings import ContrastivePhase, MlmPhase, Prepared
from raysberta.tuning.facts import SearchFacts
from raysberta.work import Work, Workers

SCORING = Scoring(max_tokens=16)


@pytest.fixture(scope="module")
def store(module_path) -> Store:
    """A URI with options, which Ray Train and every path below it must leave in their place."""
    return Store(f"file://{module_path}?option=kept")


def commit(store: Store, name: str, fill, fingerprint: str = "0" * 16, facts=None) -> Artifact:
    draft = store.draft(name, fingerprint)
    fill(draft)
    return store.commit(draft, name, fingerprint, {}, {}, 0, 0.0, facts)


@pytest.fixture(scope="module")
def inputs(store, tiny, table) -> dict[str, Artifact]:
    def model(draft):
        with draft.folder("model") as folder:
            for file in tiny.rglob("*.*"):
                copy = folder / file.relative_to(tiny)
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(file.read_bytes())

    rows = table.select(PAIR.names).to_pylist()
    held_out = [rows[0] | {"pair_id": "held", "split": "test", "query": "секрет"}]
    written = [rows[0] | {"pair_id": "written", "query": "что над рекой?"}]
    asked = pa.Table.from_pylist(
        [
            row | {"kind": "term_definition", "positive": row["positive"][::-1], "split": ("dev", "test")[number % 2]}
            for number, row in enumerate(rows)
            if row["kind"] == "qa"
        ],
        schema=PAIR,
    )
    places = OwnTask(type="Retrieval", source="questions", pair="term_definition", language="ru", queries=40, documents=60)

    def tasks(draft):
        with draft.folder(task_folder.FOLDER) as folder:
            task_folder.write(folder, {"Places": places}, pads.dataset(asked), pads.dataset(DOCUMENT.empty_table()), seed=42)

    def pairs(rows):
        return lambda draft: draft.write_table("pairs", pa.Table.from_pylist(rows, schema=PAIR))

    return {
        "tasks": commit(store, "tasks", tasks),
        "tiny": commit(store, "tiny", model),
        "natural": commit(store, "natural", pairs(rows + held_out)),
        "questions": commit(store, "questions", pairs(written)),
        "mined": commit(store, "mined", lambda draft: draft.write_table("examples", table)),
        "none": commit(store, "none", lambda draft: draft.write_table("examples", EXAMPLE.empty_table())),
        "tuned.search": commit(store, "search", lambda draft: None, facts=SearchFacts(best={"temperature": 0.07}, trials=[])),
    }


def work_of(phase, inputs, draft: Draft, changes: dict, given: Prepared | None = None, workers: int = 1) -> Work:
    changed = phase.model_validate(phase.model_dump() | {"steps": 4} | changes)
    node = MlmPhase if phase.kind == "mlm" else ContrastivePhase
    return Work(node(phase=changed, given=given or Prepared()), inputs, draft, Workers(workers=workers), node="tuned")


def folder_of(uri: str) -> Path:
    return Path(filesystem(uri)[1])


def test_contrastive_training_on_two_workers_with_dev_scores_at_what_a_search_chose(ray_local, store, contrastive, inputs):
    """The workers hold both cores: the checkpoint is scored when they are done, and nothing waits for it before."""
    draft = store.draft("contrastive", "1" * 16)
    given = Prepared(tasks="tasks", scoring=SCORING, choice="tuned.search")
    changes = {"checkpoint_every": 2, "examples": ("mined", "none"), "dev_tasks": ("Places",), "pooling": "cls"}
    facts = stage.contrastive(work_of(contrastive, inputs, draft, changes, given, workers=2))
    assert facts.chosen == {"temperature": 0.07} and facts.rows["questions/qa"] == 160
    assert [point.step for point in facts.curve] == [1, 2, 3, 4] and facts.steps == 4 and facts.resumed_after == 0
    assert all(point.loss > 0 and point.tokens_per_second > 0 for point in facts.curve)
    assert facts.trained_tokens > 0 and facts.tokens > 0 and draft.rows_in == sum(facts.rows.values())
    done = store.commit(draft, "contrastive", "1" * 16, {}, {}, 0, 0.0, facts)
    assert done.told(TrainingFacts) == facts
    trained = done.folder("model")
    assert load_encoder(trained).config.num_hidden_layers == 2
    assert describe(trained).pooling == "cls" and describe(trained).prefixes == describe(inputs["tiny"].folder("model")).prefixes
    assert not folder_of(draft.checkpoints).exists()
    early, last = facts.dev_curve
    assert (early.step, last.step) == (2, 4) and early.own != last.own and last.general is None
    assert last.scores == pytest.approx(dev_scores(trained, inputs["tasks"], ("Places",), SCORING), abs=1e-6)


def _killed_after_its_checkpoint(config):
    """The MLM worker, but the system kills it at the fifth step of six, when Ray's controller has taken note of the last checkpoint."""
    from raysberta.training import ray_train
    from raysberta.training import stage as room

    assert os.environ.items() >= ALLOCATOR.items()
    saved = Path(filesystem(config["fit"].work.draft.checkpoints)[1]) / "train"
    noted = saved / "checkpoint_manager_snapshot.json"

    def strike(name, value, **tags):
        if name == "training_progress" and value > 0.8:
            folders = [folder.name for folder in saved.glob("checkpoint_*/")]
            while not (noted.exists() and all(name in noted.read_text() for name in folders)):
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)

    ray_train.gauge = strike
    room._mlm_worker(config)


def test_mlm_reads_training_texts_only_and_goes_on_after_a_kill_and_a_damaged_checkpoint_and_without_scores(
    ray_local, store, mlm, inputs, monkeypatch, caplog
):
    def nothing(draft):
        with draft.folder(task_folder.FOLDER) as folder:
            (folder / "tasks.json").write_text("{}")

    inputs = {**inputs, "tasks": commit(store, "tasks", nothing, "2" * 16)}
    rows = [row for name in ("natural", "questions") for row in inputs[name].table("pairs").to_pylist() if row["split"] == "train"]
    texts = {row[side] for row in rows for side in ("query", "positive")}
    assert "секрет" not in texts and "что над рекой?" in texts
    changes = {"steps": 6, "checkpoint_every": 2, "dev_tasks": ("Places",), "pairs": ("natural", "questions")}
    given = Prepared(tasks="tasks", scoring=SCORING)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with monkeypatch.context() as patch:
        patch.setattr(ray_train, "RESTARTS", 0)
        patch.setattr(stage, "_mlm_worker", _killed_after_its_checkpoint)
        with pytest.raises(ray.train.TrainingFailedError):
            stage.mlm(work_of(mlm, inputs, store.draft("mlm", "2" * 16), changes, given))
    draft = store.draft("mlm", "2" * 16)
    saved = sorted(folder_of(draft.checkpoints).rglob("weights.safetensors"))
    assert len(saved) == 2
    data = bytearray(saved[-1].read_bytes())
    data[-1] ^= 1  # a disk that lost a bit: the checkpoint before it is whole
    saved[-1].write_bytes(data)
    facts = stage.mlm(work_of(mlm, inputs, draft, changes, given))
    assert [point.step for point in facts.curve] == [1, 2, 3, 4, 5, 6]
    assert facts.resumed_after == 2 and facts.rows == {"texts": len(texts)} and facts.chosen == {}
    assert facts.dev_curve == [] and "tuned: no dev scores of step 2, 4, 6" in caplog.text
    assert describe(folder_of(draft.uri) / "model") == describe(inputs["tiny"].folder("model"))


def test_what_is_wrong_on_a_worker_is_an_input_error_and_no_checkpoint_is_scored_where_no_task_is_named(ray_local, store, mlm, inputs):
    short = work_of(mlm, inputs, store.draft("mlm", "3" * 16), {"batch_size": 1}, Prepared(tasks="tasks"), workers=2)
    assert halves_of(short) is None
    with pytest.raises(InputError, match=r"^\d+ texts in steps of 1 are too few for 2 workers$"):
        stage.mlm(short)


def test_what_cannot_be_trained_is_refused_before_any_worker_starts(store, contrastive, mlm, inputs):
    def ask(phase, number, **changes):
        work = work_of(phase, inputs, store.draft(phase.kind, number * 16), changes)
        return (stage.mlm if phase is mlm else stage.contrastive)(work)

    with pytest.raises(InputError, match="no training example at all"):
        ask(contrastive, "4", examples=("none",))
    with pytest.raises(InputError, match=r"^source_weights: no examples of 'quetions/qa'"):
        ask(contrastive, "5", source_weights={"quetions/qa": 2.0})
    with pytest.raises(InputError, match=r"^there is no training text at all"):
        inputs = {**inputs, "natural": commit(store, "empty", lambda draft: draft.write_table("pairs", PAIR.empty_table()))}
        ask(mlm, "6")
