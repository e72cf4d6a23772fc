"""Which texts are embedded together, against a plain count; and vectors that come back for the texts they were made of."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.evaluation import units
from raysberta.evaluation.units import ASKED, Stored, digests, embed, missing, plan
from raysberta.retrieval.embed import Embedder

WORDS = [f"слово {number}" for number in range(12)]


def write(folder: Path, tasks: list[list[str]], group: int) -> list[str]:
    files = []
    for number, texts in enumerate(tasks):
        table = pa.table({"text": texts, "digest": digests(texts)}, ASKED)
        files.append(str(folder / f"{number}.parquet"))
        pq.write_table(table, files[-1], row_group_size=group)
    return files


@settings(deadline=None, max_examples=60)
@given(tasks=st.lists(st.lists(st.sampled_from(WORDS), max_size=20), min_size=1, max_size=4), group=st.integers(1, 7))
def test_each_text_is_in_one_unit_and_every_task_finds_it_there(
    tmp_path_factory: pytest.TempPathFactory, tasks: list[list[str]], group: int
) -> None:
    folder = tmp_path_factory.mktemp("units")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT", group)
        found, places = plan(write(folder, tasks, group), str(folder / "vectors"))
    texts = [[tasks[int(Path(unit.texts).stem)][unit.group * group + row] for row in unit.rows.tolist()] for unit in found]
    flat = [text for unit in texts for text in unit]
    assert sorted(flat) == sorted({text for task in tasks for text in task}), "each distinct text once"
    assert flat == list(dict.fromkeys(text for task in tasks for text in task)), "where it is asked first"
    for task, of_it in zip(tasks, places, strict=True):
        assert [texts[unit][row] for unit, row in zip(of_it.units.tolist(), of_it.rows.tolist(), strict=True)] == task
        assert of_it.sizes.tolist() == [len(unit) for unit in texts]
    assert len({unit.vectors for unit in found}) == len(found)


def test_vectors_come_back_for_their_texts_and_are_made_once(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT", 3)
    tasks = [WORDS[:5], WORDS[3:9], WORDS[:2]]
    found, places = plan(write(tmp_path, tasks, 3), folder := str(tmp_path / "vectors"))
    embedder = Embedder(encoder, 16, "fp32")
    assert [embed(unit, embedder) for unit in missing(found, folder)] == [3, 2, 1, 3]
    assert missing(found, folder) == []
    for task, of_it in zip(tasks, places, strict=True):
        stored = Stored(of_it)
        asked = np.concatenate([stored(task[:1]), stored(task[1:])])
        assert asked.dtype == np.float32 and np.allclose(asked, embedder.encode(task), atol=1e-6)
        with pytest.raises(RuntimeError, match="asks other texts than when they were listed"):
            stored(["ещё одно"])
    again, _ = plan(write(tmp_path, [WORDS[:5]], 3), folder)
    assert missing(again, folder) == [], "what is embedded together has one name, whoever asks"
