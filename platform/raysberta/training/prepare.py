"""What a phase trains on, made once and kept on storage: its processes map it, and a killed run finds it there.

`each` says where the two passes over the tables run. Nothing here holds texts but the passes themselves, see survey.py.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import starmap
from pathlib import Path

import numpy as np

from raysberta.errors import InputError
from raysberta.models.describe import Description, describe
from raysberta.models.load import load_tokenizer
from raysberta.prefixes import NONE, Side
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import filesystem
from raysberta.storage.on_disk import Growing, joined
from raysberta.training.arrays import PART, Ragged, Tokens, dealt, is_whole, parts_of, ranked, write_array
from raysberta.training.examples import COLUMNS, Each, Examples, prepare
from raysberta.training.guide import Guide, guides, store_vectors
from raysberta.training.settings import Contrastive, Distil, Mlm
from raysberta.training.survey import Known, Piece, Reading, RowGroup, Unit, distinct, known, laid, pieces, reading_of, row_groups
from raysberta.training.teacher import compared_texts

SIDES = ("task", "query", "positive")
COMPARED = 1000
"""Texts on which student and teacher are compared: half a million pairs of texts."""


def prepare_examples(
    settings: Contrastive, model: Artifact, mined: Sequence[Artifact], place: str, each: Each = starmap, teacher: Known | None = None
) -> Examples:
    """The examples as a phase trains on them.

    Args:
        settings: Of the phase.
        model: The encoder to train.
        mined: Examples: the table `examples`, and `vectors` where the settings ask for a guide.
        place: Folder or URI to write to; what is there whole is read.
        each: Where the passes over the tables run.
        teacher: Where the vectors of a teacher are, if there is one.

    Raises:
        InputError: there is no row at all, or no guide.
    """
    if not is_whole(place):
        cleared(place)
        guide = _guide(mined, place, each) if settings.guide else None
        both = (guide.known if guide is not None else None, teacher)
        others = [each.prefixes for each in both if each is not None]
        limits: dict[Side, int] = {"query": settings.query_tokens, "document": settings.document_tokens}
        prefixes = learned(settings, model.folder("model", weights=False)).prefixes
        reading = reading_of(limits, prefixes, others, settings.negatives)
        units = [unit for artifact in mined for unit in row_groups(artifact, "examples", COLUMNS)]
        prepare(units, reading, partial(store_pieces, reading=reading, model=model, place=place), guide, teacher, each).save(place)
    return Examples.load(place)


def prepare_texts(settings: Mlm, model: Artifact, units: Sequence[Unit], place: str, each: Each = starmap) -> Tokens:
    """Token ids of the distinct texts of some units, without prefix, in the order of their hashes.

    Args:
        settings: Of the phase.
        model: The encoder to train.
        units: What has them, see `text_units`.
        place: Folder or URI to write to; what is there whole is read.
        each: Where the passes over the tables run.

    Raises:
        InputError: there is no text at all.
    """
    reading = reading_of({"query": settings.max_tokens, "document": settings.max_tokens}, NONE, negatives=sys.maxsize)
    return read_texts(units, reading, model, place, each)


def read_texts(units: Sequence[Unit], reading: Reading, model: Artifact, place: str, each: Each = starmap) -> Tokens:
    """Token ids of the distinct texts of all units in the order of their keys; what is there whole is read. Arguments as `store_texts`."""
    if not is_whole(place):
        cleared(place)
        store_texts(units, reading, model, place, each).tokens.save(place)
    return Tokens.load(place)


def read_rows(units: Sequence[Unit], reading: Reading, model: Artifact, place: str, each: Each = starmap) -> Examples:
    """The rows of all units as numbers, with the token ids of their texts; what is there whole is read. Arguments as `store_texts`."""
    if not is_whole(place):
        cleared(place)
        prepare(units, reading, partial(store_pieces, reading=reading, model=model, place=place), each=each).save(place)
    return Examples.load(place)


@dataclass(frozen=True)
class Stored:
    """The texts of some units, their token ids on storage, in the order of their keys."""

    tokens: Tokens
    others: np.ndarray
    """uint64 [texts, others]: hashes of each text as others have it."""
    marks: list[np.ndarray]
    """uint64, rising: of the texts that each unit tokenised, hashes as the last of the others has them; empty where there is none."""


def store_texts(units: Sequence[Unit], reading: Reading, model: Artifact, place: str, each: Each, most: int | None = None) -> Stored:
    """Write the token ids of the distinct texts of all units.

    Args:
        units: Tables.
        reading: How their texts are read.
        model: Whose tokenizer reads them.
        place: Where to.
        each: Where the passes over the tables run.
        most: So many texts at most, those whose keys are least, so which ones owes nothing to the tables' order; all where None.

    Raises:
        InputError: there is no text at all.
    """
    keys, wanted = shared(each(distinct, [(unit, reading) for unit in units]))
    if not len(keys):
        raise InputError("there is no training text at all; right would be sources with pairs in their training split")
    keys = keys[:most]
    chosen = ((number, unit, wanted[number][wanted[number] <= keys[-1]]) for number, unit in enumerate(units))
    tokenised = partial(store_pieces, reading=reading, model=model, place=place)
    found = list(each(tokenised, chosen))
    marks = [np.concatenate([np.zeros(0, np.uint64), *(piece.others[:, -1:].ravel() for piece in of_unit)]) for of_unit in found]
    tokens, others = laid(keys, [piece for of_unit in found for piece in of_unit])
    return Stored(tokens, others, [np.unique(of_unit) for of_unit in marks])


def text_units(settings: Mlm | Distil, inputs: Mapping[str, Artifact]) -> list[RowGroup]:
    """What a phase of single texts learns from: training pairs, examples, and training documents where it may name them."""
    units = [unit for name in settings.pairs for unit in row_groups(inputs[name], "pairs", SIDES, "train")]
    units += [unit for mined in settings.examples for unit in row_groups(inputs[mined], "examples", (*SIDES, "negatives"))]
    if isinstance(settings, Distil) and settings.documents is not None:
        units += row_groups(inputs[settings.documents], "documents", ("text",), "train")
    return units


def compare_texts(units: Sequence[Unit], reading: Reading, each: Each) -> list[list[tuple[int, str, int]]]:
    """COMPARED texts at most, those whose keys are least: for each unit some of them, as `teacher.compared_texts` gives them."""
    keys, wanted = shared(each(distinct, [(unit, reading) for unit in units]))
    chosen = ((unit, reading, np.intersect1d(wanted[number], keys[:COMPARED])) for number, unit in enumerate(units))
    return list(each(compared_texts, chosen))


def shared(found: Iterable[np.ndarray]) -> tuple[np.ndarray, Ragged]:
    """All keys, uint64, rising, and for each unit those that no unit before it has. They lie on this machine's disk.

    Args:
        found: uint64, rising: the keys of each unit; those of two are held at a time.
    """
    every, sizes = Growing(np.uint64), list[int]()
    for of_unit in found:
        every.add(of_unit)
        sizes.append(len(of_unit))
    keys, first, _ = ranked(every.whole())
    return keys, dealt(keys, parts_of(first, sizes), len(sizes))


def store_pieces(number: int, unit: Unit, wanted: np.ndarray, reading: Reading, model: Artifact, place: str) -> list[Piece]:
    """Tokenise texts of a unit and write their ids; the pieces come back without them. Arguments as for `survey.pieces`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it is one of many such passes, each on a core of its own
    stored = []
    for place_of, piece in enumerate(pieces(unit, reading, wanted, _tokenizer(model.folder("model", weights=False)))):
        write_array(place, f"{PART}{number:06d}-{place_of:04d}", piece.values)
        stored.append(replace(piece, values=piece.values[:0]))
    return stored


_tokenizer = lru_cache(maxsize=1)(load_tokenizer)


def learned(settings: Contrastive, encoder: Path) -> Description:
    """How the trained model is used: as the one that it starts from, but for what the settings change."""
    return describe(encoder, settings.pooling, settings.prefixes)


def _guide(mined: Sequence[Artifact], place: str, each: Each) -> Guide:
    with_vectors, prefixes = guides(mined)
    units = [unit for artifact in with_vectors for unit in row_groups(artifact, "vectors", ("key", "vector"))]
    found = each(store_vectors, [(number, unit, place) for number, unit in enumerate(units)])
    return Guide(known(prefixes, joined(found, np.uint64)), ())


def cleared(place: str) -> None:
    """An empty folder: what a killed run left without an index may be of other units."""
    fs, path = filesystem(place)
    fs.create_dir(path, recursive=True)
    fs.delete_dir_contents(path)
