"""A room's VERSION cannot be forgotten: the code that makes each kind of node is held against what was recorded at its last version.

`python tests/test_versions.py` records; where code differs and its version does not, `--same-results` says that it was meant so.
"""

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "tests")]

from source_tree import PACKAGE, imported, short, tree  # noqa: E402
from source_tree import files as all_files  # noqa: E402

RECORDED = Path(__file__).with_name("recorded_versions.json")
Versions = dict[str, dict[str, Any]]


def versions(package: Path = PACKAGE) -> Versions:
    """By kind of node: its room and version, and the hash of every file of the package that its stage imports, by whatever way."""
    stages = ast.parse((package / "pipeline" / "stages.py").read_text(encoding="utf-8"))
    runners = {node.name: node for node in stages.body if isinstance(node, ast.FunctionDef)}
    found: Versions = {}
    edges = {path: set(imported(path, package)) for path in all_files(package)}
    digests = {path: digest(path) for path in edges}
    for kind, runner in _runners(runners["stage_of"]):
        (stage,) = imported(package / "pipeline" / "stages.py", package, within=runners[runner])
        files = sorted(_reached(stage, edges))
        version = _version(stage.parent / "settings.py")
        found[kind] = {"room": stage.parent.name, "version": version, "files": {short(path, package): digests[path] for path in files}}
    return found


def _runners(stage_of: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Each kind of node with the function that runs its stage, as `stage_of` tells them apart."""
    (match,) = (node for node in stage_of.body if isinstance(node, ast.Match))
    for case in match.cases:
        if isinstance(case.pattern, ast.MatchValue):
            (made,) = case.body
            yield ast.literal_eval(case.pattern.value), made.value.args[0].id  # type: ignore[attr-defined]


def _version(settings: Path) -> int:
    for node in ast.parse(settings.read_text(encoding="utf-8")).body:
        if _is_version(node):
            return int(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    raise AssertionError(f"{settings}: has no VERSION")


def _is_version(node: ast.AST) -> bool:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "VERSION"


def _reached(start: Path, edges: Mapping[Path, set[Path]]) -> set[Path]:
    reached: set[Path] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        if path not in reached:
            reached.add(path)
            todo.extend(edges[path])
    return reached


def digest(path: Path) -> str:
    """Of a file's syntax tree, without docstrings and VERSION; comments and layout are no part of a tree."""
    return hashlib.sha256(repr(_plain(tree(path))).encode()).hexdigest()[:16]


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _plain(node: Any) -> Any:
    """A tree without empty fields, of which newer Pythons have more."""
    if isinstance(node, ast.AST):
        return type(node).__name__, [(name, _plain(each)) for name, each in ast.iter_fields(node) if each not in (None, [])]
    return [_plain(each) for each in node if not (_is_text(each) or _is_version(each))] if isinstance(node, list) else node


def problems(recorded: Versions, now: Versions) -> list[str]:
    """What must be done before the record is right again, a line for each kind."""
    found = []
    for kind in sorted(recorded.keys() | now.keys()):
        if kind not in recorded or kind not in now:
            found.append(f"{kind}: {'is new' if kind in now else 'is gone'}; run `python tests/test_versions.py`")
            continue
        old, new = recorded[kind], now[kind]
        files = sorted(name for name in old["files"].keys() | new["files"].keys() if old["files"].get(name) != new["files"].get(name))
        if files and old["version"] == new["version"]:
            found.append(
                f"{kind}: changed since version {old['version']}: {', '.join(files)}; bump VERSION in {new['room']}/settings.py if results "
                "may differ, then run `python tests/test_versions.py` to record (with --same-results where they do not)"
            )
        elif old != new:
            found.append(f"{kind}: version {old['version']} is recorded, {new['version']} is there; run `python tests/test_versions.py`")
    return found


def record(same_results: bool, package: Path = PACKAGE, file: Path = RECORDED) -> int:
    """Write the record; the exit code: 1 where code changed, its version did not, and nobody says that results are the same."""
    recorded: Versions = json.loads(file.read_text()) if file.exists() else {}
    now = versions(package)
    forgotten = [line for line in problems(recorded, now) if ": changed since" in line]
    if forgotten and not same_results:
        print("\n".join(forgotten))
        return 1
    file.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    return 0


def test_no_code_changed_without_its_version() -> None:
    found = problems(json.loads(RECORDED.read_text()), versions())
    assert not found, "\n".join(["", *found])


def test_the_record_has_every_kind_and_what_it_stands_on() -> None:
    from raysberta.nodes import KINDS, Node
    from raysberta.pipeline.stages import stage_of
    from raysberta.publishing.settings import Publishing

    now = versions()
    assert now.keys() == set(KINDS)
    for kind in KINDS:
        assert now[kind]["version"] == stage_of(Node("any", kind, "", Publishing(), "")).version
    assert {"training/contrastive", "training/settings", "evaluation/score", "tuning/trials"} <= now["search"]["files"].keys()
    assert {"corpus/verdicts", "corpus/settings", "graph", "storage/artifacts"} <= now["corpus"]["files"].keys()
    assert not any(name.startswith(("training/", "publishing/", "pipeline/")) for name in now["corpus"]["files"])


def _copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / "raysberta", ignore=shutil.ignore_patterns("__pycache__")))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_changed_code_needs_its_version(tmp_path: Path) -> None:
    package, file = _copy(tmp_path), tmp_path / "recorded.json"
    assert record(False, package, file) == 0
    before = json.loads(file.read_text())
    assert problems(before, versions(package)) == []

    _edit(package / "merging" / "slerp.py", "\nimport ", "\nDIFFERENT = 1\nimport ")
    (line,) = [line for line in problems(before, versions(package)) if line.startswith("merge:")]
    assert "merging/slerp" in line and "bump VERSION in merging/settings.py if results may differ" in line and "--same-results" in line
    assert record(False, package, file) == 1 and json.loads(file.read_text()) == before

    version = before["merge"]["version"]
    _edit(package / "merging" / "settings.py", f"VERSION: int = {version}", f"VERSION: int = {version + 1}")
    (line,) = [line for line in problems(before, versions(package)) if line.startswith("merge:")]
    assert line == f"merge: version {version} is recorded, {version + 1} is there; run `python tests/test_versions.py`"
    others = {line.partition(":")[0] for line in problems(before, versions(package))} - {"merge"}
    assert "corpus" not in others and "search" in others, "trials run that code too"
    assert record(bool(others), package, file) == 0
    assert problems(json.loads(file.read_text()), versions(package)) == []


