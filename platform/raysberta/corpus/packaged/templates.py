"""Sentences from templates like `turn on [the] (light|lamp) in {area}`, a bounded sample of them, the same in every run.

Grammar: `[x]` optional, `(x|y)` one of, `(x;y)` all in any order, `{list}` or `{list:slot}` one value, `<rule>` another template,
a backslash takes the next character as it is. Sampling draws from a generator seeded by the template itself.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Node = Callable[[random.Random], str]
Values = Mapping[str, Sequence[str]]

SPACE = re.compile(r"\s+")
MAX_DEPTH = 12
TRIES_PER_SENTENCE = 4


class TemplateError(ValueError):
    """A template that does not follow the grammar, or names a list or rule that is not there."""


def sample(template: str, rules: Mapping[str, str], values: Values, count: int) -> list[str]:
    """At most `count` different sentences.

    Raises:
        TemplateError: unbalanced brackets, an unknown list or rule, rules that never end.
    """
    generator = random.Random(template)  # seeds by the SHA-512 of the string, not by `hash`
    node = _Parser(template, rules, values, 0).whole()
    sentences: dict[str, None] = {}
    for _ in range(count * TRIES_PER_SENTENCE):
        sentence = SPACE.sub(" ", node(generator)).strip()
        if sentence:
            sentences[sentence] = None
        if len(sentences) == count:
            break
    return list(sentences)


def slot_values(lists: Mapping[str, Any], rules: Mapping[str, str], spoken: Values, per_list: int = 8) -> dict[str, list[str]]:
    """What may stand for each list: its values, numbers of its range, or words of our own for lists that take anything.

    Args:
        lists: As in the package: `{"values": [...]}`, `{"range": {"from", "to", "step"}}` or `{"wildcard": true}`.
        rules: Templates by name, for values that are templates themselves.
        spoken: Words for lists that take anything or that only a real home fills.
        per_list: How many values to keep.
    """
    found = {name: list(words) for name, words in spoken.items()}
    for name, entry in lists.items():
        if "range" in entry:
            bounds = entry["range"]
            first, last, step = int(bounds["from"]), int(bounds["to"]), int(bounds.get("step", 1))
            stride = max(step, (last - first) // per_list // step * step)
            found[name] = [str(number) for number in range(first + stride, last + 1, stride)] or [str(first)]
        elif "values" in entry:
            templates = [value["in"] if isinstance(value, Mapping) else value for value in entry["values"]]
            found[name] = [sentence for template in templates[:per_list] for sentence in sample(str(template), rules, found, 2)]
    return found


class _Parser:
    """Recursive descent over one template."""

    def __init__(self, text: str, rules: Mapping[str, str], values: Values, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise TemplateError(f"{text!r}: rules refer to one another without end")
        self._text, self._rules, self._values, self._depth = text, rules, values, depth
        self._at = 0

    def whole(self) -> Node:
        """The node of the whole template."""
        node = self._alternatives("")
        if self._at != len(self._text):
            raise TemplateError(f"{self._text!r}: {self._text[self._at]!r} at {self._at} closes nothing")
        return node

    def _alternatives(self, closing: str) -> Node:
        choices: list[Node] = []
        permuted = False
        items: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] != closing:
            character = self._text[self._at]
            if character in "|;":
                permuted |= character == ";"
                choices.append(_joined(items))
                items = []
                self._at += 1
            elif character in ")]}>":
                break
            else:
                items.append(self._item(character))
        choices.append(_joined(items))
        if permuted:
            return lambda generator: " ".join(choice(generator) for choice in generator.sample(choices, len(choices)))
        return (lambda generator: generator.choice(choices)(generator)) if len(choices) > 1 else choices[0]

    def _item(self, character: str) -> Node:
        if character == "(":
            return self._bracketed(")")
        if character == "[":
            inner = self._bracketed("]")
            return lambda generator: inner(generator) if generator.random() < 0.5 else ""
        if character == "{":
            return self._list(self._name("}"))
        if character == "<":
            return self._rule(self._name(">"))
        if character == "\\":
            self._at += 1
        start = self._at
        self._at += 1
        while self._at < len(self._text) and self._text[self._at] not in "()[]{}<>|;\\":
            self._at += 1
        text = self._text[start : self._at]
        return lambda _: text

    def _bracketed(self, closing: str) -> Node:
        self._at += 1
        node = self._alternatives(closing)
        if self._at >= len(self._text) or self._text[self._at] != closing:
            raise TemplateError(f"{self._text!r}: {closing!r} is missing")
        self._at += 1
        return node

    def _name(self, closing: str) -> str:
        end = self._text.find(closing, self._at)
        if end < 0:
            raise TemplateError(f"{self._text!r}: {closing!r} is missing")
        name = self._text[self._at + 1 : end].split(":", 1)[0].strip()
        self._at = end + 1
        return name

    def _list(self, name: str) -> Node:
        values = self._values.get(name)
        if not values:
            raise TemplateError(f"{self._text!r}: no values for {{{name}}}")
        return lambda generator: generator.choice(values)

    def _rule(self, name: str) -> Node:
        if name not in self._rules:
            raise TemplateError(f"{self._text!r}: no rule <{name}>")
        return _Parser(self._rules[name], self._rules, self._values, self._depth + 1).whole()


def _joined(items: Sequence[Node]) -> Node:
    return lambda generator: "".join(item(generator) for item in items)
