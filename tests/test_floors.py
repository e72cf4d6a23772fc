"""The architecture: which file may import which, what a dry run loads, how long files are, and which words are gone."""

import ast
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest

from source_tree import PACKAGE, ROOT, files, imported, imports, short, tree

FLOORS = [  # low to high; of several patterns of one floor or of two, the first that fits
    ["errors", "schema", "telemetry", "graph", "prefixes", "bounded_yaml"],
    ["storage/*", "work", "progress", "pictures", "layout", "spread", "board"],
    ["*/settings", "*/facts", "tuning/node", "tuning/choice"],
    ["models/*", "merging/*"],
    ["retrieval/*"],
    ["corpus/*", "data_sets/*", "pairs/*"],
    ["training/*", "evaluation/*"],
    ["aligning/*", "centring/*", "composing/*", "vocabulary/*", "mining/*", "synthesis/*", "tuning/*", "publishing/*", "pruning/*"],
    ["recipe"],
    ["nodes"],
    ["parsing"],
    ["pipeline/*"],
]
KNOW_RAY = ["*/stage", "retrieval/workers", "training/ray_train", "training/lessons", "spread", "board", "telemetry", "pipeline/*"]
LAZY = ["pipeline/stages"]
"""Files whose imports within functions are the point: they tie what is planned to what runs."""
HEAVY = {"torch", "transformers", "ray", "mteb", "datasets", "faiss", "sentence_transformers", "deepspeed", "vllm", "matplotlib"}
PLANNED = ["*/settings", "*/facts", "*/outside", "tuning/node", "tuning/choice", "corpus/read", "graph", "nodes", "recipe", "parsing"]
"""Files that a dry run reads; what they import must not be heavy."""
LONGEST, LONGEST_RECIPE = 400, 130
OLD_WORDS = [
    *("mlm_merged", "mining_synthetic", "base_prefixes", "base_pooling", "TRAINED", "SCORED_MODELS", '"generators"', "identity(recipe"),
    *("draft.metrics", "model_folder", "DESIGN.md", "RECIPE.md", "known-faults"),
]
WHERE_WORDS_ARE_GONE = [
    "platform",
    "jobs",
    "tests",
    "benchmarks",
    "docs",
    "recipes",
    "README.md",
    "Makefile",
    "pyproject.toml",
    "cluster.yaml",
]
MAY_SAY_THEM = ["test_floors.py", "performance.md"]
"""The list itself, and the log of what was measured while things were called so."""


def floor(name: str) -> int:
    for pattern in KNOWN_FLOORS:
        if fnmatch(name, pattern):
            return KNOWN_FLOORS[pattern]
    raise AssertionError(f"{name}: stands on no floor; right would be an entry in FLOORS")


KNOWN_FLOORS = {pattern: number for number, patterns in enumerate(FLOORS) for pattern in patterns}


def test_every_file_stands_on_a_floor() -> None:
    assert {short(path): floor(short(path)) for path in files()}


@pytest.mark.parametrize("path", files(), ids=short)
def test_no_import_runs_upward(path: Path) -> None:
    above = [short(other) for other in imported(path) if floor(short(other)) > floor(short(path))]
    assert not above, f"{short(path)} imports {', '.join(above)}, which stand above it"


def test_no_room_imports_the_stage_of_another() -> None:
    for path in files():
        for other in imported(path):
            if other.name == "stage.py" and short(path) not in LAZY:
                assert other.parent == path.parent, f"{short(path)} imports {short(other)}"


def test_no_two_files_import_one_another() -> None:
    edges = {short(path): {short(other) for other in _imported_at_once(path)} for path in files()}
    assert not (circle := _circle(edges)), " imports ".join(circle)


def test_a_circle_of_imports_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "raysberta"
    (package / "room").mkdir(parents=True)
    (package / "room" / "one.py").write_text("def late():\n    from raysberta.room import two\n    return two\n")
    (package / "room" / "two.py").write_text("from raysberta.three import name\n")
    (package / "three.py").write_text("import raysberta.room.one\nname = 1\n")
    edges = {short(path, package): {short(other, package) for other in imported(path, package)} for path in files(package)}
    assert edges == {"room/one": {"room/two"}, "room/two": {"three"}, "three": {"room/one"}}
    assert _circle(edges) == ["room/one", "room/two", "three", "room/one"]
    assert _circle({"a": {"b"}, "b": set()}) == []


def _imported_at_once(path: Path) -> set[Path]:
    if short(path) not in LAZY:
        return set(imported(path))
    return {other for node in tree(path).body if not isinstance(node, ast.FunctionDef) for other in imported(path, within=node)}


def _circle(edges: dict[str, set[str]]) -> list[str]:
    """Files that import one another, the first also at the end; empty where none do."""
    done: set[str] = set()

    def below(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(edges[name]):
                if found := below(other, [*path, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := below(name, []))), [])


@pytest.mark.parametrize("path", files(), ids=short)
def test_only_stages_know_ray(path: Path) -> None:
    knows = {module for module, _ in imports(path) if module.split(".")[0] == "ray"}
    assert not knows or any(fnmatch(short(path), pattern) for pattern in KNOW_RAY), f"{short(path)} imports {', '.join(sorted(knows))}"


@pytest.mark.parametrize("path", [path for path in files() if any(fnmatch(short(path), each) for each in PLANNED)], ids=short)
def test_what_a_dry_run_reads_imports_nothing_heavy(path: Path) -> None:
    heavy = {module for module, _ in imports(path) if module.split(".")[0] in HEAVY}
    assert not heavy, f"{short(path)} imports {', '.join(sorted(heavy))}"


PLAN = """
import sys, time
started = time.process_time()
from raysberta.parsing import load
from raysberta.pipeline.dry_run import print_plan
recipe = load(sys.argv[1], [f"storage={sys.argv[2]}"])
code = print_plan([recipe], [])
seconds = time.process_time() - started
print("loaded", *sorted(set(sys.modules) & set(sys.argv[3].split(","))))
print("seconds", seconds)
sys.exit(code)
"""


@pytest.mark.parametrize("name", ["laptop", "smoke"])
def test_a_dry_run_is_quick_and_loads_no_model_code(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PLAN, str(ROOT / "recipes" / f"{name}.yaml"), str(tmp_path), ",".join(HEAVY)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(PACKAGE.parent), "HOME": str(tmp_path)})
    taken = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines()[-2:])
    assert said["loaded"] == ""
    assert float(said["seconds"]) < 3, f"{said['seconds']} s of processor time, {taken:.1f} s in all"


@pytest.mark.parametrize("path", files(), ids=short)
def test_no_file_is_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (LONGEST_RECIPE if short(path) == "recipe" else LONGEST)


@pytest.mark.parametrize("word", OLD_WORDS)
def test_old_words_are_gone(word: str) -> None:
    found = []
    for place in WHERE_WORDS_ARE_GONE:
        root = ROOT / place
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.suffix in {".py", ".md", ".yaml", ".toml", ".svg", ""} and path.is_file() and path.name not in MAY_SAY_THEM:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                found += [f"{path.relative_to(ROOT)}:{number}" for number, line in enumerate(lines, 1) if word in line]
    assert not found, f"{word}: {', '.join(found)}"
