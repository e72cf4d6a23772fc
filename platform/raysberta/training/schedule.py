"""The learning rate as a pure function of the step, so that a resumed run goes on exactly."""

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


def learning_rate(step: int, steps: int, peak: float, warmup: int, schedule: Schedule) -> float:
    """The rate of optimizer step `step` (counted from 0) of `steps`.

    Rises linearly over `warmup` steps to the peak (at most half of all steps are warm-up), then falls to 0 after the last
    step, or stays.
    """
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)