def test_a_version_alone_must_be_recorded_and_no_other_kind_minds(tmp_path: Path) -> None:
    package = _copy(tmp_path)
    before = versions(package)
    version = before["mlm"]["version"]
    _edit(package / "training" / "settings.py", f"VERSION: int = {version}", f"VERSION: int = {version + 1}")
    assert {line.partition(":")[0] for line in problems(before, versions(package))} == {"mlm", "distil", "contrastive"}


def test_words_and_layout_do_not_matter(tmp_path: Path) -> None:
    package = _copy(tmp_path)
    before = versions(package)
    path = package / "merging" / "slerp.py"
    text = path.read_text(encoding="utf-8")
    other = ast.parse(text)
    for node in ast.walk(other):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            node.body[0].value.value = "Other words."  # type: ignore[attr-defined]
    path.write_text(f"# A comment.\n{ast.unparse(other)}", encoding="utf-8")
    assert "Other words." in path.read_text(encoding="utf-8")
    assert problems(before, versions(package)) == []


def test_the_command_says_what_it_wants() -> None:
    done = subprocess.run([sys.executable, __file__, "--wrong"], capture_output=True, text=True)
    assert done.returncode == 2 and "--same-results" in done.stderr


if __name__ == "__main__":
    if set(sys.argv[1:]) - {"--same-results"}:
        sys.exit(print(f"usage: {sys.argv[0]} [--same-results]", file=sys.stderr) or 2)
    sys.exit(record("--same-results" in sys.argv[1:]))
