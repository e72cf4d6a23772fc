from pathlib import Path

import pytest

from raysberta.corpus.locate import kind_of, locate
from raysberta.errors import InputError
from raysberta.storage.location import filesystem


@pytest.fixture()
def tree(tmp_path: Path) -> Path:
    for name in ("a.html", "b/c.md", "b/d/e.txt", "b/d/f.jsonl.gz", "style.css", ".hidden.html", "_aside/g.html", "b/x.HTM"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


def names(path: str | tuple[str, ...]) -> list[str]:
    return [file.name for file in locate(path, "sources.x.path")]


def test_folder_takes_known_endings_only(tree: Path) -> None:
    assert sorted(names(str(tree))) == ["a.html", "b/c.md", "b/d/e.txt", "b/d/f.jsonl.gz", "b/x.HTM"]
    assert sorted(names(f"file://{tree}")) == sorted(names(str(tree)))


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("**/*.md", ["b/c.md"]),
        ("*.html", ["a.html"]),
        ("b/*", ["c.md", "x.HTM"]),
        ("b/d/?.txt", ["e.txt"]),
        ("**/[ae].*", ["a.html", "b/d/e.txt"]),
    ],
)
def test_globs(tree: Path, glob: str, expected: list[str]) -> None:
    assert sorted(names(f"{tree}/{glob}")) == expected


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("", ["a b.html", "c?d#e%20.md", "ещё/g.txt"]),
        ("/*.html", ["a b.html"]),
        ("/**/*.md", ["c?d#e%20.md"]),
        ("/%D0%B5%D1%89%D1%91/*", ["g.txt"]),
        ("/*/g.txt", ["ещё/g.txt"]),
        ("/a%20b.html", ["a b.html"]),
    ],
)
def test_paths_are_joined_before_the_options_of_a_uri(tmp_path: Path, glob: str, expected: list[str]) -> None:
    for name in ("a b.html", "c?d#e%20.md", "ещё/g.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    files = locate(f"file://{tmp_path}{glob}?region=here&secret_key=planted", "sources.x.path")
    assert sorted(file.name for file in files) == expected
    for file in files:
        assert file.uri.endswith("?region=here&secret_key=planted")
        assert file.shown.endswith("?region=here")
        system, path = filesystem(file.uri)
        assert system.open_input_stream(path).read().decode().endswith(Path(file.name).name)


def test_globs_without_a_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names("*.html") == ["a.html"]
    assert names("b/*.md") == ["c.md"]


def test_other_formats_in_a_folder_are_passed_over(tree: Path) -> None:
    assert [file.name for file in locate(str(tree), "sources.x.path", ("jsonl", "parquet"))] == ["b/d/f.jsonl.gz"]
    with pytest.raises(InputError, match=r"no file with a known ending lies in .*; known are \.parquet, some with \.gz or \.zst$"):
        locate(str(tree), "sources.x.path", ("parquet",))


def test_each_file_once(tree: Path) -> None:
    assert names((str(tree / "a.html"), f"{tree}/*.html")) == ["a.html"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("x.warc.gz", ("warc", "gzip")),
        ("x.jsonl.zst", ("jsonl", "zstd")),
        ("X.HTML", ("html", None)),
        ("x.parquet.gz", None),
        ("x", None),
        ("x.gz", None),
    ],
)
def test_kinds(path: str, kind: tuple[str, str | None] | None) -> None:
    assert kind_of(path) == kind


def test_missing_path_is_named(tree: Path) -> None:
    with pytest.raises(InputError, match=r"sources\.x\.path: .*nowhere does not exist"):
        names(str(tree / "nowhere"))
    with pytest.raises(InputError, match=r"sources\.x\.path: no file matches"):
        names(f"{tree}/*.parquet")
    (tree / "empty").mkdir()
    with pytest.raises(InputError, match="no file with a known ending"):
        names(str(tree / "empty"))
    with pytest.raises(InputError, match=r"style\.css: unknown ending"):
        names(str(tree / "style.css"))
    with pytest.raises(InputError, match=r"sources\.x\.path"):
        names("nosuchscheme://bucket/x")
