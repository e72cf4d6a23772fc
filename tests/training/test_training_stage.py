"""Both phases as stages, on a local Ray: Ray Train, two workers, DeepSpeed; and what a killed run leaves is used."""

import os
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import ray.train

from raysberta.artifacts import Artifact, Store
from raysberta.encoder.load import load_encoder
from raysberta.errors import InputError
from raysberta.schema import EXAMPLE, PAIR
from raysberta.training import stage


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(str(tmp_path_factory.mktemp("store")))


def commit(store: Store, name: str, fill) -> Artifact:
    draft = store.draft(name, "0" * 16)
    fill(draft)
    return store.commit(draft, name, "0" * 16, {}, {}, 0, 0.0)


@pytest.fixture(scope="module")
def inputs(store, tiny, table) -> dict[str, Artifact]:
    def model(draft):
        with draft.folder("model") as folder:
            for file in tiny.iterdir():
                (Path(folder) / file.name).write_bytes(file.read_bytes())

    rows = table.select(PAIR.names).to_pylist()
    held_out = [rows[0] | {"pair_id": "held", "split": "test", "query": "секрет"}]
    pairs = pa.Table.from_pylist(rows + held_out, schema=PAIR)
    return {
        "vocabulary": commit(store, "vocabulary", model),
        "mlm_merged": commit(store, "mlm_merged", model),
        "pairs": commit(store, "pairs", lambda draft: draft.write_table("pairs", pairs)),
        "mining": commit(store, "mining", lambda draft: draft.write_table("examples", table)),
        "mining_synthetic": commit(store, "mining_synthetic", lambda draft: draft.write_table("examples", EXAMPLE.empty_table())),
        "temperature": commit(store, "temperature", lambda draft: draft.metrics.update(best=0.07, trials=[])),
    }


def shorter(recipe, phase, **changes):
    return recipe.model_copy(update={phase: getattr(recipe, phase).model_copy(update={"steps": 4} | changes)})


def test_contrastive_training_on_two_workers(ray_local, store, recipe, inputs):
    draft = store.draft("contrastive", "1" * 16)
    stage.contrastive(shorter(recipe, "contrastive"), inputs, draft)
    assert draft.metrics["temperature"] == 0.07 and draft.metrics["rows"]["questions/qa"] == 160
    assert [point["step"] for point in draft.metrics["curve"]] == [1, 2, 3, 4]
    assert all(point["loss"] > 0 and point["tokens_per_second"] > 0 for point in draft.metrics["curve"])
    done = store.commit(draft, "contrastive", "1" * 16, {}, {}, 0, 0.0)
    trained = load_encoder(done.folder("model"))
    assert trained.config.num_hidden_layers == 2
    assert not (Path(done.uri).parent / "checkpoints").exists()


def _killed_after_its_checkpoint(config):
    """The MLM worker, but the system kills it at the fifth step of six."""
    from raysberta.training import stage as room

    def strike(name, value, **tags):
        if name == "training_progress" and value > 0.8:
            time.sleep(6)  # Ray's controller takes note of a reported checkpoint every other second
            os.kill(os.getpid(), signal.SIGKILL)

    room.gauge = strike
    room._mlm_worker(config)


def test_mlm_reads_training_texts_only_and_goes_on_after_a_kill_and_a_damaged_checkpoint(ray_local, store, recipe, inputs, monkeypatch):
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
