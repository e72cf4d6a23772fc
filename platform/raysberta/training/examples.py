"""Examples made ready for training: every distinct text tokenised once, rows as numbers, in plain arrays.

A *sequence* is a text with its prefix, cut to its limit, as token ids. `raw` says which sequences are the same text when the
prefix is left off: duplicates and false negatives are judged by text, not by prefix. Stored as one safetensors file, so a
worker reads it by path, and a resumed run tokenises nothing.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.describe import Description, describe
from raysberta.models.load import load_tokenizer
from raysberta.prefixes import Prefixes, Side
from raysberta.schema import Task
from raysberta.storage.artifacts import Artifact, write_whole
from raysberta.training.guide import Guide, guide_of
from raysberta.training.settings import Contrastive, Mlm

COLUMNS = ["pair_id", "group", "source", "kind", "task", "query", "positive", "negatives", "positive_score", "negative_scores"]
TOKENISE_AT_ONCE = 8192

K = TypeVar("K")


@dataclass(frozen=True)
class Ragged:
    """Rows of differing length: `values` [total] and `offsets` int64 [rows + 1]."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, int64 [rows]."""
        return np.diff(self.offsets)


def ragged(rows: Iterable[Sequence[int]]) -> Ragged:
    """Lists of numbers as one int32 array."""
    values, lengths = [np.zeros(0, np.int32)], [0]
    for row in rows:
        values.append(np.asarray(row, np.int32))
        lengths.append(len(row))
    return Ragged(np.concatenate(values), np.cumsum(lengths, dtype=np.int64))


@dataclass(frozen=True)
class TeacherRows:
    """Where a teacher's vectors of texts are."""

    prefixes: Prefixes
    """What the teacher reads before a text."""
    at: Mapping[str, int]
    """The row of each text with its prefix."""


@dataclass(frozen=True)
class Examples:
    """Rows of (query, positive, negatives) over tokenised sequences."""

    tokens: Ragged
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
    """Texts (as in `raw`) that answer the row's query, in any row: never negatives for it."""
    group: np.ndarray
    """int32 [rows]: what the row's pair belongs to: a word's senses, a file, a class."""
    groups: Ragged
    """Groups of each text (as in `raw`), those of all rows that it is a side of: never negatives for a row of one of them."""
    ids: np.ndarray
    """bytes [rows]: pair ids, to name rows in messages."""
    positive_score: np.ndarray
    """float32 [rows]: the teacher's score of query and positive, NaN where it gave none."""
    negative_score: np.ndarray
    """float32 [values of negatives]: the same of query and negative."""
    guide: np.ndarray
    """float16 [sequences, H]: the mining encoder's vectors, L2-normalised, zeros where there is none; H is 0 without a guide."""
    taught: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 [sequences]: rows of a teacher's vectors; none without a teacher."""

    def __len__(self) -> int:
        return len(self.source)

    def save(self, path: str, filesystem: pafs.FileSystem) -> None:
        """Write one safetensors file; readers see all or nothing on a local disk."""
        arrays: dict[str, np.ndarray] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Ragged):
                arrays[f"{item.name}.values"], arrays[f"{item.name}.offsets"] = value.values, value.offsets
            elif item.name == "ids":
                arrays["ids"] = value.view(np.uint8).reshape(len(value), value.itemsize)
            elif item.name != "sources":
                arrays[item.name] = value
        arrays["sources"] = np.frombuffer(json.dumps(self.sources).encode(), np.uint8)
        write_arrays(arrays, path, filesystem)

    @classmethod
    def load(cls, path: str, filesystem: pafs.FileSystem) -> "Examples":
        """Read what `save` wrote."""
        arrays = read_arrays(path, filesystem)
        sources = tuple(json.loads(arrays.pop("sources").tobytes()))
        raw_ids = arrays.pop("ids")
        ids = np.ascontiguousarray(raw_ids).view(f"S{raw_ids.shape[1]}").reshape(-1)
        tokens, negatives, friends, groups = (
            Ragged(arrays[f"{name}.values"], arrays[f"{name}.offsets"]) for name in ("tokens", "negatives", "friends", "groups")
        )
        raw, source, query, positive, group = (arrays[name] for name in ("raw", "source", "query", "positive", "group"))
        scores = arrays["positive_score"], arrays["negative_score"]
        return cls(
            tokens,
            raw,
            sources,
            source,
            query,
            positive,
            negatives,
            friends,
            group,
            groups,
            ids,
            *scores,
            arrays["guide"],
            arrays["taught"],
        )


