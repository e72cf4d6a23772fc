"""Examples made ready for training: every distinct text tokenised once, rows as numbers, in plain arrays.

A *sequence* is a text with its prefix, cut to its limit, as token ids. `raw` says which sequences are the same text when the
prefix is left off: duplicates and false negatives are judged by text, not by prefix.

Whoever makes them holds no texts, and numbers of rows and texts on this machine's disk (storage/on_disk.py), some 500 bytes of a row with
seven negatives that no other row has; in memory are some 35 bytes of a row, and what sorting takes (arrays.py). Whoever reads them maps the
arrays and reads what a step needs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import starmap
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.describe import positions
from raysberta.models.model import Model
from raysberta.models.parts import Connector, Decoder
from raysberta.prefixes import Prefixes
from raysberta.storage.on_disk import Growing, empty, joined, spans
from raysberta.training.arrays import ROWS_AT_ONCE, Ragged, Tokens, dealt, grouped, map_arrays, parts_of, ranked, taken, write_arrays
from raysberta.training.guide import Guide, Guided
from raysberta.training.survey import WAY_BITS, Held, Known, Piece, Reading, Unit, hashes, keys_of, laid, pieces, reading_of

COLUMNS = ("pair_id", "group", "source", "kind", "task", "query", "positive", "negatives", "positive_score", "negative_scores")

Each = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]
"""Calls a function with each of some arguments and gives the results in order: `itertools.starmap`, or the same on other machines."""


@dataclass(frozen=True)
class Examples:
    """Rows of (query, positive, negatives) over tokenised sequences."""

    tokens: Tokens
    """Token ids of each sequence, special tokens included."""
    raw: np.ndarray
    """int32 [sequences]: the text of a sequence without its prefix."""
    sources: tuple[str, ...]
    """Names `source/kind`."""
    source: np.ndarray
    """int32 [rows]: index into `sources`."""
    query: np.ndarray
    """int32 [rows]: a sequence."""
    positive: np.ndarray
    """int32 [rows]: a sequence."""
    negatives: Ragged
    """Sequences of each row's hard negatives."""
    friends: Ragged
    """For each text (as in `raw`) those that answer it in any row, itself among them, rising: never negatives for it as a query. Of a text
    that is only ever a hard negative none."""
    group: np.ndarray
    """int32 [rows]: what the row's pair belongs to: a word's senses, a file, a class."""
    groups: Ragged
    """Groups of each text (as in `raw`), those of all rows that it is a side of, rising: never negatives for a row of one of them."""
    ids: np.ndarray
    """bytes [rows]: pair ids, to name rows in messages."""
    positive_score: np.ndarray
    """float32 [rows]: the teacher's score of query and positive, NaN where it gave none."""
    negative_score: np.ndarray
    """float32 [values of negatives]: the same of query and negative."""
    guide: Guided = field(default_factory=Guided)
    """The mining encoder's vectors of the sequences."""
    taught: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 [sequences]: rows of a teacher's vectors; none without a teacher."""

    def __len__(self) -> int:
        return len(self.source)

    def save(self, place: str) -> None:
        """Write a folder of arrays; parts of the tokens and of the guide that lie there already are not here and stay."""
        arrays: dict[str, np.ndarray] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Ragged):
                arrays[f"{item.name}.values"], arrays[f"{item.name}.offsets"] = value.values, value.offsets
            elif isinstance(value, Tokens | Guided):
                arrays |= value.arrays()
            elif item.name != "sources":
                arrays[item.name] = value
        write_arrays(place, arrays, {"sources": self.sources})

    @classmethod
    def load(cls, place: str) -> "Examples":
        """Map what `save` wrote.

        Raises:
            FileNotFoundError: nothing whole is there.
        """
        arrays, told = map_arrays(place)
        found: dict[str, Any] = {"sources": tuple(told["sources"]), "tokens": Tokens.of(arrays), "guide": Guided.of(arrays)}
        for item in fields(cls):
            if f"{item.name}.values" in arrays:
                found[item.name] = Ragged(arrays[f"{item.name}.values"], arrays[f"{item.name}.offsets"])
            elif item.name not in found:
                found[item.name] = arrays[item.name]
        return cls(**found)


@dataclass(frozen=True)
class Survey:
    """Rows of a unit, without texts."""

    query: np.ndarray
    """uint64 [rows]: keys."""
    positive: np.ndarray
    negatives: Ragged
    """uint64: keys."""
    negative_score: np.ndarray
    rows: pa.Table
    """Columns id, name, group (its hash) and score."""


def survey(unit: Unit, reading: Reading) -> Survey:
    """A unit's rows as numbers. Memory: a batch, and about 150 bytes of each row."""
    found = [_surveyed(batch, reading) for batch in unit.batches()] or [_surveyed(EMPTY, reading)]
    query, positive, scores = (np.concatenate([getattr(part, name) for part in found]) for name in ("query", "positive", "negative_score"))
    return Survey(query, positive, _stacked([part.negatives for part in found]), scores, pa.concat_tables([part.rows for part in found]))


