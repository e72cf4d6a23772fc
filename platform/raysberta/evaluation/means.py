"""Two means of a model's scores: over the own tasks, whose sources it was trained on, and over the general ones, whose sources it was not.

They are never made into one: a model can gain much on the first and lose on the second.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Means:
    """Fractions; None where there is no such task."""

    own: float | None
    general: float | None

    def weighted(self, general_weight: float) -> float:
        """What a search maximises: (1 - w) x own + w x general; the one there is where there is only one.

        Raises:
            ValueError: there is none.
        """
        if self.own is None or self.general is None:
            if (only := self.own if self.general is None else self.general) is None:
                raise ValueError("no score, so no mean")
            return only
        return (1 - general_weight) * self.own + general_weight * self.general

    def __str__(self) -> str:
        """As logs show them, x 100."""
        named = (("own", self.own), ("general", self.general))
        return ", ".join(f"{name} mean {100 * mean:.2f}" for name, mean in named if mean is not None)


def two_means(scores: Mapping[str, float], general: Collection[str]) -> Means:
    """The means of scores by task; `general` names the general tasks."""
    sides = ([score for task, score in scores.items() if (task in general) == wanted] for wanted in (False, True))
    own, others = (sum(side) / len(side) if side else None for side in sides)
    return Means(own, others)