def write_arrays(arrays: Mapping[str, np.ndarray], path: str, filesystem: pafs.FileSystem) -> None:
    """Write named arrays as one safetensors file; what has the name is whole."""
    write_whole(filesystem, path, save_arrays({name: np.ascontiguousarray(value) for name, value in arrays.items()}))


def read_arrays(path: str, filesystem: pafs.FileSystem) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote."""
    with filesystem.open_input_file(path) as stream:
        return load_arrays(stream.read())


def prepare(
    tables: Sequence[pa.Table],
    tokenizer: PreTrainedTokenizerFast,
    prefixes: Prefixes,
    query_tokens: int,
    document_tokens: int,
    negatives: int,
    guide: Guide | None = None,
    teacher: TeacherRows | None = None,
) -> Examples:
    """Tokenise the examples of all tables.

    Args:
        tables: Tables of the schema EXAMPLE (the columns in `COLUMNS` suffice).
        tokenizer: Of the encoder to train.
        prefixes: Put before both sides by the row's task.
        query_tokens: Longer queries are cut, special tokens included.
        document_tokens: Longer positives and negatives are cut.
        negatives: Keep this many negatives of a row at most, the first ones.
        guide: The mining encoder's vectors, where they are to mask negatives.
        teacher: Where the vectors of a teacher are that reads all these texts. Where it reads a sequence in several ways, the first counts.

    Raises:
        InputError: there is no row at all.
    """
    table = pa.concat_tables([table.select(COLUMNS) for table in tables]).sort_by("pair_id").combine_chunks()
    if table.num_rows == 0:
        raise InputError("no training example at all; right would be at least one source with pairs in its training split")
    strings = {name: table[name].to_pylist() for name in COLUMNS}
    texts = _Numbers[str]()
    sequences = _Numbers[tuple[str, int]]()
    raw: list[int] = []
    guided: list[int] = []
    taught: list[int] = []

    def sequence(text: str, task: Task, side: Side, limit: int) -> int:
        number = sequences[(prefixes.of(task, side) + text, limit)]
        if number == len(raw):
            raw.append(texts[text])
            guided.append(guide.rows.get(guide.prefixes.of(task, side) + text, -1) if guide else -1)
            taught.extend([teacher.at[teacher.prefixes.of(task, side) + text]] if teacher else [])
        return number

    query, positive, hard = [], [], []
    hard_scores: list[float] = []
    rows = zip(*(strings[name] for name in ("task", "query", "positive", "negatives", "negative_scores")), strict=True)
    for task, left, right, wrong, scores in rows:
        query.append(sequence(left, task, "query", query_tokens))
        positive.append(sequence(right, task, "document", document_tokens))
        hard.append([sequence(text, task, "document", document_tokens) for text in (wrong or [])[:negatives]])
        hard_scores += [*(scores or []), *[np.nan] * negatives][: len(hard[-1])]
    names = [f"{source}/{kind}" for source, kind in zip(strings["source"], strings["kind"], strict=True)]
    sources = tuple(sorted(set(names)))
    code = {name: number for number, name in enumerate(sources)}
    raw_array = np.asarray(raw, np.int32)
    query_array, positive_array = np.asarray(query, np.int32), np.asarray(positive, np.int32)
    left, right = raw_array[query_array].tolist(), raw_array[positive_array].tolist()
    groups = _Numbers[str]()
    group = [groups[name] for name in strings["group"]]
    return Examples(
        tokens=ragged(tokenise(tokenizer, sequences)),
        raw=raw_array,
        sources=sources,
        source=np.asarray([code[name] for name in names], np.int32),
        query=query_array,
        positive=positive_array,
        negatives=ragged(hard),
        friends=ragged(_friends(left, right)),
        group=np.asarray(group, np.int32),
        groups=ragged(_groups(len(texts), group, left, right)),
        ids=np.asarray([name.encode() for name in strings["pair_id"]]),
        positive_score=np.asarray([np.nan if score is None else score for score in strings["positive_score"]], np.float32),
        negative_score=np.asarray([np.nan if score is None else score for score in hard_scores], np.float32),
        guide=_guided(guide, np.asarray(guided, np.int64)),
        taught=np.asarray(taught, np.int64),
    )


def prepared(settings: Contrastive, encoder: Path, artifacts: Sequence[Artifact], teacher: TeacherRows | None = None) -> Examples:
    """The examples as a phase trains on them.

    Args:
        settings: Of the phase.
        encoder: The folder of the encoder to train.
        artifacts: Examples: the table `examples`, and `vectors` where the settings ask for a guide.
        teacher: Where the vectors of a teacher are, if there is one.

    Raises:
        InputError: there is no row at all, or no guide.
    """
    tables = [artifact.table("examples", columns=COLUMNS) for artifact in artifacts]
    guide = guide_of(artifacts) if settings.guide else None
    limits = settings.query_tokens, settings.document_tokens, settings.negatives
    return prepare(tables, load_tokenizer(encoder), learned(settings, encoder).prefixes, *limits, guide, teacher)


def texts_of(pairs: Sequence[Artifact]) -> list[str]:
    """The distinct texts of both sides of the training pairs, sorted: the order owes nothing to files or workers."""
    found: set[str] = set()
    for artifact in pairs:
        table = artifact.dataset("pairs").to_table(columns=["query", "positive"], filter=pads.field("split") == "train")
        found |= set(pc.unique(table["query"]).to_pylist()) | set(pc.unique(table["positive"]).to_pylist())
    return sorted(found)


def prepared_texts(settings: Mlm, encoder: Path, pairs: Sequence[Artifact]) -> Ragged:
    """Token ids of the texts that a phase of masked language modelling trains on, special tokens included.

    Args:
        settings: Of the phase.
        encoder: The folder of the encoder to train.
        pairs: The table `pairs`.

    Raises:
        InputError: there is no text at all.
    """
    texts = texts_of(pairs)
    if not texts:
        raise InputError("the pairs have no training text at all; right would be sources with pairs in their training split")
    return ragged(tokenise(load_tokenizer(encoder), [(text, settings.max_tokens) for text in texts]))


def learned(settings: Contrastive, encoder: Path) -> Description:
    """How the trained model is used: as the one that it starts from, but for what the settings change."""
    return describe(encoder, settings.pooling, settings.prefixes)


def _guided(guide: Guide | None, rows: np.ndarray) -> np.ndarray:
    """The guide's vectors of the sequences; zeros where `rows` is -1."""
    if guide is None:
        return np.zeros((len(rows), 0), np.float16)
    found = np.zeros((len(rows), guide.vectors.shape[1]), np.float16)
    found[rows >= 0] = guide.vectors[rows[rows >= 0]]
    return found


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: Iterable[tuple[str, int]]) -> Iterator[list[int]]:
    """Token ids, special tokens included, of (text, limit) in the order given."""
    pending: list[str] = []
    limit = 0
    for text, own_limit in texts:
        if pending and (own_limit != limit or len(pending) == TOKENISE_AT_ONCE):
            yield from _tokenise(tokenizer, pending, limit)
            pending = []
        pending.append(text)
        limit = own_limit
    if pending:
        yield from _tokenise(tokenizer, pending, limit)


