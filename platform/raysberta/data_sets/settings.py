"""A data set of pairs: where it is from, how its rows become pairs, and under which licence it stands."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from raysberta.graph import EXECUTION, PLACE, Language, Number, Positive, Section
from raysberta.schema import SELF_PAIR, Task

OPEN = "OPEN"
"""What a recipe says for a commit that nobody has named: it can be planned with, and neither fetched nor run."""
COMMIT = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

Role = Literal["positive", "negative", "unused"]


def _revision(value: str) -> str:
    if value != OPEN and not COMMIT.fullmatch(value):
        raise ValueError(f"{value!r} is no commit; right would be its 40 hex digits (jobs/fetch_data.py --commits tells them), or {OPEN}")
    return value


def _repository(value: str) -> str:
    if not REPOSITORY.fullmatch(value):
        raise ValueError(f"{value!r} is no data set of a hub; right would be owner/name")
    return value


def _column(value: str) -> str:
    if not value or any(not part for part in value.split(".")):
        raise ValueError(f"{value!r} names no column; right would be name, name.inner, name.0 or name.1: (all from the second on)")
    return value


def _texts(value: Any) -> Any:
    """YAML reads labels such as 0 and true as what they look like."""
    alone = str(value) if isinstance(value, int | float) else value
    return [_texts(each) for each in alone] if isinstance(alone, list | tuple) else alone


def _text_keys(value: Any) -> Any:
    return {_texts(key): each for key, each in value.items()} if isinstance(value, dict) else value


Revision = Annotated[str, AfterValidator(_revision)]
"""A commit of a hub, 40 hex digits, or OPEN."""
Repository = Annotated[str, AfterValidator(_repository)]
Column = Annotated[str, AfterValidator(_column)]
"""A column, or what stands in it: `translation.ru` of objects, `query.1` of lists, `set.1:` for all from the second on, `0` of lines
that are lists; a list of objects gives the named field of each."""
Labels = Annotated[dict[str, Role], BeforeValidator(_text_keys)]
Values = Annotated[str | tuple[str, ...], BeforeValidator(_texts)]


class DatasetSource(Section):
    """An existing data set of pairs, in JSONL, JSON, CSV, TSV (each also .gz, .zst) or Parquet: goes straight to the pairs, past the
    filters for web text. It is read from a `path`; or from a `hub`, whence jobs/fetch_data.py fetches a snapshot, which a run reads."""

    kind: Literal["dataset"]
    path: Annotated[str | tuple[str, ...] | None, EXECUTION, PLACE] = None
    """A folder, a glob or a file, or several of them; local or any URI that pyarrow.fs reads, in which `?` starts the options."""
    hub: Repository | None = None
    """In place of `path`: a data set of the Hugging Face hub, owner/name."""
    revision: Revision | None = None
    """Its commit, 40 hex digits; OPEN where none is known yet: a plan can be made then, but nothing be fetched or run."""
    config: str | None = None
    """Its configuration, where it has several and `split` chooses the files."""
    split: str | None = None
    """Its split: the files that the data set's own card declares for it."""
    files: str | tuple[str, ...] | None = None
    """In place of `split`: paths or globs within the data set."""
    snapshot: Annotated[str, EXECUTION, PLACE] = "snapshot"
    """The folder that jobs/fetch_data.py fills."""
    sample: Positive | None = None
    """Take at most this many rows into the snapshot, those whose query has the least hash; all where null. `limit` is drawn from them."""
    licence: Annotated[str | None, EXECUTION] = None
    """The licence of the data set, for the table that jobs/fetch_data.py writes."""
    limit: Positive | None = None
    """Keep at most this many pairs after all filters, chosen by hash of their id; all where null."""
    language: Language | None = None
    """Two-letter code where every query has this language; identified per query where null."""
    task: Task
    """Decides the prefixes."""
    query_field: Column = "query"
    """The column that holds the query."""
    positive_field: Column = "positive"
    """The column that holds the positive, or a list of positives; that of the query where it is plain text: each text with itself, of kind
    `text`."""
    negatives_field: Column = "negatives"
    """The column that holds supplied negatives, one or a list; may be missing."""
    label_field: Column | None = None
    """The column whose label says what a row's `positive_field` is to its query: rows of one query come together, in a snapshot."""
    labels: Labels = Field(default={})
    """What each label makes of it: positive, negative or unused. Every label that occurs must be named."""
    order_field: Column | None = None
    """Rows of one query are parts of one text: they are joined in the order of this column (a number, or a text with one at its end), in a
    snapshot."""
    joined_characters: Positive = 2000
    """As many of such parts are joined as fit whole, and at least one."""
    score_field: Column | None = None
    """The column of a score that the source gives to the pair: kept with it as `given_score`."""
    minimum: dict[Column, Number] = Field(default={})
    """Least values of columns of numbers, such as views, votes, a score or a similarity: rows below one, or without it, are left out."""
    where: dict[Column, Values] = Field(default={})
    """Take only rows whose column has this value, or one of these."""

    @property
    def pair_kind(self) -> str:
        """Of its pairs: `dataset`, or `text` where both sides are read from one column."""
        return SELF_PAIR if self.query_field == self.positive_field else "dataset"

    @property
    def fetched(self) -> bool:
        """Whether a run reads a snapshot of it."""
        return self.hub is not None or self.label_field is not None or self.order_field is not None

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("path: right would be either path or hub, which say where the data set is from")
        of_hub = {name: getattr(self, name) for name in ("revision", "config", "split", "files")}
        if self.hub is None:
            for name, value in of_hub.items():
                if value is not None:
                    raise ValueError(f"{name}: a path has none; right would be hub in place of path")
        elif self.revision is None:
            raise ValueError(f"revision: {self.hub} is named without a commit; right would be its 40 hex digits, or {OPEN}")
        elif (self.files is None) == (self.split is None):
            raise ValueError(f"files: right would be either files or split, which say what of {self.hub} is read")
        if self.config is not None and self.split is None:
            raise ValueError("config: chooses nothing without a split; right would be split: train")
        return self

    @model_validator(mode="after")
    def _labels_and_order_fit(self) -> Self:
        if (self.label_field is None) != (not self.labels):
            raise ValueError("labels: label_field and labels go together; right would be both, or neither")
        if self.labels and "positive" not in self.labels.values():
            raise ValueError("labels: none of them makes a positive; right would be such as {entailment: positive}")
        if self.label_field is not None and self.order_field is not None:
            raise ValueError("order_field: rows with labels are not joined; right would be one of the two")
        if self.sample is not None and not self.fetched:
            raise ValueError("sample: only a snapshot has one; right would be limit")
        return self

    def columns(self) -> Iterator[tuple[str, str]]:
        """Key and column of each column that it reads."""
        for key in ("query_field", "positive_field", "negatives_field", "label_field", "order_field", "score_field"):
            column = getattr(self, key)
            if column is not None:
                yield key, column
        for key in ("minimum", "where"):
            yield from ((key, column) for column in getattr(self, key))
