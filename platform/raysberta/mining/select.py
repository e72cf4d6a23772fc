"""Which pairs become examples, and from which of them a pair's negatives may come."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from raysberta.errors import InputError


def keys(pairs: pa.Table) -> pa.ChunkedArray:
    """`source/kind` of each row."""
    return pc.binary_join_element_wise(pairs["source"], pairs["kind"], "/")


def select(pairs: pa.Table, only: Sequence[str], languages: Sequence[str], node: str) -> pa.Table:
    """The rows whose `source/kind` fits one of the patterns and whose query is in one of the languages; an empty list lets all through.

    Raises:
        InputError: a pattern fits nothing.
    """
    if only:
        there = sorted(set(keys(pairs).to_pylist()))
        for pattern in only:
            if not any(fnmatchcase(key, pattern) for key in there):
                raise InputError(f"examples.{node}.only: no pairs are {pattern!r}; there are {', '.join(there) or 'none at all'}")
        wanted = [key for key in there if any(fnmatchcase(key, pattern) for pattern in only)]
        pairs = pairs.filter(pc.is_in(keys(pairs), pa.array(wanted, pa.string())))
    if languages:
        pairs = pairs.filter(pc.is_in(pairs["language"], pa.array(languages, pa.string())))
    return pairs


def sound(pairs: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Without rows that have an empty side or the id of an earlier one; and how many these were, by reason."""
    empty = pc.or_(*(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pairs[side])), 0) for side in ("query", "positive")))
    ids = pairs["pair_id"].to_pylist()
    first = {name: row for row, name in reversed(list(enumerate(ids)))}
    again = pa.array([first[name] != row for row, name in enumerate(ids)], pa.bool_())
    left_out = {
        "empty_text": pc.sum(empty).as_py() or 0,
        "duplicate_id": pc.sum(pc.and_(again, pc.invert(empty))).as_py() or 0,
    }
    return pairs.filter(pc.invert(pc.or_(empty, again))).combine_chunks(), left_out


def pool_of(part: pa.Table, tables: Mapping[str, pa.Table], candidates: Collection[str], languages: Sequence[str]) -> pa.Table:
    """The rows whose positives may be negatives of a part.

    They are the pairs of the same source and kind, in the languages asked for, and for retrieval pairs all retrieval pairs of the further
    candidates whose query is in a language of the part.

    Args:
        part: Rows of PAIR of one source and kind.
        tables: All pairs by the name of their node, each once.
        candidates: The names whose retrieval pairs are further candidates.
        languages: Of the own source and kind; all where empty.
    """
    further = part["task"][0].as_py() == "retrieval"
    found = []
    for name, table in tables.items():
        taken = pc.and_(pc.equal(table["source"], part["source"][0]), pc.equal(table["kind"], part["kind"][0]))
        if languages:
            taken = pc.and_(taken, pc.is_in(table["language"], pa.array(languages, pa.string())))
        if further and name in candidates:
            spoken = pc.is_in(table["language"], part["language"].unique())
            taken = pc.or_(taken, pc.and_(spoken, pc.equal(table["task"], "retrieval")))
        found.append(table.filter(taken))
    return pa.concat_tables(found)
