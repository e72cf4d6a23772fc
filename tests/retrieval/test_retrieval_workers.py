"""Embedding in actors: the model's own pooling, the same bits for any number of workers, and vectors that have a folder of their own."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysberta.models.describe import Description, write_description
from raysberta.prefixes import E5
from raysberta.progress import Report, report_to
from raysberta.retrieval import workers as module
from raysberta.retrieval.embed import Embedder
from raysberta.retrieval.encoded import vectors_folder
from raysberta.retrieval.workers import embed_texts
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Workers

TEXTS = [f"passage: {'слово ' * (n % 13)} word {n}" for n in range(60)]


def committed(store: Store, kind: str, folder: Path) -> Artifact:
    draft = store.draft(kind, "f")
    with draft.folder("model") as target:
        for file in folder.iterdir():
            (target / file.name).symlink_to(file)
    return store.commit(draft, kind, "f", {}, {}, 42, time.time())


@pytest.mark.usefixtures("ray_local")
def test_vectors_are_the_model_s_in_the_order_given(e5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another pooling in the folder, cut where it says, in blocks of few texts; on one worker as on two."""
    folder = tmp_path / "cls"
    folder.mkdir()
    for file in e5_folder.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    write_description(folder, Description("cls", E5, 10))
    model = committed(Store(str(tmp_path / "store")), "model", folder)
    monkeypatch.setattr(module, "BLOCK_TEXTS", 25)
    reports: list[Report] = []
    report_to(reports.append)
    try:
        one = embed_texts(pa.array(TEXTS, pa.large_string()), model, 64, Workers(), "one worker")
        two = embed_texts(pa.array(TEXTS, pa.large_string()), model, 64, Workers(workers=2), "two workers")
    finally:
        report_to(None)
    assert np.array_equal(one, two)
    plain = Embedder(folder, device="cpu")
    assert plain.max_tokens == 10
    assert (one * plain.encode(TEXTS)).sum(1).min() > 0.999
    assert (one * Embedder(e5_folder, 64, device="cpu").encode(TEXTS)).sum(1).min() < 0.99, "mean pooling gives others"
    assert {(report.node, report.what, report.total) for report in reports} == {
        ("one worker", "texts embedded", 60),
        ("two workers", "texts embedded", 60),
    }
    assert reports[-1].done == 60


def test_the_folder_of_vectors_says_whose_they_are_and_how_long_texts_were(e5_folder: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    draft = store.draft("examples", "f")
    one, other = committed(store, "model", e5_folder), committed(store, "contrastive", e5_folder)
    folders = [vectors_folder(draft, one, 32), vectors_folder(draft, one, 64), vectors_folder(draft, other, 32)]
    assert len(set(folders)) == 3
    assert all(Path(folder).parent == tmp_path / "store" / "vectors" for folder in folders)
