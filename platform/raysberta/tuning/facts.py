"""What the manifest of a search says."""

from raysberta.work import Facts


class Trial(Facts):
    """One trial."""

    values: dict[str, float]
    """What was tried, by the field's name."""
    score: float
    """What is maximised, a fraction: both means by the search's `general_weight`; 0 where training broke off at a loss not finite."""
    own: float | None
    """The mean of the own tasks' dev halves; None where none is read."""
    general: float | None
    """The mean of the general tasks' dev halves; None where none is read."""
    scores: dict[str, float]
    """By task."""
    seconds: float
    """Of the trial, scoring included."""
    steps: int | None
    """Steps that a training trial made; fewer than asked for where ASHA ended it or it broke off. None of a merge."""


class Position(Facts):
    """A step of weights that are learned."""

    weights: list[float]
    """Of each model, in all 1."""
    norm: float
    loss: float | None
    """Of the step's batch, before it moved; None where the learning ended."""


class SearchFacts(Facts):
    """Of a node of kind `search`."""

    best: dict[str, float]
    """The values of the trial with the highest score, of equal ones those that are smallest; of a greedy soup the weights that it kept, of
    learned ones where the learning ended."""
    trials: list[Trial]
    """In order of their values; of a greedy soup in the order in which they were made."""
    positions: tuple[Position, ...] = ()
    """Every step of weights that are learned; empty of a search."""
