"""What a killed run resumes from: weights, moments and the step, whole, in safetensors and JSON, nothing pickled.

Beside them, in `model`, lies the model as a folder of its own, adapters merged, which was loaded back and compared: whoever wants to look
at a model in training takes that.

Written aside and renamed, so a folder with the right name was complete when it was written; the hashes in its state tell whether it
still is. There is no random state in it: every step seeds itself from the run's seed, its own number and the worker's rank. Nothing
in it depends on the number of workers or the ZeRO stage.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from raysberta.errors import InputError
from raysberta.models.describe import Description, write_description
from raysberta.models.load import load_tokenizer
from raysberta.models.model import Model, load_model, save_model
from raysberta.training.engine import Engine
from raysberta.training.parts import merged, trainable
from raysberta.training.settings import PartName, Training

log = logging.getLogger(__name__)

WEIGHTS, MOMENTS, STATE, MODEL = "weights.safetensors", "moments.safetensors", "state.json", "model"

Export = Callable[[Mapping[str, torch.Tensor], Path], None]
"""Writes what a module's weights make as a plain folder."""


class NotSaved(RuntimeError):
    """A checkpoint cannot be written. Every worker raises it, and what was saved before is still there."""


def save_checkpoint(engine: Engine, folder: Path, state: dict[str, Any], export: Export | None = None) -> None:
    """Write the engine, the plain model and `state` (JSON values; its "step" counts finished steps). All workers call it, the first writes.

    Raises:
        NotSaved: on every worker, where the first cannot write (a full disk) or the model that is read back is another; nothing is left
            of what it began.
    """
    weights, moments = engine.weights(), engine.moments()
    error = None
    if engine.rank == 0:
        aside = folder.with_name(f"{folder.name}.aside")
        try:
            _write(weights, moments, aside, state)
            if export is not None:
                export(weights, aside / MODEL)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        except (OSError, SafetensorError, RuntimeError) as caught:
            shutil.rmtree(aside, ignore_errors=True)
            error = f"{folder}: no checkpoint written: {' '.join(str(caught).split())}"
    error = engine.from_first(error)
    if error is not None:
        raise NotSaved(error)


def _write(weights: dict[str, torch.Tensor], moments: dict[str, torch.Tensor], aside: Path, state: dict[str, Any]) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for values, file in ((weights, WEIGHTS), (moments, MOMENTS)):
        save_file({name: value.contiguous() for name, value in values.items()}, aside / file)
    hashes = {name: _hash(aside / name) for name in (WEIGHTS, MOMENTS)}
    (aside / STATE).write_text(json.dumps({**state, "hashes": hashes}))


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def last_whole(folders: Iterable[Path]) -> Path | None:
    """The first of some checkpoints, newest first, that is as it was written; a warning for each that is not, None where none is."""
    for folder in folders:
        try:
            hashes = read_state(folder)["hashes"]
            damaged = [name for name in (WEIGHTS, MOMENTS) if hashes[name] != _hash(folder / name)]
            if not damaged:
                return folder
            why = f"{', '.join(damaged)} changed since"
        except (InputError, KeyError, OSError) as error:
            why = f"{type(error).__name__} {error}"
        log.warning("%s: damaged (%s): the checkpoint before it is used", folder, why)
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """The state that was saved, with the files' hashes.

    Raises:
        InputError: the folder is no whole checkpoint.
    """
    try:
        return json.loads((folder / STATE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no training checkpoint: {error}") from error


def load_weights(module: Any, folder: Path) -> None:
    """Put the saved weights into a module, before an engine takes it.

    Raises:
        InputError: the weights are damaged, or of another model.
    """
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{folder}: its weights do not fit this model: {' '.join(str(error).split())[:200]}") from error


def save_trained(model: Model, start: Path, folder: Path, description: Description) -> None:
    """Write a trained model, its adapters merged into its weights, as a folder that describes itself; the tokenizer is the start's."""
    save_model(merged(model), load_tokenizer(start), folder)
    write_description(folder, description)


def export_of(start: Path, description: Description, settings: Training, seed: int, read: Collection[PartName] | None = None) -> Export:
    """How the weights of a module that trains a model (ChunkedEncoder, as `encoder` of whatever) become a folder of that model."""

    def export(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
        model = trainable(load_model(start, pooling=description.pooling), settings, seed, read)
        marked = ((name.partition("encoder.model."), value) for name, value in weights.items())
        model.load_state_dict({name: value for (_, mark, name), value in marked if mark})
        save_trained(model, start, folder, description)

    return export


def load_moments(engine: Engine, folder: Path, steps: int) -> None:
    """Put the saved moments into an engine.

    Raises:
        InputError: the file is damaged, or of another model.
    """
    try:
        engine.set_moments(load_file(folder / MOMENTS), steps)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"{folder}: its optimizer state does not fit this model: {' '.join(str(error).split())[:200]}") from error
