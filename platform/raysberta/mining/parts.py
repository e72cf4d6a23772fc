"""What pairs there are, by source and kind, and how the work on them is divided: into ranges of stable ids.

A *part* is the pairs of one source and kind. Its pairs are divided by the ids of their queries' words, so all pairs of a query are in one
range, and its passages, the texts that may be negatives, by their own ids. How many ranges there are follows from rows and bytes alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysberta.errors import InputError
from raysberta.mining.settings import Examples
from raysberta.schema import Task

RANGE_ROWS = 1 << 14
RANGE_BYTES = 1 << 26
"""A range has about so many rows and bytes of text at most: 64 MiB, so that a process may hold some of them."""
MOST_TAGS = 64

SURVEY = pa.schema(
    [
        ("node", pa.string()),
        ("source", pa.string()),
        ("kind", pa.string()),
        ("task", pa.string()),
        ("language", pa.string()),
        ("pairs", pa.int64()),
        ("pair_bytes", pa.int64()),
        ("passages", pa.int64()),
        ("passage_bytes", pa.int64()),
    ]
)
"""Rows of PAIR counted; passages are their positives and the negatives that they bring."""

Tag = tuple[str, str]
"""The node that a pair is of, and the language of its query."""


@dataclass(frozen=True)
class Part:
    """The pairs of one source and kind."""

    name: str
    """`source/kind`."""
    task: Task
    languages: frozenset[str]
    """Of the pairs that become examples; empty where none of them does."""
    pair_ranges: int
    """0 where no pair becomes an example."""
    passage_ranges: int
    tags: tuple[Tag, ...]
    """Of its passages, in order; each passage has the bits of its tags."""


@dataclass(frozen=True)
class Parts:
    """All parts that have examples or passages, in order of their names."""

    settings: Examples
    every: tuple[Part, ...]
    chosen: Mapping[str, tuple[str, ...]]
    """By node, the names of the parts whose pairs become examples."""
    rows: int
    """Pairs chosen to become examples."""

    def pool(self, number: int) -> list[tuple[int, int]]:
        """The parts whose passages may be negatives of a part, each with the bits of the tags that may.

        They are its own, in the languages asked for, and for retrieval pairs all passages of retrieval pairs of the further candidates
        whose query is in a language of the part.
        """
        part = self.every[number]
        found = []
        for other, home in enumerate(self.every):
            bits = 0
            for bit, (node, language) in enumerate(home.tags):
                own = other == number and _spoken(language, self.settings.languages)
                further = part.task == home.task == "retrieval" and node in self.settings.candidates and language in part.languages
                bits |= (own or further) << bit
            if bits:
                found.append((other, bits))
        return found


def survey(pairs: pa.Table, node: str) -> pa.Table:
    """Rows of SURVEY for rows of PAIR of one node."""
    brought = pc.fill_null(pc.list_value_length(pairs["negatives"]), 0)
    owners = pc.list_parent_indices(pairs["negatives"].combine_chunks())
    sizes = np.bincount(owners.to_numpy(), pc.binary_length(pc.list_flatten(pairs["negatives"])).to_numpy(), len(pairs)).astype(np.int64)
    passages = pc.add(pc.binary_length(pairs["positive"]), pa.array(sizes))
    table = pa.table(
        {
            **{name: pairs[name] for name in ("source", "kind", "task", "language")},
            "pairs": pa.array(np.ones(len(pairs), np.int64)),
            "pair_bytes": pc.cast(pc.add(passages, pc.binary_length(pairs["query"])), pa.int64()),
            "passages": pc.cast(pc.add(brought, 1), pa.int64()),
            "passage_bytes": pc.cast(passages, pa.int64()),
        }
    )
    names = ["source", "kind", "task", "language"]
    counted = table.group_by(names).aggregate([(name, "sum") for name in SURVEY.names[5:]])
    counted = counted.rename_columns([name.removesuffix("_sum") for name in counted.column_names])
    return counted.append_column("node", pa.array([node] * len(counted), pa.string())).select(SURVEY.names).cast(SURVEY)


def make_parts(surveys: Sequence[pa.Table], settings: Examples, node: str) -> Parts:
    """Choose the pairs, and divide the work.

    Args:
        surveys: Rows of SURVEY, all of them.
        settings: Which pairs become examples, and whose passages may be negatives.
        node: Of the recipe, for messages.

    Raises:
        InputError: a pattern of `only` fits nothing, or a part has more than 64 nodes and languages.
    """
    rows = pa.concat_tables([SURVEY.empty_table(), *surveys]).to_pylist()
    there = sorted({_name(row) for row in rows if row["node"] in settings.pairs})
    wanted = set(_matching(there, settings.only, node))
    named = [row for row in rows if row["node"] in settings.pairs and _name(row) in wanted]
    chosen = [row for row in named if _spoken(row["language"], settings.languages)]
    mined = {_name(row) for row in chosen}
    asked = {row["language"] for row in chosen if row["task"] == "retrieval"}

    def used(row: dict) -> bool:
        own = _name(row) in mined and _spoken(row["language"], settings.languages)
        return own or (row["node"] in settings.candidates and row["task"] == "retrieval" and row["language"] in asked)

    every = []
    for name in sorted({_name(row) for row in rows if used(row)}):
        own, texts = [row for row in chosen if _name(row) == name], [row for row in rows if _name(row) == name and used(row)]
        tags = tuple(sorted({(row["node"], row["language"]) for row in texts}))
        if len(tags) > MOST_TAGS:
            raise InputError(f"examples.{node}: {name} has pairs of {len(tags)} nodes and languages; right would be {MOST_TAGS} at most")
        languages = frozenset(row["language"] for row in own)
        ranges = _ranges(own, "pairs", "pair_bytes"), _ranges(texts, "passages", "passage_bytes")
        every.append(Part(name, min(row["task"] for row in texts), languages, *ranges, tags))
    by_node = {str(name): tuple(sorted({_name(row) for row in chosen if row["node"] == name})) for name in settings.pairs}
    return Parts(settings, tuple(every), by_node, sum(row["pairs"] for row in chosen))


def _spoken(language: str, languages: Sequence[str]) -> bool:
    return not languages or language in languages


def _name(row: Mapping[str, str]) -> str:
    return f"{row['source']}/{row['kind']}"


def _matching(there: Sequence[str], only: Sequence[str], node: str) -> list[str]:
    """The names that fit one of the patterns; all where there is none."""
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in there):
            raise InputError(f"examples.{node}.only: no pairs are {pattern!r}; there are {', '.join(there) or 'none at all'}")
    return [name for name in there if not only or any(fnmatchcase(name, pattern) for pattern in only)]


def _ranges(rows: Sequence[Mapping[str, int]], count: str, size: str) -> int:
    return max(-(-sum(row[count] for row in rows) // RANGE_ROWS), -(-sum(row[size] for row in rows) // RANGE_BYTES))
