"""Artifacts: nothing half-written is read, the same fingerprint is reused, another file system works alike."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from raysberta.storage.artifacts import Artifact, Store, fingerprint, sibling
from raysberta.errors import InputError

TABLE = pa.table({"id": ["a", "b", "c"], "value": [1, 2, 3]})


def write(store: Store, mark: str = "f1") -> Artifact:
    draft = store.draft("stage", mark)
    draft.write_table("rows", TABLE)
    with draft.folder("model") as folder:
        (folder / "config.json").write_text("{}")
    draft.rows_in, draft.rows_out = 5, 3
    draft.drop("too_short", 2)
    draft.drop("never", 0)
    draft.metrics["loss"] = 0.5
    return store.commit(draft, "stage", mark, {"a": 1}, {"before": "f0"}, 42, time.time())


@pytest.fixture(params=["local", "uri"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "local" else f"file://{tmp_path}")


def test_what_is_committed_is_read_back(store: Store) -> None:
    write(store)
    found = store.find("stage", "f1")
    assert found is not None
    assert found.table("rows").equals(TABLE)
    assert found.table("rows", ["value"]).column_names == ["value"]
    assert (found.folder("model") / "config.json").read_text() == "{}"
    assert found.manifest.dropped == {"too_short": 2}
    assert {file.path: file.rows for file in found.manifest.files} == {"model/config.json": None, "rows/part-00000.parquet": 3}
    assert found.manifest.inputs == {"before": "f0"}
    assert found.manifest.versions["pyarrow"] == pa.__version__


def test_a_draft_is_never_read_and_the_next_one_removes_it(store: Store, tmp_path: Path) -> None:
    draft = store.draft("stage", "f1")
    draft.write_table("rows", TABLE)
    assert store.find("stage", "f1") is None
    (tmp_path / "stage" / "f1" / "checkpoints").mkdir()
    write(store)
    assert len(list((tmp_path / "stage" / "f1").glob("attempt-*"))) == 1
    assert (tmp_path / "stage" / "f1" / "checkpoints").is_dir(), "checkpoints outlive an attempt"
    assert sibling(draft, "checkpoints").endswith("/stage/f1/checkpoints")


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest"])
def test_a_damaged_artifact_is_made_again(store: Store, tmp_path: Path, damage: str) -> None:
    artifact = write(store)
    file = tmp_path / "stage" / "f1" / artifact.manifest.attempt / "rows" / "part-00000.parquet"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "gone":
        file.unlink()
    else:
        (tmp_path / "stage" / "f1" / "manifest.json").write_text('{"stage": "sta')
    assert store.find("stage", "f1") is None
    write(store)
    assert store.find("stage", "f1") is not None


def test_storage_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        Store(str(file / "below")).check_writable(0)
    with pytest.raises(InputError, match="GiB free"):
        Store(str(tmp_path / "runs")).check_writable(1e9)
    with pytest.raises(InputError, match="not a folder or a URI"):
        Store("nonsense://x")


def test_a_remote_folder_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Store(str(tmp_path / "store")))
    found = Store(str(tmp_path / "store")).find("stage", "f1")
    assert found is not None
    remote = Artifact(found.manifest.model_copy(update={"fingerprint": tmp_path.name}), f"mock://{found.uri}")
    fs = pafs.SubTreeFileSystem("/", pafs.LocalFileSystem())  # any file system that is not the local one is copied from
    monkeypatch.setattr("raysberta.storage.artifacts.filesystem", lambda uri: (fs, uri.removeprefix("mock://")))
    first = remote.folder("model")
    assert (first / "config.json").read_text() == "{}"
    assert first != Path(found.uri) / "model"
    (first / "mark").touch()
    assert (remote.folder("model") / "mark").exists()


def test_fingerprints_follow_settings_inputs_and_seed() -> None:
    base = fingerprint("s", {"a": 1, "b": 2}, {"x": "1", "y": "2"}, 42)
    assert base == fingerprint("s", {"b": 2, "a": 1}, {"y": "2", "x": "1"}, 42)
    others = [
        fingerprint("t", {"a": 1, "b": 2}, {"x": "1", "y": "2"}, 42),
        fingerprint("s", {"a": 1, "b": 3}, {"x": "1", "y": "2"}, 42),
        fingerprint("s", {"a": 1, "b": 2}, {"x": "1", "y": "3"}, 42),
        fingerprint("s", {"a": 1, "b": 2}, {"x": "1", "y": "2"}, 43),
    ]
    assert len({base, *others}) == 5