EMPTY = pa.table({name: pa.array([], pa.list_(pa.null()) if name.startswith("negative") else pa.string()) for name in COLUMNS})


def _surveyed(batch: pa.RecordBatch | pa.Table, reading: Reading) -> Survey:
    texts, ways, counts = reading.texts(batch)
    keys, rows = keys_of(texts, ways), batch.num_rows
    scores = [np.nan if score is None else score for score in batch["positive_score"].to_pylist()]
    given = zip(batch["negative_scores"].to_pylist(), counts.tolist(), strict=True)
    hard = [[np.nan if score is None else score for score in [*(each or []), *[None] * count][:count]] for each, count in given]
    names = [f"{source}/{kind}" for source, kind in zip(batch["source"].to_pylist(), batch["kind"].to_pylist(), strict=True)]
    table = {
        "id": pa.array(batch["pair_id"].to_pylist(), pa.large_string()),
        "name": pa.array(names, pa.string()).dictionary_encode(),
        "group": pa.array(hashes(batch["group"].to_pylist())),
        "score": pa.array(scores, pa.float32()),
    }
    offsets = np.concatenate([[0], np.cumsum(counts)])
    flat = np.asarray([score for each in hard for score in each], np.float32)
    return Survey(keys[:rows], keys[rows : 2 * rows], Ragged(keys[2 * rows :], offsets), flat, pa.table(table))


def _stacked(parts: Sequence[Ragged]) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))])
    return Ragged(np.concatenate([part.values for part in parts]), offsets)


class _Rows:
    """The surveys of all units, put down on this machine's disk as they come."""

    def __init__(self, surveys: Iterable[Survey]) -> None:
        """Two of them are held at a time."""
        sides = [Growing(np.uint64) for _ in range(3)]
        score, counts, wrong_score = Growing(np.float32), Growing(np.int64), Growing(np.float32)
        group, name, characters, lengths = Growing(np.uint64), Growing(np.int32), Growing(np.uint8), Growing(np.int64)
        sizes, names = list[tuple[int, ...]](), dict[str, int]()
        for each in surveys:
            keys = each.query, each.positive, each.negatives.values
            sizes.append(tuple(len(side) for side in keys))
            for side, found in zip(sides, keys, strict=True):
                side.add(found)
            counts.add(each.negatives.lengths)
            wrong_score.add(each.negative_score)
            score.add(each.rows["score"].to_numpy())
            group.add(each.rows["group"].to_numpy())
            for chunk in each.rows["name"].chunks:
                own = [names.setdefault(one, len(names)) for one in chunk.dictionary.to_pylist()]
                name.add(np.asarray([*own, 0], np.int32)[chunk.indices.to_numpy()])
            for chunk in each.rows["id"].chunks:
                ends = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
                lengths.add(np.diff(ends))
                if chunk.buffers()[2] is not None:
                    characters.add(np.frombuffer(chunk.buffers()[2], np.uint8)[ends[0] : ends[-1]])
        self.sizes = [size for side in zip(*sizes, strict=True) for size in side]
        """Of the queries of each unit, then of their positives, then of their negatives."""
        self.units = len(sizes)
        self.keys = joined((side.whole() for side in sides), np.uint64)
        self.score, self.group, self.name, self.names = score.whole(), group.whole(), name.whole(), list(names)
        self.negatives = _ends(counts)
        self.negative_score = wrong_score.whole()
        ends, held = _ends(lengths), characters.whole()
        self.ids = pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(held))

    def __len__(self) -> int:
        return len(self.score)


def _ends(lengths: Growing) -> np.ndarray:
    """Where rows of such lengths begin, and the end of the last one: int64 [rows + 1]."""
    found = joined((np.zeros(1, np.int64), lengths.whole()), np.int64)
    np.cumsum(found, out=found)
    return found


def numbered(surveys: Iterable[Survey]) -> tuple[Examples, np.ndarray, Ragged]:
    """Rows in the order of their ids, sequences in the order of their keys. What is large of it lies on this machine's disk.

    Args:
        surveys: Of all units; two are held at a time.

    Returns:
        Examples without tokens, the keys of the sequences, uint64, rising, and for each unit those it is to tokenise.

    Raises:
        InputError: there is no row at all.
    """
    held = _Rows(surveys)
    if not len(held):
        raise InputError("no training example at all; right would be at least one source with pairs in its training split")
    keys, first, number = ranked(held.keys)
    wanted = dealt(keys, parts_of(first, held.sizes, held.units), held.units)
    order = pc.sort_indices(held.ids).to_numpy()
    rows = len(held)
    query, positive = taken(number[:rows], order), taken(number[rows : 2 * rows], order)
    raw = _texts(keys)
    left, right, count = taken(raw, query), taken(raw, positive), int(raw[-1]) + 1
    group = ranked(taken(held.group, order))[2]
    sources = tuple(sorted(held.names))
    examples = Examples(
        tokens=Tokens((), np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int32), 0, np.zeros(0, np.int32)),
        raw=raw,
        sources=sources,
        source=taken(np.asarray([sources.index(name) for name in held.names], np.int32), taken(held.name, order)),
        query=query,
        positive=positive,
        negatives=Ragged(number[2 * rows :], held.negatives).take(order),
        friends=grouped(joined((left, right, left, right), np.int32), joined((right, left, left, right), np.int32), count),
        group=group,
        groups=grouped(joined((left, right), np.int32), joined((group, group), np.int32), count),
        ids=_bytes(held.ids, order),
        positive_score=taken(held.score, order),
        negative_score=Ragged(held.negative_score, held.negatives).take(order).values,
    )
    return examples, keys, wanted


