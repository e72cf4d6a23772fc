"""Artifacts: nothing half-written is read, the same fingerprint is reused, a folder and a bucket work alike, no credentials are kept."""

import json
import logging
import pickle
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, ValidationError

from raysberta.errors import InputError
from raysberta.storage.artifacts import MANIFEST, Artifact, Draft, Manifest, Store, fingerprint, versions, write_whole
from raysberta.storage.leases import Leases
from raysberta.storage.location import filesystem, join, shown
from storage.copying import double

TABLE = pa.table({"id": ["a", "b", "c"], "value": [1, 2, 3]})


class Told(BaseModel):
    """What a stage says."""

    loss: float
    curve: tuple[float, ...] = ()
    source: str = ""


class Other(BaseModel):
    """What another version of it says."""

    losses: list[float]


def write(store: Store, mark: str = "f1", facts: BaseModel | None = None, **identity: Any) -> Artifact:
    draft = store.draft("stage", mark)
    draft.write_table("rows", TABLE)
    with draft.folder("model") as folder:
        (folder / "config.json").write_text("{}")
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"mean": true}')
        (folder / "empty.txt").touch()
    draft.rows_in, draft.rows_out = 5, 3
    draft.drop("too_short", 2)
    draft.drop("never", 0)
    draft.drop("alone")
    return store.commit(draft, "stage", mark, {"settings": {"a": 1}, **identity}, {"before": "corpus/f0"}, 42, time.time(), facts)


def found(store: Store, mark: str = "f1") -> Artifact:
    artifact = store.find("stage", mark)
    assert artifact is not None
    return artifact


def names(store: Store, below: str = "stage/f1") -> set[str]:
    """Files and folders right below a place of the store."""
    return {info.base_name for info in store.fs.get_file_info(pafs.FileSelector(f"{store.root}/{below}", allow_not_found=True))}


def test_what_is_committed_is_read_back(store: Store) -> None:
    made = write(store, facts=Told(loss=0.5))
    artifact = found(store)
    assert artifact == made
    assert artifact.table("rows").equals(TABLE)
    assert artifact.table("rows", ["value"]).column_names == ["value"]
    assert artifact.dataset("rows").count_rows(filter=pc.field("value") > 1) == 2
    assert artifact.rows("rows") == 3
    assert (artifact.folder("model") / "config.json").read_text() == "{}"
    assert (artifact.folder("model") / "empty.txt").read_bytes() == b""
    assert json.loads((artifact.folder("model/1_Pooling") / "config.json").read_text()) == {"mean": True}
    manifest = artifact.manifest
    assert (manifest.rows_in, manifest.rows_out, manifest.dropped) == (5, 3, {"alone": 1, "too_short": 2})
    assert {file.path: file.rows for file in manifest.files} == {
        "model/1_Pooling/config.json": None,
        "model/config.json": None,
        "model/empty.txt": None,
        "rows/part-00000.parquet": 3,
    }
    assert manifest.inputs == {"before": "corpus/f0"}
    assert manifest.id == "stage/f1"
    assert manifest.settings == {"a": 1}
    assert manifest.versions["pyarrow"] == pa.__version__
    assert manifest.versions == versions()
    assert 0 <= manifest.seconds < 100


def test_a_table_of_many_files_is_read_in_their_order(store: Store) -> None:
    draft = store.draft("stage", "f1")
    fs, path = draft.path("rows")
    for number in (2, 0, 1):
        pq.write_table(pa.table({"n": [number]}), f"{path}/part-{number:05d}.parquet", filesystem=fs)
    with fs.open_output_stream(f"{path}/note.txt") as stream:
        stream.write(b"no rows")
    artifact = store.commit(draft, "stage", "f1", {}, {}, 42, time.time())
    assert artifact.table("rows")["n"].to_pylist() == [0, 1, 2]
    assert artifact.rows("rows") == 3
    assert [path.rpartition("/")[2] for path in artifact.paths("rows")] == [f"part-{number:05d}.parquet" for number in range(3)]
    assert pq.read_table(artifact.paths("rows")[1], filesystem=fs)["n"].to_pylist() == [1]
    with pytest.raises(KeyError, match="stage/f1 has no table 'row'"):
        artifact.dataset("row")
    assert artifact.rows("row") == 0


