"""English documentation: the docstrings of installed packages, found by parsing their files, never by importing them.

Title = first sentence, text = the prose after it, section "name" = qualified name, group = file (all docstrings of a file share a split).
"""

import ast
import gc
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.packaged.place import folder
from raysberta.corpus.packaged.prose import MIN_PROSE, summary_and_body

LANGUAGE = "en"
PART_BYTES = 6 << 20
MAX_FILE_BYTES = 4 << 20
MIN_DOCSTRING = 100
MAX_SUMMARY = 240
MIN_SUMMARY_WORDS = 3
MAX_BODY = 4000
OTHERS = frozenset(("tests", "test", "testing", "_vendor", "vendor", "thirdparty_files", "third_party", "node_modules", "__pycache__"))
"""Folders whose docstrings document something else."""
Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def parts(packages: Sequence[str], key: str) -> list[tuple[str, ...]]:
    """Work units: file paths relative to the folder that holds the package, some megabytes each."""
    units: list[tuple[str, ...]] = []
    unit: list[str] = []
    size = 0
    for package in packages:
        root = folder(package, f"{key}.packages")
        for path in sorted(root.rglob("*.py")):
            relative = path.relative_to(root.parent)
            if OTHERS.intersection(relative.parts):
                continue
            unit.append(str(relative))
            size += path.stat().st_size
            if size >= PART_BYTES:
                units.append(tuple(unit))
                unit, size = [], 0
    if unit:
        units.append(tuple(unit))
    return units


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The docstrings of one work unit. Private names and the bare lines that carry no body are left out unseen, not counted."""
    collecting = gc.isenabled()
    gc.disable()  # a syntax tree is many objects and no cycles: collection would take longer than parsing
    try:
        roots = {package: folder(package, f"{key}.packages").parent for package in {Path(relative).parts[0] for relative in part}}
        for relative in part:
            yield from _file(Path(relative), roots[Path(relative).parts[0]])
    finally:
        if collecting:
            gc.enable()


def _file(relative: Path, root: Path) -> Iterator[Found]:
    path = root / relative
    if path.stat().st_size > MAX_FILE_BYTES:
        yield broken(str(relative), f"{relative}: more than {MAX_FILE_BYTES >> 20} MiB of source")
        return
    try:
        source = path.read_text(encoding="utf-8")
        if '"""' not in source:
            return
        tree = ast.parse(source)
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError) as error:
        yield broken(str(relative), f"{relative}: {type(error).__name__}")
        return
    module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
    for name, docstring in _docstrings(tree, module):
        yield _document(name, docstring, str(relative))


def _docstrings(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    todo: list[tuple[str, ast.Module | Named]] = [(module, tree)]
    while todo:
        name, node = todo.pop()
        own = name.rsplit(".", 1)[-1]
        first = node.body[0] if node.body else None
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
            and not own.startswith("_")
        ):
            docstring = inspect.cleandoc(first.value.value)
            if len(docstring) >= MIN_DOCSTRING:
                yield name, docstring
        if isinstance(node, ast.Module | ast.ClassDef):
            todo.extend((f"{name}.{child.name}", child) for child in reversed(node.body) if isinstance(child, Named))


def _document(name: str, docstring: str, group: str) -> Found:
    summary, body = summary_and_body(docstring)
    if not summary or len(body) < MIN_PROSE:
        reason = "short_body"
    elif len(summary) > MAX_SUMMARY or len(summary.split()) < MIN_SUMMARY_WORDS:
        reason = "no_summary"
    else:
        reason = ""
    return Found(group, summary, _cut(body), LANGUAGE, "", [("name", name)], reason)


def _cut(body: str) -> str:
    if len(body) <= MAX_BODY:
        return body
    end = body.rfind(". ", 0, MAX_BODY)
    return body[: end + 1] if end > MAX_BODY // 2 else body[:MAX_BODY]
