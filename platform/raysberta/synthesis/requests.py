"""Which passages are written for, and the two tables of the stage: requests with their answers, and the pairs that come of them."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from raysberta.pairs.text import cut, normalise
from raysberta.schema import PAIR, Task, text_id
from raysberta.storage.on_disk import joined
from raysberta.storage.scan import scan

READ = ["doc_id", "group", "source", "language", "title", "text"]
"""The columns of DOCUMENT that are read."""
READ_SCHEMA = pa.schema([(name, pa.large_string() if name == "text" else pa.string()) for name in READ])
"""Texts may be more than a column of strings holds."""
BATCH = 4096
"""Documents read at once."""

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


def candidates(documents: pads.Dataset, language: str, sources: Sequence[str], count: int, max_characters: int, seed: int) -> pa.Table:
    """Up to `count` training documents, columns READ, those with the smallest hash of seed and id, in its order.

    Memory: 16 bytes of each document of the language, and what is chosen, twice.

    Args:
        documents: Schema DOCUMENT.
        language: Of the texts.
        sources: Only from these; from all where empty.
        count: How many at most.
        max_characters: A text is cut at a sentence end before this.
        seed: Of the recipe.
    """
    fits = (pc.field("split") == "train") & (pc.field("language") == language)
    if sources:
        fits &= pc.field("source").isin(list(sources))
    places = np.unique(joined((_places(batch, seed) for batch in scan(documents, ["doc_id"], fits, BATCH)), np.uint64))[:count]
    if not len(places):
        return READ_SCHEMA.empty_table()
    found, order = [READ_SCHEMA.empty_table()], [places[:0]]
    for batch in scan(documents, READ, fits, BATCH):
        here = _places(batch, seed)
        early = here <= places[-1]
        some = pa.Table.from_batches([batch.filter(pa.array(early))])
        texts = pa.array([cut(text, max_characters) for text in some["text"].to_pylist()], pa.large_string())
        found.append(some.set_column(READ.index("text"), "text", texts).cast(READ_SCHEMA))
        order.append(here[early])
    return pa.concat_tables(found).take(pa.array(np.argsort(np.concatenate(order), kind="stable")))


def _places(documents: pa.RecordBatch, seed: int) -> np.ndarray:
    """Hashes of seed and id, uint64."""
    return np.asarray([int(text_id("synthesis", str(seed), each), 16) for each in documents["doc_id"].to_pylist()], np.uint64)


def choose(documents: pa.Table, count: int) -> pa.Table:
    """The first `count` documents whose text is long enough and stands in none before, but for case and blanks.

    Args:
        documents: With a column `text`.
        count: How many at most.
    """
    kept: list[int] = []
    seen: set[bytes] = set()
    for number, key in enumerate(keys(documents["text"])):
        if len(kept) == count:
            break
        if len(key) >= MIN_PASSAGE_CHARACTERS and (mark := digest(key)) not in seen:
            seen.add(mark)
            kept.append(number)
    return documents.take(pa.array(kept, pa.int64()))


def keys(texts: pa.ChunkedArray) -> Iterator[str]:
    """What texts are told apart by, some thousand of them as Python has them."""
    return (normalise(text) for batch in pa.table([texts], ["text"]).to_batches(BATCH) for text in batch["text"].to_pylist())


def digest(key: str) -> bytes:
    """Sixteen bytes that stand for a key."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


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
