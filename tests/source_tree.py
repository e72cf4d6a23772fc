"""The package's files and which of them import which, by their syntax trees."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "raysberta"


def files(package: Path = PACKAGE) -> list[Path]:
    """All modules of the package."""
    return sorted(path for path in package.rglob("*.py") if path.name != "__init__.py")


def short(path: Path, package: Path = PACKAGE) -> str:
    """A file as `room/file`."""
    return path.relative_to(package).with_suffix("").as_posix()


def tree(path: Path) -> ast.Module:
    """The syntax tree of a file, which nobody may change."""
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path, package: Path = PACKAGE, within: ast.AST | None = None) -> Iterator[Path]:
    """The package's files that a file imports, wherever in it; or a part of its syntax tree does."""
    for module, names in imports(path, within):
        parts = module.split(".")
        if parts[0] != package.name:
            continue
        for name in names or [""]:
            found = [package.joinpath(*parts[1:], name).with_suffix(".py")] if name else []
            found.append(package.joinpath(*parts[1:]).with_suffix(".py") if len(parts) > 1 else package / "__init__.py")
            yield from [each for each in found if each.is_file() and each.name != "__init__.py"][:1]


def imports(path: Path, within: ast.AST | None = None) -> Iterator[tuple[str, list[str]]]:
    """Modules that a file imports, each with the names that it takes from it."""
    for node in ast.walk(within or tree(path)):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield each.name, []
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield str(node.module), [each.name for each in node.names]
