"""What a killed run resumes from: weights, moments and the step, whole, in safetensors and JSON, nothing pickled.

Written aside and renamed, so a folder with the right name is complete. There is no random state in it: every step seeds itself
from the run's seed, its own number and the worker's rank. Nothing in it depends on the number of workers or the ZeRO stage.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from raysberta.errors import InputError
from raysberta.training.engine import Engine

WEIGHTS, MOMENTS, STATE = "weights.safetensors", "moments.safetensors", "state.json"


def save_checkpoint(engine: Engine, folder: Path, state: dict[str, Any]) -> None:
    """Write the engine and `state` (JSON values; its "step" counts finished steps). All workers call it, the first writes."""
    moments = engine.moments()
    with engine.one_writer() as writes:
        if not writes:
            return
        aside = folder.with_name(f"{folder.name}.aside")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file({name: value.detach().cpu().clone() for name, value in engine.module.state_dict().items()}, aside / WEIGHTS)
        save_file({name: value.contiguous() for name, value in moments.items()}, aside / MOMENTS)
        (aside / STATE).write_text(json.dumps(state))
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """The state that was saved.

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


def load_moments(engine: Engine, folder: Path, steps: int) -> None:
    """Put the saved moments into an engine.

    Raises:
        InputError: the file is damaged, or of another model.
    """
    try:
        engine.set_moments(load_file(folder / MOMENTS), steps)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"{folder}: its optimizer state does not fit this model: {' '.join(str(error).split())[:200]}") from error
