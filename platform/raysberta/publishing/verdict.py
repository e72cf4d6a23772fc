"""The result in words for terminal, report and card: the general tasks first, and no change inside its interval."""

from dataclasses import dataclass

from raysberta.publishing.facts import Estimate, TaskTable

NO_GENERAL = "Nothing tells how the model does where it was not trained: no source is held out whole, and there is no registered benchmark."


@dataclass(frozen=True)
class Sentence:
    """Part of the verdict."""

    text: str
    bad: bool = False
    """Whether it is bad news."""


def verdict(own: TaskTable, general: TaskTable, base: str, final: str) -> list[Sentence]:
    """What became better or worse; every task that clearly got worse is named.

    Args:
        own: Tasks from sources that are trained on as well.
        general: Tasks from sources that are not.
        base: The model compared with.
        final: The published model.
    """
    tables = {"general": general, "own": own}
    found = [_mean(name, table, base, final) for name, table in tables.items() if table.rows]
    worse = {name: ", ".join(f"{row.task} ({changed(row.change)})" for row in table.worse) for name, table in tables.items()}
    found += [Sentence(f"Worse than the base on {name} tasks: {tasks}.", True) for name, tasks in worse.items() if tasks]
    if found and not any(worse.values()) and any(row.change and row.change.interval for table in tables.values() for row in table.rows):
        found.append(Sentence("No task clearly got worse."))
    return found if general.rows or not found else [*found, Sentence(NO_GENERAL)]


def scored(estimate: Estimate | None) -> str:
    """A score with half the width of its interval."""
    if estimate is None:
        return ""
    return f"{estimate.value:.2f}{f' ± {_half(estimate.interval):.1f}' if estimate.interval else ''}"


def changed(change: Estimate | None) -> str:
    """A change with its interval, and a word where that holds 0."""
    if change is None:
        return ""
    if change.interval is None:
        return f"{change.value:+.2f}"
    low, high = change.interval
    return f"{change.value:+.2f} [{low:+.1f}, {high:+.1f}]{'' if change.clear else ', no clear change'}"


def _mean(name: str, table: TaskTable, base: str, final: str) -> Sentence:
    before, after, change = table.means.get(base), table.means.get(final), table.change
    count = f"{len(table.rows)} {name} task{'s' if len(table.rows) > 1 else ''}"
    if before is None or after is None or change is None:
        return Sentence(f"Base and final model were not both scored on all of the {count}, so nothing can be said about the change.", True)
    where = f"On the mean of {count}{', where it was not trained,' if name == 'general' else ''} the final model"
    ends = f"{before.value:.2f} to {after.value:.2f}"
    points = f"{abs(change.value):.2f} points"
    if change.interval is None:
        side = "above" if change.value >= 0 else "below"
        return Sentence(f"{where} is {points} {side} the base: {ends}; no interval is known.", change.value < 0)
    low, high = change.interval
    if not change.clear:
        return Sentence(f"{where} has no clear change: {ends}, {change.value:+.2f} [{low:+.2f}, {high:+.2f}].")
    moved = "gains" if change.value > 0 else "loses"
    return Sentence(f"{where} {moved} {points}: {ends}, [{low:+.2f}, {high:+.2f}].", change.value < 0)


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2
