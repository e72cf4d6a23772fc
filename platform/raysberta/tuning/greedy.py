"""Greedy soups (arXiv 2203.05482, recipe 1): which of several models are merged, by scores on dev halves; no Ray here."""

from collections.abc import Callable, Sequence

from raysberta.tuning.facts import Trial

Values = dict[str, float]
Score = Callable[[Sequence[Values]], Sequence[Trial]]
"""Trials of merges with the given weights, in the same order."""


def greedy(models: int, score: Score) -> tuple[Trial, list[Trial]]:
    """Take models up in falling order of their own scores, of equal ones in the order given, and keep each with which the merge of all kept
    scores no less than without.

    Args:
        models: How many there are.
        score: Called once with every model alone, then with one merge after the other.

    Returns:
        The trial of the merge that was kept, and all trials in the order in which they were made.
    """
    alone = list(score([weights_of({model}, models) for model in range(models)]))
    order = sorted(range(models), key=lambda model: (-alone[model].score, model))
    kept, best, trials = {order[0]}, alone[order[0]], list(alone)
    for model in order[1:]:
        (trial,) = score([weights_of(kept | {model}, models)])
        trials.append(trial)
        if trial.score >= best.score:
            kept, best = kept | {model}, trial
    return best, trials


def weights_of(kept: set[int], models: int) -> Values:
    """Weights of a merge of some models, alike in weight: by the names of the phase's numbers."""
    return {f"weights.{model}": float(model in kept) for model in range(models)}
