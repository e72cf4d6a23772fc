"""Real English passages: docstrings of an installed package, read with `ast`."""

import ast
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from raysberta.schema import DOCUMENT, text_id
from raysberta.storage.artifacts import Artifact, Store

torch.set_num_threads(1)  # two threads that wait for one another are slower on a busy machine


def docstrings(package: str) -> list[dict]:
    root = Path(next(iter(find_spec(package).submodule_search_locations)))
    found: dict[str, dict] = {}
    for file in sorted(root.rglob("*.py")):
        if "tests" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                title, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                text = " ".join(rest.split("\n\nParameters")[0].split())
                if 80 < len(text) < 600 and "---" not in text and len(title) > 15:
                    found.setdefault(text, {"title": " ".join(title.split()), "text": text, "group": node.name})
    shared = {"split": "train", "source": "docstrings", "language": "en", "label": "", "sections": []}
    return [{**shared, **row, "doc_id": text_id("docstrings", row["text"])} for row in found.values()]


@pytest.fixture(scope="session")
def passages() -> list[dict]:
    """Some hundred documents in order of their id."""
    rows = sorted(docstrings("numpy"), key=lambda row: row["doc_id"])
    assert len(rows) > 300
    return rows


@pytest.fixture
def committed(tmp_path: Path) -> Callable[..., Artifact]:
    """Commit an artifact of documents or of a model's folder."""
    store = Store(str(tmp_path / "store"))

    def commit(name: str, documents: list[dict] | None = None, model: Path | None = None) -> Artifact:
        draft = store.draft(name, "f")
        if documents is not None:
            draft.write_table("documents", pa.Table.from_pylist(documents, DOCUMENT))
            draft.rows_out = len(documents)
        if model is not None:
            with draft.folder("model") as target:
                for file in model.iterdir():
                    (target / file.name).symlink_to(file)
        return store.commit(draft, name, "f", {}, {}, 42, time.time())

    return commit
