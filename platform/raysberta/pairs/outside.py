"""Files of data sets and of evaluation sets, which pairs are made from beyond the documents: whether they are there, what they are."""

from functools import partial
from typing import Any

from raysberta.corpus.evaluation_sets import check_evaluation_sets, sets_state
from raysberta.corpus.locate import RECORDS, File, locate, peek, state
from raysberta.corpus.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.pairs.settings import NaturalPairs

PEEKED_FILES = 50


def data_set_files(name: str, source: DatasetSource) -> list[File]:
    """The files of a data set, sorted by path; a folder may hold others, which are passed over.

    Raises:
        InputError: nothing is there, or a file that is named is neither Parquet nor JSONL.
    """
    key = f"sources.{name}.path"
    files = locate(source.path, key, RECORDS)
    for file in files:
        if file.format not in RECORDS:
            right = "right would be .parquet or .jsonl (.gz, .zst), and kind: files for pages and texts"
            raise InputError(f"{key}: {file.shown} is no data set; {right}")
    return files


def check_data_set(name: str, source: DatasetSource) -> None:
    """Look whether the files are there and start as their endings say.

    Raises:
        InputError: something is missing or wrong; the message names the recipe's key.
    """
    files = data_set_files(name, source)
    for file in files[:: max(1, len(files) // PEEKED_FILES)]:
        peek(file, f"sources.{name}.path")


def check_pairs(settings: NaturalPairs) -> list[str]:
    """What is wrong outside the recipe, a line each: data sets or evaluation sets are not there, or are something else."""
    checks = [partial(check_data_set, name, source) for name, source in settings.data_sets.items()]
    problems = []
    for check in (*checks, partial(check_evaluation_sets, settings.evaluation_sets)):
        try:
            check()
        except InputError as error:
            problems.append(str(error))
    return problems


def data_set_state(name: str, source: DatasetSource) -> dict[str, Any]:
    """A digest over names, sizes and dates of the files; `missing` where there are none: a plan can be made without them."""
    try:
        return state(data_set_files(name, source))
    except InputError:
        return {"missing": True}


def pairs_state(settings: NaturalPairs) -> dict[str, Any]:
    """What decides the pairs beyond their settings and the documents, as JSON values, for their identity."""
    found: dict[str, Any] = {"data_sets": {name: data_set_state(name, source) for name, source in settings.data_sets.items()}}
    if settings.evaluation_sets:
        found["evaluation_sets"] = sets_state(settings.evaluation_sets)
    return found
