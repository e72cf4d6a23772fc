"""Files of data sets and of evaluation sets, which pairs are made from beyond the documents: whether they are there, what they are."""

from functools import partial
from typing import Any

from raysberta.corpus.evaluation_sets import check_evaluation_sets, sets_state
from raysberta.data_sets.outside import check_data_set, data_set_state
from raysberta.errors import InputError
from raysberta.pairs.settings import NaturalPairs


def check_pairs(settings: NaturalPairs) -> list[str]:
    """What is wrong outside the recipe, a line each: data sets or evaluation sets are not there, or are something else."""
    checks = [partial(check_data_set, name, source) for name, source in settings.data_sets.items()]
    problems = []
    for check in (*checks, partial(check_evaluation_sets, settings.evaluation_sets)):
        try:
            check()
        except InputError as error:
            problems.append(str(error))
    return problems


def pairs_state(settings: NaturalPairs) -> dict[str, Any]:
    """What decides the pairs beyond their settings and the documents, as JSON values, for their identity."""
    found: dict[str, Any] = {"data_sets": {name: data_set_state(name, source) for name, source in settings.data_sets.items()}}
    if settings.evaluation_sets:
        found["evaluation_sets"] = sets_state(settings.evaluation_sets)
    return found