def test_what_a_stage_said_is_a_class_of_its_room(store: Store) -> None:
    told = Told(loss=float("inf"), curve=(0.1, 1 / 3))
    assert write(store, facts=told).told(Told) == told
    assert found(store).told(Told) == told, "to the last bit, whatever the numbers"
    with pytest.raises(InputError, match="stage/f1: its manifest was written by another version: ") as caught:
        found(store).told(Other)
    assert "\n" not in str(caught.value)


def test_a_draft_is_never_read_and_the_next_one_removes_it(store: Store) -> None:
    draft = store.draft("stage", "f1")
    draft.write_table("rows", TABLE)
    assert store.find("stage", "f1") is None
    assert store.manifest("stage", "f1") is None
    write_whole(*checkpoint(draft, "step"), b"1")
    write(store)
    attempts = [name for name in names(store) if name.startswith("attempt-")]
    assert attempts == [found(store).manifest.attempt]
    fs, path = checkpoint(draft, "step")
    assert fs.get_file_info(path).is_file, "checkpoints outlive an attempt"
    assert names(store) == {*attempts, MANIFEST, "checkpoints"}


def checkpoint(draft: Draft, name: str) -> tuple[pafs.FileSystem, str]:
    fs, path = filesystem(draft.checkpoints)
    fs.create_dir(path)
    return fs, f"{path}/{name}"


def test_where_things_lie(store: Store) -> None:
    draft = store.draft("stage", "f1")
    assert draft.checkpoints == join(store.uri, "stage", "f1", "checkpoints")
    assert draft.vectors == join(store.uri, "vectors")
    assert filesystem(draft.vectors)[1] == f"{store.root}/vectors"
    assert draft.uri.partition("?")[1:] == store.uri.partition("?")[1:], "options stay where they were"
    assert pickle.loads(pickle.dumps(draft)) == draft


