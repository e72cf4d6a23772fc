"""Custom metrics on the Ray dashboard: documents, pairs, loss and the like, under the prefix `raysberta_`."""

from functools import cache

from ray.util.metrics import Gauge

_last: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}


@cache
def _gauge(name: str, tags: tuple[str, ...]) -> Gauge:
    return Gauge(f"raysberta_{name}", description=f"RaySBERTa: {name.replace('_', ' ')}", tag_keys=tags)


def gauge(name: str, value: float, /, **tags: str) -> None:
    """Set a gauge; it is exported by the node's metrics agent and drawn by the dashboard. Needs an initialised Ray."""
    _last[name, tuple(sorted(tags.items()))] = float(value)
    _gauge(name, tuple(sorted(tags))).set(float(value), tags=tags)


def repeat() -> None:
    """Set every gauge of this process again: Ray exports a value only for some seconds after it was set."""
    for (name, tags), value in _last.items():
        gauge(name, value, **dict(tags))
