"""The texts that a vocabulary is fitted to: both sides of the training pairs, and training documents, in batches.

Never those of dev or test: a sample of dev texts is read to tell how they are cut, and decides nothing.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from raysberta.prefixes import Prefixes, Side
from raysberta.schema import Split, Task
from raysberta.storage.scan import scan

TRAIN = pads.field("split") == "train"
TASKS: tuple[Task, ...] = get_args(Task)
SIDES: tuple[Side, ...] = get_args(Side)
BATCH = 4096
"""Most pairs that are held at once."""
DOCUMENTS = 256
"""Most documents that are held at once."""
SAMPLE = 2000


def count_pairs(pairs: Sequence[pads.Dataset]) -> int:
    """How many training pairs there are."""
    return sum(table.count_rows(filter=TRAIN) for table in pairs)


def training_texts(pairs: Sequence[pads.Dataset], read: Prefixes, own: Prefixes, at_most: int | None = None) -> Iterator[list[str]]:
    """Both sides of the training pairs as a model reads them, in batches; all prefixes first.

    Args:
        pairs: Tables of pairs.
        read: Prefixes that the texts are read with.
        own: The model's own, whose pieces stay as well.
        at_most: Of more pairs about so many, chosen by their ids; all where None.
    """
    yield [prefixes.of(task, side) for prefixes in (read, own) for task in TASKS for side in SIDES]
    chosen = _about(TRAIN, at_most / max(count_pairs(pairs), 1)) if at_most else TRAIN
    for table in pairs:
        for batch in scan(table, ["task", "query", "positive"], chosen, BATCH):
            tasks = batch["task"].to_pylist()
            for column, side in (("query", SIDES[0]), ("positive", SIDES[1])):
                yield [read.of(task, side) + text for task, text in zip(tasks, batch[column].to_pylist(), strict=True)]


def _about(chosen: pc.Expression, share: float) -> pc.Expression:
    """About a share of the chosen pairs, by their ids; all, and no id is read, where it is 1 or more."""
    if share >= 1:
        return chosen
    # limits kept the pairs of lowest ids: the latter half of an id, 8 hex digits, is still evenly spread
    return chosen & (pc.utf8_slice_codeunits(pads.field("pair_id"), 8) < f"{int(share * 2**32):08x}")


def translations(pairs: Sequence[pads.Dataset], wanted: Sequence[str], at_most: int) -> Iterator[tuple[list[str], list[str]]]:
    """Both sides of the training pairs that are translations, in batches.

    Args:
        pairs: Tables of pairs.
        wanted: Which are, as `source/kind`, `*` standing for anything.
        at_most: Of more about so many, chosen by their ids.
    """
    name = pc.binary_join_element_wise(pads.field("source"), pads.field("kind"), "/")
    names: set[str] = set()
    for table in pairs:
        for batch in scan(table, {"name": name}, TRAIN, BATCH):
            names |= set(batch["name"].unique().to_pylist())
    matched = [each for each in sorted(names) if any(fnmatchcase(each, pattern) for pattern in wanted)]
    chosen = TRAIN & pc.is_in(name, pa.array(matched, pa.string()))
    chosen = _about(chosen, at_most / max(sum(table.count_rows(filter=chosen) for table in pairs), 1))
    for table in pairs:
        for batch in scan(table, ["query", "positive"], chosen, BATCH):
            yield batch["query"].to_pylist(), batch["positive"].to_pylist()


def document_texts(documents: pads.Dataset) -> Iterator[list[str]]:
    """Titles, texts and sections of the training documents, without prefixes, in batches."""
    for batch in scan(documents, ["title", "text", "sections"], TRAIN, DOCUMENTS):
        yield [text for column in ("title", "text") for text in batch[column].to_pylist() if text]
        yield [section["text"] for sections in batch["sections"].to_pylist() for section in sections if section["text"]]


def language_texts(pairs: Sequence[pads.Dataset], language: str) -> Iterator[list[str]]:
    """The sides of the training pairs that are in a language, in batches: of a translation, whose sides differ, the query."""
    chosen = TRAIN & (pads.field("language") == language)
    for table in pairs:
        for batch in scan(table, ["kind", "query", "positive"], chosen, BATCH):
            yield batch["query"].to_pylist()
            yield batch.filter(pc.not_equal(batch["kind"], "translation"))["positive"].to_pylist()


def sample_texts(pairs: Sequence[pads.Dataset], split: Split = "train") -> dict[str, list[str]]:
    """Up to SAMPLE positives of a split's pairs a language, those with the lowest ids; translations, whose sides differ, by their query."""
    lowest: dict[str, pa.Table] = {}
    chosen = pads.field("split") == split
    columns = ["pair_id", "language", "kind", "query", "positive"]
    for batch in (batch for table in pairs for batch in scan(table, columns, chosen, BATCH)):
        table = pa.Table.from_batches([batch])
        for language in table["language"].unique().to_pylist():
            more = table.filter(pc.equal(table["language"], language))
            seen = pa.concat_tables([lowest[language], more]) if language in lowest else more
            lowest[language] = seen.take(pc.select_k_unstable(seen, min(SAMPLE, len(seen)), [("pair_id", "ascending")]))
    found = {}
    for language, table in sorted(lowest.items()):
        rows = table.sort_by("pair_id").select(["kind", "query", "positive"]).to_pylist()
        found[language] = [row["query"] if row["kind"] == "translation" else row["positive"] for row in rows]
    return found