def _tokenise(tokenizer: PreTrainedTokenizerFast, texts: list[str], limit: int) -> list[list[int]]:
    return tokenizer(texts, truncation=True, max_length=limit, return_attention_mask=False, return_token_type_ids=False)["input_ids"]


def check_fits(tokens: Ragged, config: PreTrainedConfig) -> None:
    """Token ids lie within the model's embedding table, and texts within its positions.

    Raises:
        InputError: they do not.
    """
    highest, longest = int(tokens.values.max(initial=0)), int(tokens.lengths.max(initial=0))
    if highest >= config.vocab_size:
        raise InputError(f"the texts hold token {highest}, the model has {config.vocab_size} pieces: the vocabulary is not its own")
    taken = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0  # they count from the padding id
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and longest > positions - taken:
        raise InputError(f"a text of {longest} tokens, the model takes {positions - taken}; right would be a lower limit of tokens")


def _friends(queries: list[int], positives: list[int]) -> Iterator[list[int]]:
    """For each row, the texts that answer its query in any row, and its own two."""
    answers = defaultdict(set)
    for query, positive in zip(queries, positives, strict=True):
        answers[query].add(positive)
        answers[positive].add(query)
    for query, positive in zip(queries, positives, strict=True):
        yield sorted(answers[query] | {query, positive})


def _groups(texts: int, groups: list[int], queries: list[int], positives: list[int]) -> Iterator[list[int]]:
    """For each text, the groups of the rows that it is a side of; none where it is only ever a hard negative."""
    found: list[set[int]] = [set() for _ in range(texts)]
    for group, query, positive in zip(groups, queries, positives, strict=True):
        found[query].add(group)
        found[positive].add(group)
    return (sorted(of_text) for of_text in found)


class _Numbers(dict[K, int]):
    """Distinct keys, numbered in the order they came."""

    def __missing__(self, key: K) -> int:
        self[key] = number = len(self)
        return number