def _texts(keys: np.ndarray) -> np.ndarray:
    """The number of each key's text, whatever the way in which it is read, int32."""
    found, text, count = empty(len(keys), np.int32), keys[0] >> np.uint64(WAY_BITS), 0
    for some in spans(len(keys), ROWS_AT_ONCE):
        texts = keys[some] >> np.uint64(WAY_BITS)
        found[some] = count + np.cumsum(np.diff(texts, prepend=text) != 0)
        text, count = texts[-1], int(found[some][-1])
    return found


def _bytes(ids: pa.LargeStringArray, order: np.ndarray) -> np.ndarray:
    """Strings in an order as bytes [rows], as long as the longest; some of them at a time as Python has them."""
    found = empty(len(order), f"S{pc.max(pc.binary_length(ids)).as_py()}")
    for some in spans(len(order), ROWS_AT_ONCE):
        found[some] = ids.take(pa.array(order[some])).cast(pa.large_binary()).to_pylist()
    return found


def prepare(
    units: Sequence[Unit],
    reading: Reading,
    tokenised: Callable[[int, Unit, np.ndarray], Iterable[Piece]],
    guide: Guide | None = None,
    teacher: Known | None = None,
    each: Each = starmap,
) -> Examples:
    """Examples of the rows of all units, in two passes over them.

    Args:
        units: Tables of the columns in COLUMNS.
        reading: How sides are read; its ways tell what the guide has before a text, then what the teacher has.
        tokenised: The second pass over a unit, by its number: gives the pieces of its texts of some keys. Picklable if `each` needs that.
        guide: The mining encoder's vectors, where they are to mask negatives.
        teacher: Where the vectors of a teacher are that reads all these texts.
        each: Where the passes run.

    Raises:
        InputError: there is no row at all.
    """
    examples, keys, wanted = numbered(each(survey, [(unit, reading) for unit in units]))
    found = each(tokenised, ((number, unit, wanted[number]) for number, unit in enumerate(units)))
    tokens, others = laid(keys, (piece for of_unit in found for piece in of_unit))
    given: dict[str, Any] = {item.name: getattr(examples, item.name) for item in fields(examples)}
    if guide is not None:
        given["guide"] = Guided(guide.known.rows(others[:, 0]), guide.parts)
    if teacher is not None:
        given["taught"] = teacher.rows(others[:, -1])
    return Examples(**{**given, "tokens": tokens})


def prepare_tables(
    tables: Sequence[pa.Table],
    tokenizer: PreTrainedTokenizerFast,
    prefixes: Prefixes,
    query_tokens: int,
    document_tokens: int,
    negatives: int,
    guide: Guide | None = None,
    teacher: Known | None = None,
) -> Examples:
    """Examples of tables in memory, tokens in memory too: for trials and for what is small.

    Args:
        tables: Of the columns in COLUMNS.
        tokenizer: Of the encoder to train.
        prefixes: Put before both sides by the row's task.
        query_tokens: Longer queries are cut, special tokens included.
        document_tokens: Longer positives and negatives are cut.
        negatives: Keep this many negatives of a row at most, the first ones.
        guide: See `prepare`.
        teacher: See `prepare`.

    Raises:
        InputError: there is no row at all.
    """
    both = (guide.known if guide is not None else None, teacher)
    others = [each.prefixes for each in both if each is not None]
    reading = reading_of({"query": query_tokens, "document": document_tokens}, prefixes, others, negatives)
    units = [Held(table) for table in tables]
    return prepare(units, reading, lambda _, unit, wanted: pieces(unit, reading, wanted, tokenizer), guide, teacher)


def check_fits(tokens: Tokens, model: Model) -> None:
    """Token ids lie within the model's embedding table, and texts within the positions of its transformers.

    Raises:
        InputError: they do not.
    """
    longest, pieces = int(tokens.lengths.max(initial=0)), model.encoder.config.vocab_size
    if tokens.highest >= pieces:
        raise InputError(f"the texts hold token {tokens.highest}, the model has {pieces} pieces: the vocabulary is not its own")
    added = 0
    for part in (model.encoder, *model.parts):
        added += part.config["tokens"] if isinstance(part, Connector) else 0
        if not isinstance(part, PreTrainedModel | Decoder):
            continue
        most = positions((part.model if isinstance(part, Decoder) else part).config.to_dict())
        if most is not None and longest + added > most:
            raise InputError(f"a text of {longest} tokens, the model takes {most - added}; right would be a lower limit of tokens")