@pytest.mark.parametrize("folder", ["what?/is #1", "ю 100%", "http:/x"])
def test_a_folder_of_any_name(tmp_path: Path, folder: str) -> None:
    store = Store(str(tmp_path / folder))
    store.check_writable(0)
    made = write(store)
    assert found(store) == made
    assert found(store).table("rows").equals(TABLE)
    assert Path(made.uri).parent == tmp_path / folder / "stage" / "f1"
    assert (made.folder("model") / "config.json").exists()
    assert Path(store.draft("stage", "f2").checkpoints) == tmp_path / folder / "stage" / "f2" / "checkpoints"


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest", "other", "attempt"])
def test_a_damaged_artifact_is_made_again(store: Store, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    artifact = write(store)
    attempt = f"{store.root}/stage/f1/{artifact.manifest.attempt}"
    file, manifest = f"{attempt}/rows/part-00000.parquet", f"{store.root}/stage/f1/{MANIFEST}"
    if damage == "cut":
        write_whole(store.fs, file, b"PAR1")
    elif damage == "gone":
        store.fs.delete_file(file)
    elif damage == "manifest":
        write_whole(store.fs, manifest, b'{"stage": "sta')
    elif damage == "other":
        write_whole(store.fs, manifest, json.dumps(artifact.manifest.model_dump() | {"metrics": {}}).encode())
    else:
        store.fs.delete_dir(attempt)
    with caplog.at_level(logging.WARNING):
        assert store.find("stage", "f1") is None
    assert "making it again" in caplog.text
    write(store)
    assert found(store).table("rows").equals(TABLE)


def test_what_breaks_while_a_folder_is_written_leaves_nothing_to_read(store: Store) -> None:
    draft = store.draft("stage", "f1")
    with pytest.raises(RuntimeError, match="by hand"), draft.folder("model") as folder:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("by hand")
    assert store.find("stage", "f1") is None


def test_the_newest_of_a_kind(store: Store) -> None:
    assert store.earlier("stage") == []
    for number in range(4):
        write(store, f"f{number}")
        time.sleep(1.1 if not store.local else 0.02)  # S3 knows whole seconds
    store.draft("stage", "f9")
    write_whole(store.fs, f"{store.root}/stage/f2/{MANIFEST}", b"{")
    assert [manifest.fingerprint for manifest in store.earlier("stage", 3)] == ["f3", "f1"], "of the newest three, those that can be read"


def test_storage_that_cannot_be_used(tmp_path: Path, s3: str) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    Store(str(tmp_path / "runs")).check_writable(0)
    assert list((tmp_path / "runs").iterdir()) == [], "the probe is gone"
    missing = s3.replace("@bucket/", "@missing/")
    for place, free, says in (
        (str(file / "below"), 0.0, "cannot be written"),
        (str(tmp_path / "runs"), 1e9, "GiB free, limits.min_free_gib asks for 1e\\+09"),
        (missing, 0.0, "cannot be written: .*'missing' not found"),
    ):
        with pytest.raises(InputError, match=f"^storage {shown(place).replace('?', '.')}: .*{says}") as caught:
            Store(place).check_writable(free)
        assert "\n" not in str(caught.value)
        assert "PLANTED" not in "".join(traceback.format_exception(caught.value))
    for place in ("nonsense://x", "s3://K:S@b#1", "a\0b"):
        with pytest.raises(InputError, match=r"^storage "):
            Store(place)


def test_remote_folders_and_files_are_copied_once_and_alone(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    artifact = write(Store(join(s3, uuid.uuid4().hex)))
    first = artifact.file("model/config.json")
    assert first.read_text() == "{}"
    assert [path.name for path in first.parent.iterdir()] == ["config.json"], "no weights come with it"
    (first.parent / "mark").touch()
    assert (artifact.file("model/config.json").parent / "mark").exists(), "copied once"
    folder = artifact.folder("model")
    assert sorted(path.name for path in folder.iterdir()) == ["1_Pooling", "config.json", "empty.txt"]
    (folder / "mark").touch()
    assert (artifact.folder("model") / "mark").exists()
    assert artifact.file("model/1_Pooling/config.json").read_text() == '{"mean": true}'
    for missing in (lambda: artifact.folder("report"), lambda: artifact.file("model/weights")):
        with pytest.raises(FileNotFoundError):
            missing()
    assert artifact.folder("model/1_Pooling") != folder / "1_Pooling"
    assert not list(folder.parent.glob("aside-*")), "nothing half-copied is left"


def test_a_folder_comes_without_weights_where_they_are_not_asked_for(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store(join(s3, uuid.uuid4().hex))
    draft = store.draft("model", "w")
    with draft.folder("model") as folder:
        (folder / "1_Pooling").mkdir()
        for name in ("model.safetensors", "mlm_head.safetensors", "tokenizer.json", "config.json", "1_Pooling/config.json"):
            (folder / name).write_text(name)
    artifact = store.commit(draft, "model", "w", {}, {}, 1, 0.0)
    light = artifact.folder("model", weights=False)
    files = {path.relative_to(light).as_posix() for path in light.rglob("*") if path.is_file()}
    assert files == {"tokenizer.json", "config.json", "1_Pooling/config.json"}
    assert (artifact.folder("model") / "model.safetensors").exists(), "who asks for all gets all, before or after"
    assert artifact.folder("model", weights=False) == light != artifact.folder("model")
    with pytest.raises(FileNotFoundError):
        artifact.folder("report", weights=False)


def test_of_two_that_copy_one_copies(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    artifact = write(Store(join(s3, uuid.uuid4().hex)))
    copied: list[Path] = []
    threads = [threading.Thread(target=lambda: copied.append(artifact.folder("model"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copied) == 4
    assert len(set(copied)) == 1
    assert (copied[0] / "1_Pooling" / "config.json").exists()
    assert not list(copied[0].parent.glob("aside-*"))


def test_of_two_writers_a_reader_sees_one_whole(store: Store) -> None:
    """Four write different contents to one path, again and again; whatever is read is one of them, whole."""
    path = f"{store.root}/file"
    store.fs.create_dir(store.root)
    contents = [str(number).encode() * (1000 + 7777 * number * store.local) for number in range(4)]  # S3: of one size, see write_whole
    write_whole(store.fs, path, contents[0])
    stop = threading.Event()
    failed: list[BaseException] = []

    def keep_writing(content: bytes) -> None:
        try:
            while not stop.is_set():
                write_whole(store.fs, path, content)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=keep_writing, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    seen = set()
    for _ in range(200 if store.local else 30):
        with store.fs.open_input_stream(path) as stream:
            seen.add(stream.read())
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert seen <= set(contents)
    assert names(store, "") == {"file"}, "nothing is left of what was written aside"


def test_fingerprints_follow_what_decides() -> None:
    base = fingerprint("s", {"a": 1, "b": [2, {"c": "й"}]}, 42)
    assert base == fingerprint("s", {"b": [2, {"c": "й"}], "a": 1}, 42)
    assert len(base) == 16
    int(base, 16)
    others = [
        fingerprint("t", {"a": 1, "b": [2, {"c": "й"}]}, 42),
        fingerprint("s", {"a": 1, "b": [2, {"c": "и"}]}, 42),
        fingerprint("s", {"a": "1", "b": [2, {"c": "й"}]}, 42),
        fingerprint("s", {"a": 1, "b": [2, {"c": "й"}]}, 43),
        fingerprint("s", {"a": 1}, 42),
    ]
    assert len({base, *others}) == 6
    place = {"path": "s3://{}b/x?region=r&keyword={}"}
    with_user, without, other = (
        fingerprint("s", {name: value.format(*words) for name, value in place.items()}) for words in (("K:S@", "1"), ("", "1"), ("", "2"))
    )
    assert with_user == without, "who reads a place decides nothing"
    assert other != without


def test_credentials_are_nowhere(place: str, s3: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """Planted in the storage's URI, in a source among the settings, and in what a stage says."""
    source = "s3://AKIAPLANTED:planted%2Fsecret@bucket/texts/*.gz?secret_key=planted&region=r"
    said = [source, Told(loss=1, source=source)]
    with caplog.at_level(logging.DEBUG):
        store = Store(place)
        store.check_writable(0)
        leases = Leases(store)
        leases.take("stage", "f1")
        artifact = write(store, facts=said[1], outside={source: [source]})
        assert leases.holds("stage", "f1")
        leases.close()
        write_whole(store.fs, f"{store.root}/stage/f1/{artifact.manifest.attempt}/rows/part-00000.parquet", b"")
        store.find("stage", "f1")
        write(store, "f1", source=source)
        seen = [store.shown, shown(artifact.uri), repr(artifact), repr(found(store)), repr(store.draft("stage", "f2")), repr(store)]
        for wrong in (lambda: found(store).table("nothing"), lambda: artifact.told(Other), lambda: Store(f"{s3}&colour=red")):
            with pytest.raises((KeyError, InputError)) as caught:
                wrong()
            seen.append("".join(traceback.format_exception(caught.value)))
    for info in store.fs.get_file_info(pafs.FileSelector(store.root, recursive=True)):
        if info.is_file:
            with store.fs.open_input_stream(info.path) as stream:
                seen.append(stream.read().decode("latin-1"))
    whole = "\n".join([*seen, caplog.text, *capfd.readouterr()])
    assert "s3://bucket/texts/*.gz?region=r" in whole, "the place itself is told"
    assert "PLANTED" not in whole
    assert "planted" not in whole


def test_manifests_are_frozen_and_closed(tmp_path: Path) -> None:
    manifest = write(Store(str(tmp_path))).manifest
    with pytest.raises(ValidationError):
        manifest.kind = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Manifest.model_validate(manifest.model_dump() | {"metrics": {}})
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.usefixtures("ray_local")
def test_artifacts_and_drafts_travel_to_other_processes(store: Store) -> None:
    import ray

    draft = store.draft("stage", "f2")
    drafted, model = ray.get(double.remote(write(store), draft))
    assert drafted.rows_out == 3
    assert model == {"mean": True}
    artifact = store.commit(drafted, "stage", "f2", {}, {}, 42, time.time())
    assert artifact.table("rows")["value"].to_pylist() == [2, 4, 6]
    assert (artifact.folder("copy") / "config.json").read_text() == "{}"
