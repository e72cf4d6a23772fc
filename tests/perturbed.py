"""Each field of a recipe changed by itself, to another value of its type."""

from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ValidationError

from raysberta.errors import InputError
from raysberta.graph import Ref, Section
from raysberta.nodes import Node, nodes_of
from raysberta.recipe import Recipe

Keys = tuple[str, ...]
ALIKE = 2
"""Entries of one mapping and one kind that are changed: of 54 data sets the others tell nothing new, two merges can be unlike."""


def perturbed(recipe: Recipe, wanted: Callable[[Keys], bool]) -> Iterator[tuple[Keys, Recipe, dict[str, Node]]]:
    """Each field that is wanted and can be changed by itself, the recipe with that field changed, and its nodes."""
    nodes = nodes_of(recipe)
    for keys, annotation, value in leaves(recipe, ()):
        if not wanted(keys):
            continue
        found = None
        for other in _others(annotation, value, nodes):
            if other == value:
                continue
            changed = _with(recipe, keys, other)
            try:
                after = nodes_of(changed)
            except (InputError, ValidationError):
                continue
            found = found or (changed, after)
            if after != nodes:  # not the value that null stands for
                found = changed, after
                break
        if found:
            yield keys, *found


def leaves(value: Section, keys: Keys) -> Iterator[tuple[Keys, Any, Any]]:
    """Fields that hold no section, with their type and value; a section that may be null is such a field too."""
    for name, field in type(value).model_fields.items():
        inner = getattr(value, name)
        if isinstance(inner, Section):
            if NoneType in get_args(field.annotation):
                yield (*keys, name), field.annotation, inner
            yield from leaves(inner, (*keys, name))
        elif isinstance(inner, Mapping) and any(isinstance(each, Section) for each in inner.values()):
            seen: dict[type, int] = {}
            for key, each in inner.items():
                seen[type(each)] = seen.get(type(each), 0) + 1
                if isinstance(each, Section) and seen[type(each)] <= ALIKE:
                    yield from leaves(each, (*keys, name, str(key)))
        else:
            yield (*keys, name), field.annotation, inner


def _with(value: Any, keys: Keys, other: Any) -> Any:
    if not keys:
        return other
    if isinstance(value, Mapping):
        return {key: _with(each, keys[1:], other) if key == keys[0] else each for key, each in value.items()}
    return value.model_copy(update={keys[0]: _with(getattr(value, keys[0]), keys[1:], other)})


def _others(annotation: Any, value: Any, nodes: Mapping[str, Node]) -> Iterator[Any]:
    """Other values, the likeliest to be allowed first."""
    if value is None:
        yield from _samples(annotation, nodes)
        return
    for literal in _parts(annotation, Literal):
        if value in get_args(literal):
            yield from get_args(literal)
            return
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1)
        case float():
            yield from (value * 0.5 + 0.01, value + 0.1)
        case Ref():
            yield from _named(type(value), nodes)
        case str():
            yield f"{value}x"
        case tuple():
            yield from _other_lists(annotation, value, nodes)
        case Mapping():
            yield from _other_mappings(annotation, value, nodes)
    if NoneType in get_args(annotation):
        yield None


def _other_lists(annotation: Any, value: tuple[Any, ...], nodes: Mapping[str, Node]) -> Iterator[Any]:
    (items,) = [get_args(each)[0] for each in _parts(annotation, tuple)][:1]
    for place, each in enumerate(value):
        for other in _others(items, each, nodes):
            yield (*value[:place], other, *value[place + 1 :])
    if len(value) > 1:
        yield value[:-1]
    for sample in _samples(items, nodes):
        yield (*value, sample)


def _other_mappings(annotation: Any, value: Mapping[Any, Any], nodes: Mapping[str, Node]) -> Iterator[Any]:
    (items,) = [get_args(each)[1] for each in _parts(annotation, dict)][:1]
    for key, each in value.items():
        for other in _others(items, each, nodes):
            yield {**value, key: other}
    for sample in _samples(items, nodes):
        yield {**value, "another": sample}


def _samples(annotation: Any, nodes: Mapping[str, Node]) -> Iterator[Any]:
    """Values of a type, out of nothing."""
    if isinstance(annotation, type) and issubclass(annotation, Ref):
        yield from _named(annotation, nodes)
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        required = {
            name: next(_samples(field.annotation, nodes), None) for name, field in annotation.model_fields.items() if field.is_required()
        }
        yield annotation.model_construct(**required)
    elif annotation in (int, float, str, bool):
        yield {int: 3, float: 0.25, str: "x", bool: True}[annotation]
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif get_origin(annotation) is tuple:
        yield from ((each,) for each in _samples(get_args(annotation)[0], nodes))
    elif get_origin(annotation) is dict:
        yield from ({"another": each} for each in _samples(get_args(annotation)[1], nodes))
    elif get_origin(annotation) is Annotated:
        yield from _samples(get_args(annotation)[0], nodes)
    else:
        for each in get_args(annotation):
            yield from _samples(each, nodes)


def _named(ref: type[Ref], nodes: Mapping[str, Node]) -> Iterator[Ref]:
    yield from (ref(name) for name, node in nodes.items() if node.makes in ref.makes)


def _parts(annotation: Any, origin: Any) -> list[Any]:
    """The parts of a type that are of one form: `int | Literal["a"]` has one Literal."""
    if get_origin(annotation) is origin:
        return [annotation]
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [found for each in inner if get_origin(annotation) not in (dict, tuple) for found in _parts(each, origin)]
