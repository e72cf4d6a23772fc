"""What a search varies, put into the settings of a phase: by the names of numeric fields, with all of the settings' own checks.

A name is a field (`temperature`), a field of a section in it (`retromae.decoder_mask`), a place of a list (`weights.1`), or a key of a
mapping (`source_weights.web/title_body`).
"""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from raysberta.errors import InputError
from raysberta.graph import EXECUTION, Section
from raysberta.tuning.settings import Range, Search

Settings = TypeVar("Settings", bound=BaseModel)
Number = type[int] | type[float]
Values = Mapping[tuple[str, ...], float]
"""Numbers by the parts of a name that are still to be followed."""

LEAF: Final = ()


def with_values(section: Settings, values: Mapping[str, float]) -> Settings:
    """The section with other numbers, checked again as a whole.

    Args:
        section: Settings of a phase.
        values: By name, see the module. A field of whole numbers takes a whole number.

    Raises:
        InputError: naming the field that is not there, is no number, decides no result or does not allow the value.
    """
    return _changed(section, {tuple(name.split(".")): value for name, value in values.items()}, "")


def check_searchable(phase: Section, key: str) -> None:
    """See that what the phase's `search` varies are numbers of the phase that decide its result, and that each listed value fits.

    Args:
        phase: With a field `search`; of a phase without a search nothing is asked.
        key: Where the phase stands in the recipe, for messages.

    Raises:
        InputError: naming the field under `search.over` and what is wrong.
    """
    search: Search | None = getattr(phase, "search", None)
    for name, wanted in search.over.items() if search is not None else ():
        try:
            for value in (wanted.low, wanted.high) if isinstance(wanted, Range) else wanted:
                with_values(phase, {name: value})
            if isinstance(wanted, Range) and not wanted.whole and _number_of(phase, tuple(name.split("."))) is int:
                raise InputError(f"{name}: takes whole numbers; right would be whole: true in its range")
        except InputError as error:
            raise InputError(f"{key}.search.over.{error}") from error


def _changed(section: Settings, values: Values, at: str) -> Settings:
    fields = {name: getattr(section, name) for name in type(section).model_fields}
    for head, inner in _grouped(values).items():
        field = type(section).model_fields.get(head)
        path = f"{at}{head}"
        if field is None or head == "search":
            known = ", ".join(f"{at}{name}" for name in _numbers(type(section)))
            raise InputError(f"{path}: no such number; there are {known}")
        if EXECUTION in field.metadata:
            raise InputError(f"{path}: decides no result, so there is nothing to search for")
        fields[head] = _replaced(fields[head], field.annotation, inner, path)
    try:
        return type(section).model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(": ".join([f"{at}{where}"] * bool(where) + [first["msg"].removeprefix("Value error, ")])) from error


def _replaced(old: Any, annotation: Any, values: Values, path: str) -> Any:
    """The value of a field, or of a part of it, with the numbers put in."""
    if LEAF in values:
        return _as(_number(annotation), values[LEAF], path)
    if isinstance(old, BaseModel):
        return _changed(old, values, f"{path}.")
    if isinstance(old, Mapping):
        items = get_args(_plain(annotation))[1]
        return {**old, **{key: _as(_number(items), value, f"{path}.{key}") for key, value in _joined(values).items()}}
    if isinstance(old, tuple):
        return _with_places(old, get_args(_plain(annotation))[0], values, path)
    there = "is null" if old is None else "has no parts"
    raise InputError(f"{path}: {there}, so there is no {path}.{'.'.join(next(iter(values)))} to search for")


def _with_places(old: tuple[Any, ...], items: Any, values: Values, path: str) -> tuple[Any, ...]:
    new = list(old)
    for place, inner in _grouped(values).items():
        if not (place.isascii() and place.isdigit() and int(place) < len(new)):
            there = f"0 to {len(new) - 1}" if new else "none: the list is empty"
            raise InputError(f"{path}.{place}: no such place; there are {there}")
        new[int(place)] = _replaced(new[int(place)], items, inner, f"{path}.{place}")
    return tuple(new)


def _grouped(values: Values) -> dict[str, Values]:
    """By the first part of the names, what is left of each."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for name, value in values.items():
        found.setdefault(name[0], {})[name[1:]] = value
    return dict(found)


def _joined(values: Values) -> dict[str, float]:
    return {".".join(name): value for name, value in values.items()}


def _as(number: Number | None, value: float, path: str) -> int | float:
    """The value in the type of its field."""
    if number is None:
        raise InputError(f"{path}: is no number, so it cannot be searched for")
    if number is int and not float(value).is_integer():
        raise InputError(f"{path}: {value:g} is no whole number")
    return number(value)


def _numbers(section: type[BaseModel]) -> Iterator[str]:
    """Names of a section's fields that are numbers and decide its result."""
    for name, field in section.model_fields.items():
        if EXECUTION not in field.metadata and _number(field.annotation) is not None:
            yield name


def _number_of(section: BaseModel, name: tuple[str, ...]) -> Number | None:
    """The type of a name's number, by the values that lead there."""
    value: Any = section
    annotation: Any = type(section)
    for part in name:
        if isinstance(value, BaseModel):
            annotation, value = type(value).model_fields[part].annotation, getattr(value, part)
        elif isinstance(value, tuple):
            annotation, value = get_args(_plain(annotation))[0], value[int(part)]
        else:
            return _number(get_args(_plain(annotation))[1])
    return _number(annotation)


def _number(annotation: Any) -> Number | None:
    """int or float where a field is a number, null or not."""
    plain = _plain(annotation)
    return plain if plain is int or plain is float else None


def _plain(annotation: Any) -> Any:
    """A type without its marks and without null."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        others = [each for each in get_args(annotation) if each is not NoneType]
        return _plain(others[0]) if len(others) == 1 else annotation
    return annotation
