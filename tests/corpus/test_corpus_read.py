"""Sources before they are read: whether they are there, what they are, how they are cut into work units."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from raysberta.corpus import read
from raysberta.corpus.read import check_documents, check_source, documents_state, source_state
from raysberta.corpus.settings import Documents
from raysberta.errors import InputError
from raysberta.graph import identity


def documents(sources: dict[str, dict], **rules: object) -> Documents:
    return Documents.model_validate({"languages": ["ru", "en"], "sources": sources, "rules": rules})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "files", "path": "/nowhere/at/all"}, r"^sources\.x\.path: /nowhere/at/all does not exist$"),
        ({"kind": "docstrings", "packages": ["no_such_package"]}, r"^sources\.x\.packages: package 'no_such_package' is not installed"),
        ({"kind": "files", "path": "FOLDER/b.parquet"}, r"b\.parquet is not what its ending says: no parquet there, but a gzip stream$"),
    ],
)
def test_sources_are_checked_before_the_run(tmp_path: Path, source: dict, message: str) -> None:
    (tmp_path / "b.parquet").write_bytes(gzip.compress(b"x"))
    source = {key: value.replace("FOLDER", str(tmp_path)) if isinstance(value, str) else value for key, value in source.items()}
    with pytest.raises(InputError, match=message):
        check_source("x", documents({"x": source}).sources["x"])


def test_each_problem_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    sources = {
        "good": {"kind": "files", "path": str(tmp_path)},
        "gone": {"kind": "files", "path": str(tmp_path / "gone")},
        "absent": {"kind": "docstrings", "packages": ["no_such_package"]},
    }
    wrong = {"scorer": "no_such_module_at_all:f", "language_model": str(tmp_path / "none.bin")}
    found = check_documents(documents(sources, evaluation_sets=[str(tmp_path / "a.txt")], **wrong))
    starts = ["sources.gone.path: ", "sources.absent.packages: ", "corpus.evaluation_sets: ", "corpus.scorer: ", "corpus.language_model: "]
    assert [line[: len(start)] for line, start in zip(found, starts, strict=True)] == starts
    assert not any("\n" in line for line in found)
    assert check_documents(documents({"good": sources["good"]})) == []


def test_data_sets_are_no_documents() -> None:
    with pytest.raises(ValidationError, match="dataset"):
        documents({"x": {"kind": "dataset", "path": "x.jsonl", "task": "topic"}})


def test_identity_follows_files_and_not_where_they_lie(tmp_path: Path) -> None:
    def known(name: str) -> tuple[object, object]:
        settings = documents({"x": {"kind": "files", "path": str(tmp_path / name)}})
        return identity(settings, {}), documents_state(settings)

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "a.txt"
        file.write_text("text")
        os.utime(file, ns=(1, 1_000_000_007))
    before = known("one")
    assert before == known("two")
    os.utime(tmp_path / "one" / "a.txt", ns=(1, 2_000_000_007))
    assert known("one")[0] == before[0]
    assert known("one")[1] != before[1]
    packaged = documents_state(documents({"x": {"kind": "rl_wsd"}}))
    assert packaged == {"sources": {"x": {"rl_wsd_labeled": "0.1.1"}}}


def test_missing_sources_can_be_planned_with(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.jsonl")
    found = documents_state(documents({"x": {"kind": "files", "path": gone}, "y": {"kind": "rl_wsd"}}, evaluation_sets=[gone]))
    assert found == {
        "sources": {"x": {"missing": True}, "y": {"rl_wsd_labeled": "0.1.1"}},
        "evaluation_sets": {"missing": True},
    }


def test_scorer_and_language_model_are_part_of_the_identity(tmp_path: Path) -> None:
    def known(**rules: object) -> dict:
        return documents_state(documents({"x": {"kind": "rl_wsd"}}, **rules))

    model = tmp_path / "lid.bin"
    model.write_bytes(b"12345")
    found = known(scorer="json:dumps", language_model=str(model))
    assert found["language_model"] == 5
    assert found["scorer"] == known(scorer="json:loads")["scorer"] != known(scorer="csv:reader")["scorer"]
    assert set(known()) == {"sources"}
    with pytest.raises(InputError, match=r"^corpus\.language_model: .*right would be a fastText file"):
        known(language_model=str(tmp_path / "none.bin"))
    with pytest.raises(InputError, match=r"^corpus\.scorer: there is no module"):
        known(scorer="no_such_module_at_all:f")


def test_credentials_are_in_no_message_and_no_identity(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.parquet").write_bytes(gzip.compress(b"x"))
    options = "?region=here&secret_key=planted1&session_token=planted2"
    places = [
        f"file://{tmp_path}/gone{options}",
        f"file://{tmp_path}/*.nothing{options}",
        f"file://{tmp_path}/b.parquet{options}",
        f"file://user:planted3@localhost{tmp_path}",
        f"nosuchscheme://user:planted3@bucket/x{options}",
        f"nosuchscheme://user:plan/ted3@bucket/x{options}",
        f"s3://user:planted3@bucket/x{options}",
    ]
    sources = {f"x{number}": {"kind": "files", "path": place} for number, place in enumerate(places)}
    settings = documents({**sources, "good": {"kind": "files", "path": f"file://{tmp_path}/a.txt{options}"}}, evaluation_sets=places[:2])
    problems = check_documents(settings)
    assert len(problems) == len(places) + 1
    said = "\n".join(problems) + str(documents_state(settings)) + str(identity(settings, {}))
    assert "planted" not in said and "ted3" not in said
    assert "gone?region=here does not exist" in said


def test_source_state_sees_through_options(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("text")
    (tmp_path / "ещё.md").write_text("# text")
    sources = documents(
        {
            "plain": {"kind": "files", "path": str(tmp_path)},
            "options": {"kind": "files", "path": f"file://{tmp_path}?region=here"},
        }
    ).sources
    assert source_state("plain", sources["plain"]) == source_state("options", sources["options"])
    assert source_state("plain", sources["plain"])["files"] == 2


def test_neither_torch_nor_ray_is_imported() -> None:
    script = "import sys, raysberta.corpus.read\nprint([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(read.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_thousands_of_small_files_are_few_work_units(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.txt").write_text(f"строка {number}")
    sources = documents({"x": {"kind": "files", "path": str(tmp_path)}}).sources
    units = read.shards(sources)
    assert len(units) == -(-2000 // read.SHARD_FILES)
    texts = [text for unit in units for table in read.read_shard(unit, sources["x"]) for text in table.column("text").to_pylist()]
    assert sorted(texts) == sorted(f"строка {number}" for number in range(2000))


def test_work_units_are_numbered_through() -> None:
    """Rows are numbered by units, so two of one number would share theirs."""
    packages = {"kind": "docstrings", "language": "en", "packages": ["numpy", "pandas", "torch"]}
    sources = {"words": {"kind": "wiki_ru_wordnet", "language": "ru"}, "code": packages, "intents": {"kind": "home_assistant_intents"}}
    units = read.shards(documents(sources).sources)
    assert [unit.number for unit in units] == list(range(len(units)))
    assert max(sum(unit.source == name for unit in units) for name in sources) > 1
