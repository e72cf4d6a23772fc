"""The loop that all phases share: step, measure, save, resume. Knows nothing of Ray; whoever calls it attaches callbacks."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import nn

from raysberta.training.ahead import ahead
from raysberta.training.checkpoint import Export, NotSaved, load_moments, load_weights, read_state, save_checkpoint
from raysberta.training.engine import Engine, NotFinite, keep_freed_memory
from raysberta.training.schedule import learning_rate
from raysberta.training.settings import Training

log = logging.getLogger(__name__)

LOG_SECONDS = 10.0


@dataclass(frozen=True)
class StepMetrics:
    """What a step gave, the same on every worker."""

    step: int
    """Steps finished, from 1."""
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    """Since the start of training, time before a resume included."""
    tokens: int
    """Of all workers, without padding."""
    tokens_per_second: float


@dataclass(frozen=True)
class Part:
    """One worker's part of a step."""

    batch: Any
    """What the module's forward takes."""
    tokens: int
    """Without padding."""
    rows: str
    """Names the rows in a message."""


PartOf = Callable[[int, int, int], Part]
"""(step, rank, world) to that worker's part. Another thread calls it, a step ahead: it draws from no generator that others share, and
speaks to no other worker."""
OnStep = Callable[[StepMetrics, int], None]
"""Called after each step with its metrics and the number of all steps."""
OnCheckpoint = Callable[[Path, int], None]
"""Called on every worker with the checkpoint's folder (written by the first) and the steps finished."""


class Running(TypedDict):
    """How a training runs, whatever it learns; all but the seed may be left out."""

    seed: int
    """Of the order of texts, masks, dropout and whatever starts random; each step draws from it, its number and the rank."""
    steps: NotRequired[int | None]
    """Instead of the settings'; warm-up and decay then span these steps, the warm-up at most half of them."""
    name: NotRequired[str]
    """Of the phase, for log lines."""
    checkpoints: NotRequired[Path | None]
    """A local folder for checkpoints, every `checkpoint_every` steps; none where None."""
    resume: NotRequired[Path | None]
    """A checkpoint to go on from."""
    on_step: NotRequired[OnStep | None]
    on_checkpoint: NotRequired[OnCheckpoint | None]


def train(
    module: nn.Module, part_of: PartOf, settings: Training, steps: int, device: torch.device, running: Running, export: Export | None = None
) -> list[dict[str, float]]:
    """Train a module in place.

    Args:
        module: Takes a batch, returns this worker's loss. Put into training mode here.
        part_of: Makes a worker's part of a step.
        settings: Of the optimiser.
        steps: How many in all.
        device: Where to train.
        running: Seed, name, checkpoints and callbacks; its steps are not read.
        export: Writes the plain model of a checkpoint; there is none where None.

    Returns:
        The curve: StepMetrics of all steps as dictionaries, those before a resume included.

    Raises:
        NotFinite: the loss or gradient is NaN or infinite; names the step, the rows and the last checkpoint.
        NotSaved: a checkpoint cannot be written; names the step and the last checkpoint.
        InputError: `resume` is no checkpoint of this module.
    """
    keep_freed_memory()
    name, seed, resume = running.get("name", "training"), running["seed"], running.get("resume")
    on_step, checkpoints, on_checkpoint = running.get("on_step"), running.get("checkpoints"), running.get("on_checkpoint")
    state: dict[str, Any] = {"step": 0, "curve": []}
    if resume is not None:
        state = read_state(resume)
        load_weights(module, resume)
    engine = Engine(module, settings, device)
    if resume is not None:
        load_moments(engine, resume, state["step"])
        log.info("%s: goes on after step %d of %d", name, state["step"], steps)
    module.train()
    curve: list[dict[str, float]] = state["curve"]
    clock = time.monotonic() - (curve[-1]["seconds"] if curve else 0.0)
    shown, last = time.monotonic(), str(resume) if resume else "none"
    begun = time.monotonic()
    parts = ahead(lambda step: part_of(step, engine.rank, engine.world), state["step"], steps)
    for step, part in enumerate(parts, state["step"]):
        torch.manual_seed(int(np.random.SeedSequence((seed, step, engine.rank)).generate_state(1)[0]))
        rate = learning_rate(step, steps, settings.learning_rate, settings.warmup_steps, settings.schedule)
        try:
            loss, norm, tokens = engine.step(part.batch, part.tokens, rate)
        except NotFinite as error:
            raise NotFinite(f"step {step + 1} of {steps}: {error}; batch: {part.rows}; last good checkpoint: {last}") from error
        now = time.monotonic()
        metrics = StepMetrics(step + 1, loss, rate, norm, now - clock, tokens, tokens / (now - begun))
        begun = now
        curve.append(asdict(metrics))
        if on_step is not None:
            on_step(metrics, steps)
        if engine.rank == 0 and (now - shown > LOG_SECONDS or step + 1 == steps):
            shown = now
            log.info("%s: step %d/%d, loss %.4f, %.0f tokens/s", name, step + 1, steps, loss, metrics.tokens_per_second)
        if checkpoints is not None and (step + 1) % settings.checkpoint_every == 0 and step + 1 < steps:
            folder = checkpoints / f"step-{step + 1:08d}"
            try:
                save_checkpoint(engine, folder, {"step": step + 1, "curve": curve}, export)
            except NotSaved as error:
                raise NotSaved(f"step {step + 1} of {steps}: {error}; last good checkpoint: {last}") from error
            last = str(folder)
            if on_checkpoint is not None:
                on_checkpoint(folder, step + 1)
    engine.release()
    module.eval()
    return curve
