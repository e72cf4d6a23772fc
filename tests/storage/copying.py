"""A stage in small, for another process: it reads an artifact and writes a draft."""

import json
from typing import Any

import pyarrow.compute as pc
import ray

from raysberta.storage.artifacts import Artifact, Draft


@ray.remote
def double(artifact: Artifact, draft: Draft) -> tuple[Draft, Any]:
    """Twice the values, a file copied, and what one small file says."""
    table = artifact.table("rows")
    draft.write_table("rows", table.set_column(1, "value", pc.multiply(table["value"], 2)))
    with draft.folder("copy") as folder:
        (folder / "config.json").write_bytes((artifact.folder("model") / "config.json").read_bytes())
    draft.rows_out = table.num_rows
    return draft, json.loads(artifact.file("model/1_Pooling/config.json").read_text())
