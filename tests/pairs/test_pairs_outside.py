"""Data sets and evaluation sets before they are read: whether they are there, and what they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysberta.data_sets.outside import check_data_set
from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.graph import identity
from raysberta.pairs import outside
from raysberta.pairs.outside import check_pairs, pairs_state
from raysberta.pairs.settings import NaturalPairs

OPTIONS = "?region=here&secret_key=planted"


def settings(*paths: str | tuple[str, ...], sets: tuple[str, ...] = ()) -> NaturalPairs:
    given = {f"x{number}": {"kind": "dataset", "path": path, "task": "topic"} for number, path in enumerate(paths)}
    return NaturalPairs.model_validate({"documents": "corpus", "kinds": {}, "data_sets": given, "rules": {}, "evaluation_sets": sets})


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    (tmp_path / "a.html").write_text("<p>x</p>")
    (tmp_path / "wrong.jsonl").write_text('[{"query": "a"}]')
    return tmp_path


def test_each_problem_is_a_line_without_credentials(folder: Path):
    places = ("gone.jsonl", "a.html", "wrong.jsonl", "*.parquet", "a.jsonl")
    found = check_pairs(settings(*(f"file://{folder}/{place}{OPTIONS}" for place in places), sets=(f"file://{folder}/a.html{OPTIONS}",)))
    assert [line.split(":")[0] for line in found] == [*(f"sources.x{number}.path" for number in range(4)), "corpus.evaluation_sets"]
    assert "gone.jsonl?region=here does not exist" in found[0]
    assert "a.html?region=here is no data set; right would be .parquet, .jsonl" in found[1]
    assert "wrong.jsonl?region=here is not what its ending says: no JSON object" in found[2]
    assert "no file matches" in found[3]
    assert not any("planted" in line or "\n" in line for line in found)
    assert check_pairs(settings(str(folder / "a.jsonl"))) == []


def test_a_data_set_is_checked_before_the_run(folder: Path):
    check_data_set("x", DatasetSource(kind="dataset", path=str(folder / "a.jsonl"), task="topic"))
    with pytest.raises(InputError, match=r"^sources\.x\.path: .*a\.html is no data set; .* kind: files for pages and texts$"):
        check_data_set("x", DatasetSource(kind="dataset", path=str(folder / "a.html"), task="topic"))


def test_identity_follows_the_files_and_not_where_they_lie(folder: Path):
    (folder / "other").mkdir()
    os.utime(folder / "a.jsonl", ns=(1, 1_000_000_007))
    (folder / "other" / "a.jsonl").write_bytes((folder / "a.jsonl").read_bytes())
    os.utime(folder / "other" / "a.jsonl", ns=(1, 1_000_000_007))

    def known(place: Path | str) -> tuple[object, object]:
        given = settings(str(place), sets=(str(place),))
        return identity(given, {"corpus": "documents/1"}), pairs_state(given)

    before = known(folder / "a.jsonl")
    assert before == known(folder / "other" / "a.jsonl") == known(f"file://{folder}/a.jsonl{OPTIONS}")
    assert "planted" not in str(known(f"file://{folder}/a.jsonl{OPTIONS}"))
    os.utime(folder / "a.jsonl", ns=(1, 2_000_000_007))
    after = known(folder / "a.jsonl")
    assert after[0] == before[0]
    assert after[1]["data_sets"] != before[1]["data_sets"] and after[1]["evaluation_sets"] != before[1]["evaluation_sets"]


def test_what_is_missing_can_be_planned_with(folder: Path):
    gone = str(folder / "gone.jsonl")
    found = pairs_state(settings(gone, str(folder / "a.jsonl"), sets=(gone,)))
    assert found["data_sets"]["x0"] == found["evaluation_sets"] == {"missing": True}
    assert found["data_sets"]["x1"]["files"] == 1
    assert set(pairs_state(settings())) == {"data_sets"}


def test_limit_and_language_are_identity(folder: Path):
    def known(**values: object) -> object:
        source = DatasetSource.model_validate({"kind": "dataset", "path": str(folder), "task": "topic", **values})
        return identity(settings().model_copy(update={"data_sets": {"x": source}}), {"corpus": "documents/1"})

    assert len({str(known()), str(known(limit=5)), str(known(language="ru"))}) == 3


def test_neither_torch_nor_ray_is_imported():
    script = "import sys, raysberta.pairs.outside\nprint([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(outside.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr
