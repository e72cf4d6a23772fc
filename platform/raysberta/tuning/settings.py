"""Searches over the numbers of a phase."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import EXECUTION, Number, Positive, Section, Share

VERSION: int = 4
"""Of the results; bumped when the same settings and inputs give another result."""


class Range(Section):
    """Numbers between two bounds."""

    low: Number
    """Least."""
    high: Number
    """Greatest."""
    log: bool = False
    """Spread evenly over magnitudes instead of values."""
    whole: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high <= self.low:
            raise ValueError(f"high {self.high:g} is not above low {self.low:g}")
        if self.log and self.low <= 0:
            raise ValueError("log: needs a low above 0")
        return self


class Search(Section):
    """Trials of a phase with other numbers, scored on dev halves of the recipe's tasks; the phase then takes the best."""

    over: dict[str, tuple[Number, ...] | Range] = Field(min_length=1)
    """By name of a numeric field of the phase (`temperature`, `retromae.decoder_mask`, `weights.1`): values, or a range {low, high}."""
    how: Literal["grid", "optuna"] = "grid"
    """grid: every combination of the listed values; optuna: TPE proposes `trials` values or combinations, from lists or ranges."""
    trials: Positive | None = None
    """Trials of optuna."""
    steps: Positive | None = None
    """Steps of a training trial; as many as the phase where null."""
    rungs: Positive = 1
    """Scores of a training trial, evenly spaced, the last at its end. With more than one, ASHA ends the worse trials early."""
    tasks: tuple[str, ...] = ()
    """Names of tasks whose dev halves are read, own and general ones; all of the recipe's where empty. Public test tasks are refused."""
    general_weight: Share = 0.5
    """Weight w of the general tasks: (1 - w) x mean of own + w x mean of general tasks is maximised; of one kind alone its mean."""
    concurrent: Annotated[Positive, EXECUTION] = 1
    """Trials at once."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, values in self.over.items():
            if isinstance(values, tuple) and not values:
                raise ValueError(f"over.{name}: no value; right would be a list of values or a range")
            if self.how == "grid" and isinstance(values, Range):
                raise ValueError(f"over.{name}: a grid needs values; right would be a list, or how: optuna with trials")
        if self.steps is not None and "steps" in self.over:
            raise ValueError("over.steps: nothing would follow from it, for steps is given too; right would be one of them")
        if self.how == "optuna" and self.trials is None:
            raise ValueError("trials: optuna needs to know how many")
        return self
