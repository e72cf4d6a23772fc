"""Which texts a phase reads, found in two passes over its tables of which neither gathers a text.

Tables come in units, each read whenever it is asked for, a batch at a time. The first pass tells each text by a key: a hash, and the way in
which the text is read. From the keys alone whoever leads numbers the distinct texts and says which unit is to tokenise which. The second
pass reads the units again and gives token ids. Numbers follow from the keys, so they owe nothing to files, units or workers.

A key has 61 bits of hash: of ten million texts, two are taken for one another with a probability of 2e-5.

Memory of either pass: a batch of texts and their ids, and of a unit's texts 8 to 30 bytes each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Protocol, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from raysberta.models.load import prompt_tokens, token_ids
from raysberta.prefixes import Prefixes, Side
from raysberta.schema import Split, Task
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import filesystem
from raysberta.storage.on_disk import empty, spans
from raysberta.training.arrays import ROWS_AT_ONCE, Tokens, ranked

BATCH = 4096
"""Rows read at once."""
AT_ONCE = 4096
"""Texts tokenised at once."""
PIECE = 1 << 24
"""Tokens after which a piece ends."""
WAY_BITS = 3
CHARACTERS = 16
"""Of a document for each token of the limit: more than any tokenizer reads, and less than a book."""

Batch: TypeAlias = pa.RecordBatch | pa.Table


class Unit(Protocol):
    """A part of a table, the same whenever it is read. Picklable."""

    def batches(self) -> Iterator[Batch]:
        """Its rows in order, some thousand at a time."""
        ...


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file."""

    uri: str = field(repr=False)
    """Of the artifact: it says where the file is."""
    path: str
    number: int
    columns: tuple[str, ...]
    split: Split | None = None
    """Rows of this split only; all where None."""

    def batches(self) -> Iterator[Batch]:
        """Memory is a batch and what Parquet keeps of a page of each column."""
        columns = [*self.columns, *(["split"] if self.split else [])]
        with filesystem(self.uri)[0].open_input_file(self.path) as stream:
            file = pq.ParquetFile(stream, buffer_size=1 << 20)
            for batch in file.iter_batches(BATCH, [self.number], columns=columns):
                yield batch.filter(pc.equal(batch["split"], self.split)) if self.split else batch


@dataclass(frozen=True)
class Held:
    """A table in memory."""

    table: pa.Table

    def batches(self) -> Iterator[Batch]:
        """Its rows."""
        yield from self.table.to_batches(BATCH)


def row_groups(artifact: Artifact, table: str, columns: Sequence[str], split: Split | None = None) -> list[RowGroup]:
    """The units of a table of an artifact."""
    fs, found = filesystem(artifact.uri)[0], []
    for path in artifact.paths(table):
        with fs.open_input_file(path) as stream:
            groups = pq.ParquetFile(stream).metadata.num_row_groups
        found += [RowGroup(artifact.uri, path, number, tuple(columns), split) for number in range(groups)]
    return found


@dataclass(frozen=True)
class Way:
    """A way of reading a text."""

    prefix: str
    limit: int
    """Tokens, special ones included; longer texts are cut."""
    others: tuple[str, ...] = ()
    """What others that know the text by a prefix of their own have before it."""


