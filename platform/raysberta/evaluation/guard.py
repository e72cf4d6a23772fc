"""What a search may read: dev halves of the recipe's tasks, nothing else. Refused by name and by half, before any data is opened."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal

from raysberta.errors import InputError

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
        purpose: "tuning" for whatever chooses by the score, "report" for the final table.
        own: Names of the held-out tasks that exist.
        tasks: Names asked for.

    Raises:
        InputError: tuning asks for a test half or for a public task of mteb; or a name is unknown.
    """
    if purpose == "tuning" and half == "test":
        raise InputError("search: may not read test halves; right would be the dev halves of tasks")
    known = set(own)
    for name in tasks:
        if name in known:
            continue
        if purpose == "tuning" and name in registered_tasks():
            raise InputError(
                f"search.tasks: {name} is a public task of mteb, which nothing may be tuned on; right would be {_names(known)}"
            )
        raise InputError(f"tasks: no task {name!r}; there are {_names(known)}")


def readable_tasks(own: Iterable[str], names: Sequence[str] = ()) -> tuple[str, ...]:
    """The tasks whose dev halves a search, or a training that scores its checkpoints, reads.

    Args:
        own: Names of the held-out tasks that exist.
        names: Those asked for; all where empty.

    Raises:
        InputError: a name is a public task's or unknown, or there is no task at all.
    """
    known = tuple(own)
    check_readable("dev", "tuning", known, names)
    if not known:
        raise InputError("search: needs dev halves, and there are no tasks; right would be entries under tasks")
    return tuple(names) or known


def check_own_names(names: Iterable[str]) -> None:
    """Refuse held-out tasks that bear the name of a public one: their scores would be taken for the public ones.

    Raises:
        InputError: a name is taken.
    """
    for name in names:
        if name in registered_tasks():
            raise InputError(f"tasks.{name}: that is the name of a public task of mteb; right would be another name")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
