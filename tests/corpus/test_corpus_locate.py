from pathlib import Path

import pytest

from raysberta.corpus.locate import kind_of, locate
from raysberta.errors import InputError


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