@dataclass(frozen=True)
class Reading:
    """How a phase reads its tables."""

    ways: tuple[Way, ...]
    of: Mapping[tuple[Task, Side], int]
    """Which way a side of a task is read."""
    negatives: int = 0
    """Of a row: the first ones."""

    def texts(self, batch: Batch) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Queries, then positives, then negatives, or the beginnings of documents; the way of each, uint64; negatives a row, int64."""
        if "text" in batch.schema.names:
            way = self.of["retrieval", "document"]
            texts = pc.utf8_slice_codeunits(batch["text"], 0, CHARACTERS * self.ways[way].limit).to_pylist()
            there = [text for text in texts if text]
            return there, np.full(len(there), way, np.uint64), np.zeros(0, np.int64)
        tasks = batch["task"].to_pylist()
        queries, documents = (np.asarray([self.of[task, side] for task in tasks], np.uint64) for side in get_args(Side))
        wrong = batch["negatives"].to_pylist() if self.negatives and "negatives" in batch.schema.names else []
        hard = [(texts or [])[: self.negatives] for texts in wrong]
        counts = np.asarray([len(texts) for texts in hard] or np.zeros(len(tasks)), np.int64)
        found = [*batch["query"].to_pylist(), *batch["positive"].to_pylist(), *chain.from_iterable(hard)]
        return found, np.concatenate([queries, documents, np.repeat(documents, counts)]), counts


def reading_of(limits: Mapping[Side, int], prefixes: Prefixes, others: Sequence[Prefixes] = (), negatives: int = 0) -> Reading:
    """Each side of each task with its prefix and its limit.

    Args:
        limits: Tokens of each side.
        prefixes: Of whoever is trained.
        others: Of who else knows the texts, a mining encoder or a teacher.
        negatives: Of a row at most.
    """
    wanted = {
        (task, side): Way(prefixes.of(task, side), limits[side], tuple(other.of(task, side) for other in others))
        for task in get_args(Task)
        for side in get_args(Side)
    }
    ways = tuple(dict.fromkeys(wanted.values()))
    return Reading(ways, {key: ways.index(way) for key, way in wanted.items()}, negatives)


def hashes(texts: Iterable[str]) -> np.ndarray:
    """64 bits of each text, uint64."""
    return np.frombuffer(b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts), "<u8")


@dataclass(frozen=True)
class Known:
    """Texts that somebody else has, each with a prefix of theirs, by number."""

    prefixes: Prefixes
    """What stands before a text."""
    rising: np.ndarray
    """uint64 [texts]: hashes of the texts with their prefix, see `hashes`."""
    row: np.ndarray
    """int [texts]: the number of each."""

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """Numbers of texts by their hashes, int64; -1 where a text is not known."""
        found = empty(len(wanted), np.int64)
        for some in spans(len(wanted), ROWS_AT_ONCE):
            place = np.searchsorted(self.rising, wanted[some])
            place[place == len(self.rising)] = 0
            found[some] = np.where(self.rising[place] == wanted[some], self.row[place], -1) if len(self.rising) else -1
        return found


def known(prefixes: Prefixes, found: np.ndarray) -> Known:
    """Texts numbered in the order of their hashes, uint64 [texts]; of equal ones the first counts."""
    rising, first, _ = ranked(found)
    return Known(prefixes, rising, first)


def keys_of(texts: Sequence[str], ways: np.ndarray) -> np.ndarray:
    """The key of each text, uint64: the text's hash but for its last bits, which are the way."""
    return hashes(texts) >> np.uint64(WAY_BITS) << np.uint64(WAY_BITS) | ways


def distinct(unit: Unit, reading: Reading) -> np.ndarray:
    """Keys of the unit's texts, each once, rising, uint64."""
    found = [np.zeros(0, np.uint64)]
    for batch in unit.batches():
        found.append(np.unique(keys_of(*reading.texts(batch)[:2])))
    return np.unique(np.concatenate(found))


@dataclass(frozen=True)
class Piece:
    """Some texts of a unit, tokenised."""

    keys: np.ndarray
    """uint64 [texts]."""
    lengths: np.ndarray
    """int32 [texts]."""
    values: np.ndarray
    """int32: their ids end to end; none where they are on storage."""
    highest: int
    others: np.ndarray
    """uint64 [texts, others]: hashes of each text as others know it."""
    prompts: np.ndarray
    """int32 [texts]: how many of its first tokens are those of its prefix."""


