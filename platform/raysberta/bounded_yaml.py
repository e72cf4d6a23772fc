"""YAML to plain values, within bounds: a few hundred bytes of it can otherwise ask for all memory or hours.

Mappings, lists, texts, numbers, true, false and null are all that there is; dates, sets and Python objects are refused. Numbers may be
written as in YAML 1.2 (`1e-5`), which PyYAML would take for text.
"""

import itertools
import re
from typing import Any

import yaml

from raysberta.errors import InputError

MAX_VALUES = 100_000
"""Values of a text, aliases written out; each 64 characters of a text count as one more."""
MAX_DEPTH = 40
MAX_NUMBER = 40
"""Characters of a number: beyond it Python's own conversions take long or fail."""

PLAIN = frozenset(f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge"))
NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


class _Loader(yaml.SafeLoader):
    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """Here and not later: the time that PyYAML takes to look for the end of `[[[[` grows with its depth."""
        if self.flow_level >= MAX_DEPTH:
            raise InputError(f"nested deeper than {MAX_DEPTH} levels")
        super().fetch_flow_collection_start(TokenClass)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """YAML to plain values.

    Raises:
        InputError: it is not YAML, a key stands twice, it holds what is no plain value, or goes beyond the bounds.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _measured(node, {}, 0)[0] > MAX_VALUES:
                raise InputError(f"its aliases write out to more than {MAX_VALUES:,} values, which no recipe has")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise InputError(f"nested deeper than {MAX_DEPTH} levels") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError) as error:  # all that PyYAML raises for bad scalars
        raise InputError(f"not YAML: {' '.join(str(error).split())[:300]}") from error


def _measured(node: yaml.Node, known: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """How many values a node is, each alias counted as what it stands for, and how many levels it has below it."""
    if depth > MAX_DEPTH:
        raise InputError(f"nested deeper than {MAX_DEPTH} levels, or an alias holds itself")
    if id(node) not in known:
        _check_plain(node)
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            children = list(itertools.chain.from_iterable(node.value))
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        measured = [_measured(child, known, depth + 1) for child in children]
        length = len(node.value) // 64 if isinstance(node, yaml.ScalarNode) else 0
        known[id(node)] = 1 + length + sum(size for size, _ in measured), 1 + max((height for _, height in measured), default=-1)
    size, height = known[id(node)]
    if depth + height > MAX_DEPTH:
        raise InputError(f"nested deeper than {MAX_DEPTH} levels, aliases written out")
    return size, height


def _check_keys(node: yaml.MappingNode) -> None:
    """PyYAML would let the last of several alike win in silence."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise InputError(f"line {key.start_mark.line + 1}: {key.value!r} stands twice; right would be another name for one of them")
            seen.add(key.value)


def _check_plain(node: yaml.Node) -> None:
    line = node.start_mark.line + 1
    if node.tag not in PLAIN:
        raise InputError(f"line {line}: {node.tag.rpartition(':')[2]}: no kind of value that a recipe has; a text would need quotes")
    if node.tag in NUMBERS and len(node.value) > MAX_NUMBER:
        raise InputError(f"line {line}: a number of {len(node.value):,} characters; right would be at most {MAX_NUMBER}")
