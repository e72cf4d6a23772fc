"""Recipes from YAML: changed by `--set` and `--vary`, and refused in one line that names the key."""

import difflib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raysberta.bounded_yaml import parse_yaml
from raysberta.errors import InputError
from raysberta.graph import Section
from raysberta.nodes import nodes_of
from raysberta.recipe import Recipe
from raysberta.storage.location import first_line, is_uri, shown

MAX_RECIPE_BYTES = 1 << 18
MAX_RECIPES = 1000
"""Recipes that one command may vary into."""
MAX_MESSAGE = 600
"""Characters of a refusal."""

Setting = tuple[str, Any]
"""A dotted key, and the value that it gets."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML and apply `a.b=c` overrides in order.

    An override's value is YAML; null removes an entry of a mapping such as `sources`.

    Raises:
        InputError: the file is missing, is not YAML, does not validate, or names nodes that are not there. The message names the key.
    """
    return load_all([path], overrides)[0]


def load_all(paths: Sequence[str | Path], overrides: Sequence[str] = (), vary: Sequence[str] = ()) -> list[Recipe]:
    """Several recipes, or one in every combination of the values that `--vary a.b=1,2` lists, each named by its values.

    Raises:
        InputError: as `load`; or two recipes bear one name, or name different storages.
    """
    if vary and len(paths) > 1:
        raise InputError("--vary: varies one recipe; right would be one --recipe")
    settings = [_setting("--set", override, parse_yaml) for override in overrides]
    recipes = []
    for path in paths:
        value = _read(path)
        for varied, name in _variants(vary):
            changed = _changed(value, [*settings, *varied])
            if name and "name" in changed:
                changed["name"] = f"{changed['name']}-{name}"
            recipes.append(_validated(path, changed))
    names = [recipe.name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"name: two recipes are called {name!r}; right would be another name for one of them")
    if len({recipe.storage for recipe in recipes}) > 1:
        raise InputError("storage: recipes of one plan share one; right would be --set storage=<folder or URI>")
    return recipes


