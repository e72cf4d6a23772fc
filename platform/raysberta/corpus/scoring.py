"""A learned quality score as a plug-in: one function of the user's, named in the recipe as module:function."""

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysberta.errors import InputError

SCORED = ["doc_id", "source", "language", "title", "text"]
"""The columns that a scorer gets, strings."""
KEY = "corpus.scorer"


@cache
def scorer(name: str) -> Callable[[pa.Table], object]:
    """The function that `module:function` names. It stays loaded: what it loads on its first call is loaded once a worker.

    Raises:
        InputError: there is no such module, or no such function in it.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise InputError(f"{KEY}: {module} cannot be imported: {error}; right would be a module that every worker can import") from error
    if not callable(found):
        raise InputError(f"{KEY}: {module} has no function {function!r}")
    typed: Callable[[pa.Table], object] = found
    return typed


def scores(name: str, table: pa.Table) -> np.ndarray:
    """One number a row, float64.

    Args:
        name: As in the recipe.
        table: Columns SCORED.

    Raises:
        InputError: the function is not there, or gives something else than one number a row.
    """
    given = scorer(name)(table)
    try:
        values = np.asarray(given.to_numpy(zero_copy_only=False) if isinstance(given, pa.Array) else given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{KEY}: {name} gave {type(given).__name__}; right would be one number a row") from error
    if values.shape != (table.num_rows,):
        raise InputError(f"{KEY}: {name} gave {values.shape} numbers for {table.num_rows} rows; right would be one a row")
    return values


def scorer_identity(name: str) -> str:
    """Digest of the file that holds the function: what it computes changes with it.

    Raises:
        InputError: there is no such module.
    """
    module = name.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        found = None
    if found is None or not found.origin:
        raise InputError(f"{KEY}: there is no module {module!r}")
    file = Path(found.origin)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else found.origin
