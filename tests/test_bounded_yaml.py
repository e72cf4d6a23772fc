"""YAML within bounds: what a few bytes cannot ask for, and which values there are."""

import math
import time

import pytest

from raysberta.bounded_yaml import MAX_DEPTH, MAX_NUMBER, MAX_VALUES, parse_yaml
from raysberta.errors import InputError

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{letter}: &{letter} [{','.join([f'*{before}'] * 9)}]\n" for before, letter in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{letter}: &{letter} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n" for before, letter in zip("abcdefghi", "bcdefghij", strict=True)
)
LONG_TEXT = "a: &a " + "x" * 100_000 + f"\nb: [{','.join(['*a'] * 5000)}]\n"
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{number}: &a{number} {'[' * 30}*a{number - 1}{']' * 30}\n" for number in range(1, 6))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "its aliases write out to more than 100,000 values"),
        (MERGE_BOMB, "its aliases write out to more than 100,000 values"),
        (LONG_TEXT, "its aliases write out to more than 100,000 values"),
        ("a: &a [*a]", "an alias holds itself"),
        ("&a {b: *a}", "an alias holds itself"),
        ("&a {<<: *a}", "an alias holds itself"),
        ("&a [{*a : 1}]", "an alias holds itself"),
        ("x: &a [" + "*a, " * 1000 + "]", "an alias holds itself"),
        (CHAIN, f"nested deeper than {MAX_DEPTH} levels, aliases written out"),
        ("[" * 200_000, f"nested deeper than {MAX_DEPTH} levels"),
        ("[" * 41 + "]" * 41, f"nested deeper than {MAX_DEPTH} levels"),
        ("{a: " * 50_000, f"nested deeper than {MAX_DEPTH} levels"),
        ("? " * 20_000, f"nested deeper than {MAX_DEPTH} levels"),
        ("- " * 2_000 + "x", f"nested deeper than {MAX_DEPTH} levels"),
        ("a: " + "1" * 200_000, "line 1: a number of 200,000 characters"),
        ("a: 0x" + "f" * 200_000, "line 1: a number of 200,002 characters"),
        ("a: 1" + ":1" * 90_000, "line 1: a number of 180,001 characters"),
        ("a: 1" + ":1" * 300 + ".5", "line 1: a number of 603 characters"),
    ],
    ids=lambda value: value[:12] if len(value) > 100 else value,
)
def test_bombs_are_refused_at_once(text: str, says: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        parse_yaml(text)
    assert time.process_time() - started < 1
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_bomb_is_small() -> None:
    assert len(BOMB) < 400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: 'a' stands twice"),
        ("x:\n  {a: 1, a: 1}", "line 2: 'a' stands twice"),
        ("a: 2024-01-01", "line 1: timestamp: no kind of value"),
        ("a: 2024-01-01 10:00:00", "line 1: timestamp"),
        ("a: !!set {x, y}", "line 1: set"),
        ("a: !!binary aGVsbG8=", "line 1: binary"),
        ("a: !!python/object/apply:os.system [ls]", "no kind of value"),
        ("a: !own 3", "no kind of value"),
        ("a: =", "no kind of value"),
        ("!!omap [a: 1]", "line 1: omap"),
        ('a: !!int ""', "not YAML"),
        ("a: !!bool maybe", "not YAML"),
        ("a: !!float x", "not YAML"),
        ("a: [", "not YAML"),
        ("a: *nothing", "not YAML: found undefined alias 'nothing'"),
        ("? [a, b]\n: 1", "not YAML"),
        ("a: 1\n--- \nb: 2", "not YAML: expected a single document"),
        ("a: \0", "not YAML: unacceptable character"),
        ("\ta: 1", "not YAML"),
        ("a: b: c", "not YAML"),
    ],
)
def test_what_is_no_recipes_yaml(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing", None),
        ("a: [1, 0x10, -3, 1_000]", {"a": [1, 16, -3, 1000]}),
        ("[1e-5, 1.0e-5, 1E5, 1.5e3, .5e1, -2e+3, 0.25, .5]", [1e-5, 1e-5, 1e5, 1500.0, 5.0, -2000.0, 0.25, 0.5]),
        ("[1e, e5, 1e5x, '1e5', 1-e5, 1.2.3e4]", ["1e", "e5", "1e5x", "1e5", "1-e5", "1.2.3e4"]),
        ("{a: yes, b: ~, c: null, d: 'yes', 1: x}", {"a": True, "b": None, "c": None, "d": "yes", 1: "x"}),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("a: &a [1]\nb: [*a, *a]", {"a": [1], "b": [[1], [1]]}),
        ("текст: по-русски", {"текст": "по-русски"}),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    found = parse_yaml(text)
    if text.startswith("[["):
        depth = 0
        while found:
            depth, found = depth + 1, found[0]
        assert depth == MAX_DEPTH - 1
    else:
        assert found == value and repr(found) == repr(value)


def test_infinities_are_numbers_here_and_refused_where_they_mean_something() -> None:
    positive, negative, none, beyond = parse_yaml("[.inf, -.inf, .nan, 1e999]")
    assert (positive, negative, beyond) == (math.inf, -math.inf, math.inf) and math.isnan(none)


def test_large_recipes_are_not_refused() -> None:
    text = "\n".join(f"source_{number}: {{kind: dataset, path: data/{number}, task: topic, limit: 100}}" for number in range(1000))
    assert len(parse_yaml(text)) == 1000
    assert parse_yaml(f"a: {'9' * MAX_NUMBER}") == {"a": int("9" * MAX_NUMBER)}
    assert MAX_VALUES > 20 * 9 * 54, "twenty times the largest shipped recipe"
