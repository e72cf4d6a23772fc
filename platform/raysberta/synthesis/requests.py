"""Which passages are written for, and the two tables of the stage: requests with their answers, and the pairs that come of them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from raysberta.pairs.text import cut, normalise
from raysberta.schema import PAIR, Task, text_id

READ = ["doc_id", "group", "source", "language", "title", "text"]
"""The columns of DOCUMENT that are read."""

MIN_PASSAGE_CHARACTERS = 60
"""A shorter passage says too little to ask about."""

SOURCE = "synthetic"

GENERATION = pa.schema(
    [
        ("request_id", pa.string()),
        ("doc_id", pa.string()),
        ("group", pa.string()),
        ("language", pa.string()),
        ("engine", pa.string()),
        ("kind", pa.string()),
        ("title", pa.string()),
        ("passage", pa.string()),
        ("output", pa.string()),  # as it was written; what is kept of it is the pair's query
        ("error", pa.string()),  # "" where nothing failed
        ("reason", pa.string()),  # why it was not kept; "" where it was
        ("rank", pa.int32()),  # of the passage for the query; -1 where it was not looked up
    ]
)

TASKS: dict[str, Task] = {"llm_query": "retrieval", "llm_paraphrase": "paraphrase", "seq2seq_question": "retrieval"}
"""Kinds of synthetic pairs with their tasks."""


def candidates(documents: pads.Dataset, language: str, sources: Sequence[str], count: int, seed: int) -> pa.Table:
    """Up to `count` training documents, columns READ, the first by hash of seed and id; ids are read first, texts only of those.

    Args:
        documents: Schema DOCUMENT.
        language: Of the texts.
        sources: Only from these; from all where empty.
        count: How many at most.
        seed: Of the recipe.
    """
    fits = (pc.field("split") == "train") & (pc.field("language") == language)
    if sources:
        fits &= pc.field("source").isin(list(sources))
    ids = documents.to_table(columns=["doc_id"], filter=fits)["doc_id"].to_pylist()
    first = sorted(set(ids), key=lambda doc_id: text_id("synthesis", str(seed), doc_id))[:count]
    return documents.to_table(columns=READ, filter=fits & pc.field("doc_id").isin(pa.array(first, pa.string())))


def choose(documents: pa.Table, count: int, max_characters: int, seed: int) -> pa.Table:
    """The passages to write for: of distinct text, long enough, the first `count` by hash of seed and id.

    Args:
        documents: Columns READ; those that may be chosen from.
        count: How many at most.
        max_characters: A passage is cut at a sentence end before this.
        seed: Of the recipe.

    Returns:
        Columns READ with `text` cut, in order of the hash.
    """
    rows = sorted(documents.select(READ).to_pylist(), key=lambda row: text_id("synthesis", str(seed), row["doc_id"]))
    chosen: list[dict[str, str]] = []
    seen: set[str] = set()
    for row in rows:
        if len(chosen) == count:
            break
        row["text"] = cut(row["text"], max_characters)
        key = normalise(row["text"])
        if len(key) >= MIN_PASSAGE_CHARACTERS and key not in seen:
            seen.add(key)
            chosen.append(row)
    return pa.Table.from_pylist(chosen, pa.schema([(name, pa.string()) for name in READ]))


def requests(passages: pa.Table, engine: str, kinds: Sequence[str]) -> pa.Table:
    """One unanswered request a passage and kind, schema GENERATION, sorted by request_id."""
    rows = [
        {
            "request_id": text_id(engine, kind, row["doc_id"]),
            **{name: row[name] for name in ("doc_id", "group", "language", "title")},
            "engine": engine,
            "kind": kind,
            "passage": row["text"],
            "output": "",
            "error": "",
            "reason": "",
            "rank": -1,
        }
        for row in passages.to_pylist()
        for kind in kinds
    ]
    return pa.Table.from_pylist(rows, GENERATION).sort_by("request_id")


def pair_of(generation: dict[str, str], query: str) -> dict[str, object]:
    """The row of schema PAIR that a kept answer gives."""
    return {
        "pair_id": text_id(SOURCE, generation["kind"], generation["doc_id"], query, generation["passage"]),
        "doc_id": generation["doc_id"],
        "group": generation["group"],
        "split": "train",
        "source": SOURCE,
        "kind": generation["kind"],
        "task": TASKS[generation["kind"]],
        "language": generation["language"],
        "query": query,
        "positive": generation["passage"],
        "negatives": [],
    }


def pairs_table(rows: Sequence[dict[str, object]]) -> pa.Table:
    """Schema PAIR, each id once, sorted by pair_id."""
    distinct = {str(row["pair_id"]): row for row in rows}
    return pa.Table.from_pylist(list(distinct.values()), PAIR).sort_by("pair_id")
