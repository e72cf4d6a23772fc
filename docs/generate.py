"""Write docs/recipe.md from the settings classes, and docs/laptop.svg from the laptop recipe. `--print` shows the reference instead."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "platform"))

from raysberta.graph import EXECUTION, Language, Ref, Section  # noqa: E402
from raysberta.nodes import nodes_of  # noqa: E402
from raysberta.parsing import load  # noqa: E402
from raysberta.publishing.settings import Release  # noqa: E402
from raysberta.recipe import Recipe  # noqa: E402

HEAD = """# Recipe reference

Generated from the settings classes by `python docs/generate.py`; a test holds the two together.
A recipe is YAML. `--set a.b=c` changes one setting, `--set sources.x=null` removes a source, `--vary a.b=1,2` makes several recipes of
one. Unknown keys are refused. Everything has a default but `name`, `sources`, and what is marked as required.

A setting of type *name of* names another entry of the recipe, and makes what it stands in depend on it. *Not identity* marks what decides
speed, memory or when to save, never the result, so changing it reuses what is there; and where files lie, for which their names, sizes and
dates count instead. Where files lie is a path or a URI; a relative path lies under `data`.
"""


def reference() -> str:
    """The whole reference as Markdown."""
    headings = {Recipe: ["(top level)"], **_headings()}
    return "\n".join([HEAD, *(_section(model, places) for model, places in headings.items())])


def _headings() -> dict[type[Section], list[str]]:
    """Every class of settings of a recipe, with the places where it stands."""
    found: dict[type[Section], list[str]] = {}
    for model, place in _below(Recipe, ""):
        places = found.setdefault(model, [])
        if place not in places:
            places.append(place)
    return found


def _below(model: type[BaseModel], at: str) -> Iterator[tuple[type[Section], str]]:
    for name, field in model.model_fields.items():
        place = f"{at}.{_key(name, field)}" if at else _key(name, field)
        for child, inner in _held(field.annotation, place):
            yield child, inner
            yield from _below(child, inner)


def _held(annotation: Any, place: str) -> Iterator[tuple[type[Section], str]]:
    """The sections that a value of this type may hold, each with its place."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation, place
        return
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is dict:
        place = f"{place}.{'<language>' if arguments[0] == Language else '<name>'}"
        arguments = arguments[1:]
    elif origin is Annotated:
        arguments = arguments[:1]
    for each in arguments:
        yield from _held(each, place)


def _section(model: type[BaseModel], places: list[str]) -> str:
    lines = [
        f"## {', '.join(f'`{place}`' for place in places)}{_told_apart(model)}\n",
        " ".join((model.__doc__ or "").split()) + "\n",
        "| key | type | default | what it does |",
        "|---|---|---|---|",
    ]
    for name, field in model.model_fields.items():
        about = " ".join((field.description or "").split())
        if EXECUTION in field.metadata:
            about += " *Not identity.*"
        lines.append(f"| `{_key(name, field)}` | {_type(field.annotation)} | {_default(field)} | {about} |")
    return "\n".join(lines) + "\n"


def _told_apart(model: type[BaseModel]) -> str:
    """What a section of several kinds says to be this one."""
    values = get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()
    return f" with `kind: {values[0]}`" if len(values) == 1 else ""


def _key(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _type(annotation: Any) -> str:
    if annotation == Language:
        return "language"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys("null" if part is NoneType else _type(part) for part in arguments))
    if origin is tuple:
        return f"list of {_type(arguments[0])}" if arguments[-1] is Ellipsis else f"{len(arguments)} of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    if issubclass(annotation, Ref):
        return f"name of {' or '.join(sorted(annotation.makes)).replace('_', '-')}"
    if issubclass(annotation, BaseModel):
        return "section"
    return str(annotation.__name__)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return ""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def picture() -> str:
    """The graph of the laptop recipe as an SVG. Its release reads every node; what it publishes and compares says enough."""
    from raysberta.pictures import graph

    drawn = []
    for node in nodes_of(load(ROOT / "recipes" / "laptop.yaml")).values():
        made_from = node.made_from
        if isinstance(node.settings, Release):
            made_from = (node.settings.final, node.settings.base, *node.settings.scores)
        drawn.append((node.name, node.kind, made_from))
    return graph(drawn)


if __name__ == "__main__":
    if "--print" in sys.argv[1:]:
        sys.stdout.write(reference())
    else:
        (ROOT / "docs" / "recipe.md").write_text(reference(), encoding="utf-8")
        (ROOT / "docs" / "laptop.svg").write_text(picture(), encoding="utf-8")
