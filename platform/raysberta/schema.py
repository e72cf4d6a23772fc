"""The columns that flow between stages, as Arrow schemas. Every table a stage writes has one of these.

A *document* is one unit of raw text, whole. A *pair* is a query and the text that answers it. An *example* is a pair with its
mined negatives. `group` ties together what must never be split between train, dev and test (all senses of a word, all
docstrings of a file); `split` follows from the group alone, so it is the same in every run and on every cluster layout.
"""

import hashlib
from typing import Literal

import pyarrow as pa

Split = Literal["train", "dev", "test"]
Task = Literal["retrieval", "paraphrase", "topic", "classification"]
SELF_PAIR = "text"
"""The kind of pairs whose two sides are one text."""

DOCUMENT = pa.schema(
    [
        ("doc_id", pa.string()),  # stable: text_id of source and content, never a row number
        ("group", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),  # the name that the recipe gives the source
        ("language", pa.string()),  # ISO 639-1
        ("title", pa.string()),  # headword, summary line, page title; "" where there is none
        ("text", pa.string()),
        ("label", pa.string()),  # class for classification and clustering tasks; "" where there is none
        # headings with their text; a usage example has the heading "usage", the other side of a translation "translation"
        ("sections", pa.list_(pa.struct([("heading", pa.string()), ("text", pa.string())]))),
    ]
)

REJECTED = pa.schema([*DOCUMENT, ("reason", pa.string()), ("score", pa.float64())])

PAIR = pa.schema(
    [
        ("pair_id", pa.string()),
        ("doc_id", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("kind", pa.string()),  # what the two sides are: term_definition, summary_body, ...
        ("task", pa.string()),  # one of Task: decides the prefixes
        ("language", pa.string()),  # of the query
        ("query", pa.string()),  # without prefix, as every text in every table
        ("positive", pa.string()),
        ("negatives", pa.list_(pa.string())),  # those the source supplies; [] where it supplies none
        ("given_score", pa.float32()),  # what the source scores the pair with; null where it gives none
    ]
)

REJECTED_PAIR = pa.schema([*PAIR, ("reason", pa.string()), ("score", pa.float64())])

EXAMPLE = pa.schema(
    [
        *PAIR,  # here `negatives` holds the supplied and the mined ones
        ("positive_score", pa.float32()),  # cosine of the mining encoder
        ("negative_scores", pa.list_(pa.float32())),  # NaN for a supplied negative that was not scored
        ("negative_ranks", pa.list_(pa.int32())),  # -1 for a supplied negative
    ]
)


def text_id(*parts: str) -> str:
    """16 hex digits of the SHA-256 of the parts; parts are length-prefixed, so ("ab", "c") differs from ("a", "bc")."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def split_of(group: str, dev: float, test: float) -> Split:
    """The split of a group: a hash of its name against the shares, so no run, order or machine can move it."""
    point = int.from_bytes(hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()[:8], "little") / 2**64
    if point < test:
        return "test"
    return "dev" if point < test + dev else "train"
