"""What a search may read: dev halves of the recipe's own tasks, nothing else. Refused by name and by half, before any data is opened."""

from collections.abc import Iterable
from functools import cache
from typing import Literal

from raysberta.errors import InputError
from raysberta.recipe import Recipe

Half = Literal["dev", "test"]
Purpose = Literal["report", "tuning"]


@cache
def registered_tasks() -> frozenset[str]:
    """Names of all tasks that mteb knows; ruMTEB's are among them."""
    from mteb.get_tasks import TASK_LIST

    return frozenset(task.metadata.name for task in TASK_LIST)


def check_readable(half: Half, purpose: Purpose, own: Iterable[str], tasks: Iterable[str]) -> None:
    """Refuse what the purpose may not read.

    Args:
        half: Which half would be read.
        purpose: "tuning" for a search or a merge that chooses by the score, "report" for the final table.
        own: Names of the held-out tasks that exist.
        tasks: Names asked for.

    Raises:
        InputError: tuning asks for a test half or for a public task of mteb; or a name is unknown.
    """
    if purpose == "tuning" and half == "test":
        raise InputError("tuning.tasks: a search may not read test halves; right would be the dev halves of evaluation.tasks")
    known = set(own)
    for name in tasks:
        if name in known:
            continue
        if purpose == "tuning" and name in registered_tasks():
            raise InputError(
                f"tuning.tasks: {name} is a public task of mteb, which nothing may be tuned on; right would be {_names(known)}"
            )
        raise InputError(f"evaluation.tasks: no task {name!r}; there are {_names(known)}")


def readable_tasks(recipe: Recipe, half: Half = "dev") -> tuple[str, ...]:
    """The tasks whose dev halves a search of this recipe, or a training that scores its checkpoints, reads.

    Raises:
        InputError: `tuning.tasks` names a public or unknown task, there is none at all, or another half than dev is asked for.
    """
    tasks = recipe.tuning.tasks or tuple(recipe.evaluation.tasks)
    if not tasks:
        raise InputError("tuning: a search needs dev halves, and evaluation.tasks is empty")
    check_readable(half, "tuning", recipe.evaluation.tasks, tasks)
    return tasks


def check_own_names(names: Iterable[str]) -> None:
    """Refuse own tasks that bear the name of a public one: their scores would be taken for the public ones.

    Raises:
        InputError: a name is taken.
    """
    for name in names:
        if name in registered_tasks():
            raise InputError(f"evaluation.tasks.{name}: that is the name of a public task of mteb; right would be another name")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
