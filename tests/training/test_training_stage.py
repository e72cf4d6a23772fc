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

from raysberta.artifacts import Artifact, Store
from raysberta.encoder.load import load_encoder
from raysberta.errors import InputError
from raysberta.evaluation import benchmark
from raysberta.evaluation.score import dev_scores
from raysberta.schema import DOCUMENT, EXAMPLE, PAIR
from raysberta.training import stage
from raysberta.training.engine import ALLOCATOR


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(str(tmp_path_factory.mktemp("store")))


def commit(store: Store, name: str, fill, fingerprint: str = "0" * 16) -> Artifact:
    draft = store.draft(name, fingerprint)
    fill(draft)
    return store.commit(draft, name, fingerprint, {}, {}, 0, 0.0)


@pytest.fixture(scope="module")
def inputs(store, tiny, table, recipe) -> dict[str, Artifact]:
    def model(draft):
        with draft.folder("model") as folder:
            for file in tiny.iterdir():
                (Path(folder) / file.name).write_bytes(file.read_bytes())

    rows = table.select(PAIR.names).to_pylist()
    held_out = [rows[0] | {"pair_id": "held", "split": "test", "query": "секрет"}]
    pairs = pa.Table.from_pylist(rows + held_out, schema=PAIR)
    asked = pa.Table.from_pylist(
        [
            row | {"kind": "term_definition", "positive": row["positive"][::-1], "split": ("dev", "test")[number % 2]}
            for number, row in enumerate(rows)
            if row["kind"] == "qa"
        ],
        schema=PAIR,
    )

    def tasks(draft):
        with draft.folder(benchmark.FOLDER) as folder:
            benchmark.write(folder, recipe.evaluation.tasks, pads.dataset(asked), pads.dataset(DOCUMENT.empty_table()), seed=42)

    return {
        "benchmark": commit(store, "benchmark", tasks),
        "vocabulary": commit(store, "vocabulary", model),
        "mlm_merged": commit(store, "mlm_merged", model),
        "pairs": commit(store, "pairs", lambda draft: draft.write_table("pairs", pairs)),
        "mining": commit(store, "mining", lambda draft: draft.write_table("examples", table)),
        "mining_synthetic": commit(store, "mining_synthetic", lambda draft: draft.write_table("examples", EXAMPLE.empty_table())),
        "temperature": commit(store, "temperature", lambda draft: draft.metrics.update(best=0.07, trials=[])),
    }


def shorter(recipe, phase, **changes):
    return recipe.model_copy(update={phase: getattr(recipe, phase).model_copy(update={"steps": 4} | changes)})


def test_contrastive_training_on_two_workers_with_dev_scores(ray_local, store, recipe, inputs):
    """The workers hold both cores: the checkpoint is scored when they are done, and nothing waits for it before."""
    draft = store.draft("contrastive", "1" * 16)
    stage.contrastive(shorter(recipe, "contrastive", checkpoint_every=2), inputs, draft)
    assert draft.metrics["temperature"] == 0.07 and draft.metrics["rows"]["questions/qa"] == 160
    assert [point["step"] for point in draft.metrics["curve"]] == [1, 2, 3, 4]
    assert all(point["loss"] > 0 and point["tokens_per_second"] > 0 for point in draft.metrics["curve"])
    done = store.commit(draft, "contrastive", "1" * 16, {}, {}, 0, 0.0)
    trained = load_encoder(done.folder("model"))
    assert trained.config.num_hidden_layers == 2
    assert not (Path(done.uri).parent / "checkpoints").exists()
    early, last = draft.metrics["dev_curve"]
    assert (early["step"], last["step"]) == (2, 4) and early["score"] != last["score"]
    assert last["scores"] == pytest.approx(dev_scores(recipe, done.folder("model"), inputs["benchmark"]), abs=1e-6)


def _killed_after_its_checkpoint(config):
    """The MLM worker, but the system kills it at the fifth step of six, when Ray's controller has taken note of the last checkpoint."""
    from raysberta.training import stage as room

    assert os.environ.items() >= ALLOCATOR.items()
    saved = Path(config["draft"].uri).parent / "checkpoints" / "train"
    noted = saved / "checkpoint_manager_snapshot.json"

    def strike(name, value, **tags):
        if name == "training_progress" and value > 0.8:
            folders = [folder.name for folder in saved.glob("checkpoint_*/")]
            while not (noted.exists() and all(name in noted.read_text() for name in folders)):
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)

    room.gauge = strike
    room._mlm_worker(config)


def test_mlm_reads_training_texts_only_and_goes_on_after_a_kill_and_a_damaged_checkpoint_and_without_scores(
    ray_local, store, recipe, inputs, monkeypatch, caplog
):
    def nothing(draft):
        with draft.folder(benchmark.FOLDER) as folder:
            (folder / "benchmark.json").write_text("{}")

    inputs = {**inputs, "benchmark": commit(store, "benchmark", nothing, "2" * 16)}
    texts = stage._texts(inputs["pairs"])
    assert texts == sorted(set(texts)) and "секрет" not in texts
    short = shorter(recipe, "mlm", steps=6, checkpoint_every=2)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with monkeypatch.context() as patch:
        patch.setattr(stage, "RESTARTS", 0)
        patch.setattr(stage, "_mlm_worker", _killed_after_its_checkpoint)
        with pytest.raises(ray.train.TrainingFailedError):
            stage.mlm(short, inputs, store.draft("mlm", "2" * 16))
    draft = store.draft("mlm", "2" * 16)
    saved = sorted((Path(draft.uri).parent / "checkpoints").rglob("weights.safetensors"))
    assert len(saved) == 2
    data = bytearray(saved[-1].read_bytes())
    data[-1] ^= 1  # a disk that lost a bit: the checkpoint before it is whole
    saved[-1].write_bytes(data)
    stage.mlm(short, inputs, draft)
    assert [point["step"] for point in draft.metrics["curve"]] == [1, 2, 3, 4, 5, 6]
    assert draft.metrics["resumed_after"] == 2
    assert draft.metrics["dev_curve"] == [] and "mlm: no dev scores of step 2, 4, 6" in caplog.text
    assert (Path(draft.uri) / "model" / "model.safetensors").is_file()


def test_mlm_switched_off_hands_the_model_through(store, recipe, inputs):
    draft = store.draft("mlm", "3" * 16)
    stage.mlm(shorter(recipe, "mlm", enabled=False), inputs, draft)
    copied = Path(draft.uri) / "model"
    assert (copied / "model.safetensors").read_bytes() == (inputs["vocabulary"].folder("model") / "model.safetensors").read_bytes()


def test_what_cannot_be_trained_is_refused_before_any_worker_starts(store, recipe, inputs):
    empty = {**inputs, "mining": inputs["mining_synthetic"]}
    with pytest.raises(InputError, match="no training example at all"):
        stage.contrastive(recipe, empty, store.draft("contrastive", "4" * 16))
    with pytest.raises(InputError, match="source_weights: no examples of 'quetions/qa'"):
        stage.contrastive(shorter(recipe, "contrastive", source_weights={"quetions/qa": 2.0}), inputs, store.draft("contrastive", "5" * 16))
