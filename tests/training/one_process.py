"""A training in a process of its own, as test_training_loop.py kills and resumes it.

Run as `python one_process.py <folder> <encoder> <checkpoint>`; reads settings.json and data of the folder. Where the checkpoint
is `none`, the system kills the process while it writes the checkpoint of step 9, and the earlier ones are in `checkpoints`. Otherwise it
goes on from that one, and writes the model `resumed` and curve.json.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from variants import SEED

from raysberta.training.arrays import Tokens
from raysberta.training.contrastive import train_contrastive
from raysberta.training.distil import train_distil
from raysberta.training.examples import Examples
from raysberta.training.mlm import train_mlm
from raysberta.training.settings import Contrastive, Distil, Mlm
from raysberta.training.teacher import Lessons


def strike(folder: Path) -> None:
    """Kill this process, as the system would where memory is short, as soon as the folder is there."""
    while not folder.exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def lessons_of(folder: Path) -> tuple[Lessons, np.ndarray]:
    """What a distillation learns from, as its test wrote it."""
    return Lessons.load(f"{folder}/data"), np.load(folder / "teacher.npy")


def run(folder: Path, encoder: Path, output: Path, **more: Any) -> list[dict[str, float]]:
    """Train as the folder says."""
    settings = TypeAdapter[Mlm | Contrastive | Distil](Mlm | Contrastive | Distil).validate_json((folder / "settings.json").read_text())
    data = f"{folder}/data"
    if isinstance(settings, Contrastive):
        return train_contrastive(settings, encoder, Examples.load(data), output, seed=SEED, **more)
    if isinstance(settings, Distil):
        return train_distil(settings, encoder, *lessons_of(folder), output, seed=SEED, **more)
    return train_mlm(settings, encoder, Tokens.load(data), output, seed=SEED, **more)


def main(folder: Path, encoder: Path, checkpoint: str) -> None:
    torch.set_num_threads(1)
    if checkpoint == "none":
        saved = folder / "checkpoints"
        threading.Thread(target=strike, args=[saved / "step-00000009.aside"], daemon=True).start()
        run(folder, encoder, folder / "killed", checkpoints=saved)
    else:
        curve = run(folder, encoder, folder / "resumed", resume=Path(checkpoint))
        (folder / "curve.json").write_text(json.dumps(curve))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