def pieces(unit: Unit, reading: Reading, wanted: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> Iterator[Piece]:
    """Tokenise texts of a unit, each once.

    Args:
        unit: What has them all.
        reading: As it was when the keys were made.
        wanted: uint64, rising: the keys of the texts.
        tokenizer: Of the encoder to train.
    """
    done = np.zeros(len(wanted), bool)
    parts: list[Piece] = []
    for batch in unit.batches():
        texts, ways, _ = reading.texts(batch)
        keys = keys_of(texts, ways)
        places = np.minimum(np.searchsorted(wanted, keys), max(0, len(wanted) - 1))
        fresh = np.flatnonzero((wanted[places] == keys) & ~done[places]) if len(wanted) else np.zeros(0, np.int64)
        _, first = np.unique(keys[fresh], return_index=True)
        fresh = fresh[first]
        done[places[fresh]] = True
        chosen = [texts[row] for row in fresh.tolist()]
        parts.append(_piece(chosen, keys[fresh], [reading.ways[way] for way in ways[fresh].tolist()], tokenizer))
        if sum(len(part.values) for part in parts) >= PIECE:
            yield _joined(parts)
            parts = []
    if parts:
        yield _joined(parts)


def _piece(texts: Sequence[str], keys: np.ndarray, ways: Sequence[Way], tokenizer: PreTrainedTokenizerFast) -> Piece:
    order = sorted(range(len(texts)), key=lambda row: (ways[row].limit, row))  # few changes of the limit
    ids = [np.asarray(each, np.int32) for each in tokenise(tokenizer, ((ways[row].prefix + texts[row], ways[row].limit) for row in order))]
    before = {way.prefix: prompt_tokens(tokenizer, way.prefix) for way in dict.fromkeys(ways)}
    kinds = len(ways[0].others) if ways else 0
    others = [hashes(ways[row].others[kind] + texts[row] for row in order) for kind in range(kinds)]
    return Piece(
        keys[order],
        np.asarray([len(each) for each in ids], np.int32),
        np.concatenate([np.zeros(0, np.int32), *ids]),
        max((int(each.max(initial=0)) for each in ids), default=0),
        np.stack(others, 1) if others else np.zeros((len(texts), 0), np.uint64),
        np.asarray([before[ways[row].prefix] for row in order], np.int32),
    )


def _joined(parts: Sequence[Piece]) -> Piece:
    filled = [part for part in parts if len(part.keys)] or [parts[0]]
    keys, lengths, values, others, prompts = (
        np.concatenate([getattr(part, name) for part in filled]) for name in ("keys", "lengths", "values", "others", "prompts")
    )
    return Piece(keys, lengths, values, max(part.highest for part in filled), others, prompts)


def laid(keys: np.ndarray, found: Iterable[Piece]) -> tuple[Tokens, np.ndarray]:
    """The tokens of all texts in the order of their keys, and the hashes by which others know them, uint64 [texts, others].

    Args:
        keys: uint64 [texts], rising.
        found: Pieces that have each text once; one is held at a time, but for what ids it has with it. The rest is on this machine's disk.
    """
    part, begin, lengths, prompts = (empty(len(keys), kind) for kind in (np.int32, np.int64, np.int32, np.int32))
    others, values, highest = empty((len(keys), 0), np.uint64), list[np.ndarray](), 0
    for number, piece in enumerate(found):
        values.append(piece.values)
        highest = max(highest, piece.highest)
        if not len(piece.keys):
            continue
        if piece.others.shape[1] > others.shape[1]:
            others = empty((len(keys), piece.others.shape[1]), np.uint64)
        place = np.searchsorted(keys, piece.keys)
        part[place] = number
        begin[place] = np.cumsum(piece.lengths, dtype=np.int64) - piece.lengths
        lengths[place], prompts[place], others[place] = piece.lengths, piece.prompts, piece.others
    held = tuple(values) if any(len(each) for each in values) else ()
    return Tokens(held, part, begin, lengths, highest, prompts), others


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: Iterable[tuple[str, int]]) -> Iterator[list[int]]:
    """Token ids, special tokens included, of (text, limit) in the order given."""
    pending: list[str] = []
    limit = 0
    for text, own_limit in texts:
        if pending and (own_limit != limit or len(pending) == AT_ONCE):
            yield from token_ids(tokenizer, pending, limit)
            pending = []
        pending.append(text)
        limit = own_limit
    if pending:
        yield from token_ids(tokenizer, pending, limit)