def _read(path: str | Path) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_RECIPE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise InputError(f"{_one_line(str(path))}: no recipe file that can be read") from error
    if len(data) > MAX_RECIPE_BYTES:
        raise InputError(f"{path}: over {MAX_RECIPE_BYTES:,} bytes, which no recipe is")
    try:
        value = parse_yaml(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except InputError as error:
        raise InputError(_one_line(f"{path}: {error}")) from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: a recipe is a mapping of keys, this is {'empty' if value is None else type(value).__name__}")
    return value


def _setting(flag: str, asked: str, parsed: Any) -> Setting:
    dotted, equals, text = asked.partition("=")
    if not equals or not all(dotted.split(".")):
        raise InputError(_one_line(f"{flag} {dotted}: right would be key.of.setting={'value,value' if flag == '--vary' else 'value'}"))
    try:
        return dotted, parsed(text)
    except InputError as error:
        raise InputError(_one_line(f"{flag} {dotted}: the value is {error}")) from error


def _changed(value: dict[str, Any], settings: Sequence[Setting]) -> dict[str, Any]:
    changed = _copied(value)
    for dotted, new in settings:
        _set(changed, dotted, _copied(new))
    return changed


def _copied(value: Any) -> Any:
    """A copy of its own, aliases written out, so that a change here is none there."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _set(value: dict[str, Any], dotted: str, new: Any) -> None:
    *above, last = dotted.split(".")
    node = value
    for key in above:
        if node.get(key) is None:
            node[key] = {}
        if not isinstance(node[key], dict):
            raise InputError(_one_line(f"--set {dotted}: {key} holds a value, not further keys"))
        node = node[key]
    if new is None and isinstance(node.get(last), dict):
        del node[last]
    else:
        node[last] = new


def _variants(vary: Sequence[str]) -> Iterator[tuple[list[Setting], str]]:
    """The settings and a name of every combination; one without either where nothing varies."""
    lists = []
    for asked in vary:
        dotted, values = _setting("--vary", asked, lambda text: parse_yaml(f"[{text}]"))
        if not isinstance(values, list) or not values:
            raise InputError(_one_line(f"--vary {dotted}: no value; right would be key.of.setting=value,value"))
        lists.append([(dotted, each) for each in values])
    if len({each[0][0] for each in lists}) < len(lists):
        raise InputError("--vary: one key is varied twice; right would be all of its values in one list")
    if len(list(itertools.islice(itertools.product(*lists), MAX_RECIPES + 1))) > MAX_RECIPES:
        raise InputError(f"--vary: more than {MAX_RECIPES} combinations")
    for combination in itertools.product(*lists):
        parts = [f"{dotted.rsplit('.', 1)[-1]}={each}" for dotted, each in combination]
        yield list(combination), re.sub(r"[^a-z0-9_.=-]+", "_", "-".join(parts).lower())


def _validated(path: str | Path, value: dict[str, Any]) -> Recipe:
    try:
        for key, text in _strings(value, ""):
            _check_text(key, text)
        recipe = Recipe.model_validate(value)
        nodes_of(recipe)
    except ValidationError as error:
        raise InputError(_one_line(f"{path}: {explain(error, value)}", value)) from None  # it quotes what was given
    except InputError as error:
        raise InputError(_one_line(f"{path}: {error}", value)) from error
    return recipe


def _check_text(key: str, text: str) -> None:
    if "\0" in text:
        raise InputError(f"{key}: holds a null byte")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{key}: holds half of a surrogate pair, which is no text")


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield key or "(top level)", str(name)
            yield from _strings(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each, key)


def _one_line(text: str, value: Any = None) -> str:
    """A message as it may be printed: in one line, of a bounded length, without credentials of the URIs in the recipe or in it."""
    for _, place in _strings(value, ""):
        if is_uri(place):
            for quoted in (place, repr(place)[1:-1], json.dumps(place, ensure_ascii=False)[1:-1]):
                text = text.replace(quoted, shown(place))
    line = first_line(InputError(" ".join(text.split())))
    line = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in line)
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."


def explain(error: ValidationError, value: Any) -> str:
    """The first problem, with the nearest known key where one is misspelt.

    Args:
        error: What pydantic says.
        value: What it was said of.
    """
    first = error.errors(include_url=False)[0]
    where, kind, given = _place(first["loc"], value, first["type"] == "missing"), first["type"], first.get("input")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if kind == "extra_forbidden":
        known = {field.alias or name for model in _sections() for name, field in model.model_fields.items()}
        near = difflib.get_close_matches(str(first["loc"][-1]), sorted(known), n=1)
        return f"{where}: unknown key{f'; did you mean {near[0]}?' if near else ''}{more}"
    if kind == "union_tag_not_found":
        return f"{where}: has no kind{more}"
    message = first["msg"].removeprefix("Value error, ")
    if where and kind != "missing" and isinstance(given, str | int | float | None):
        message += f", given {json.dumps(given, ensure_ascii=False)}"
        if kind == "string_type" and isinstance(given, bool):
            message += "; right would be quotes: YAML reads yes, no, on and off as true and false"
    return f"{where}: {message}{more}" if where else f"{message}{more}"


def _place(location: Sequence[str | int], value: Any, missing: bool) -> str:
    """Dotted keys as the recipe's author wrote them: pydantic also names what it took a section of several kinds for."""
    keys = []
    for number, part in enumerate(location):
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int) and part < len(value)
        if inside:
            value = value[part]
        if inside or (missing and number == len(location) - 1):
            keys.append(str(part))
    return ".".join(keys)


def _sections() -> Iterator[type[Section]]:
    """Every section class that there is, each once."""
    seen: set[type[Section]] = set()
    todo: list[type[Section]] = [Section]
    while todo:
        for child in todo.pop().__subclasses__():
            if child not in seen:
                seen.add(child)
                todo.append(child)
                yield child
