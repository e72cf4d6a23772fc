"""What a stage reads of its settings: a copy of them that takes down each field that is asked for, also in Ray's workers.

`record(plan, folder)` gives a plan whose stages are recorded; `read(folder)` gives what they read, by kind of node. After a run of it,
`python tests/recording.py FOLDER` writes what was read into recorded_reads.json, which test_identity.py holds identity against.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from raysberta.graph import Section
from raysberta.pipeline.plan import Plan
from raysberta.pipeline.stages import Run
from raysberta.work import Facts, Work

RECORDED = Path(__file__).with_name("recorded_reads.json")
SEED = "(seed)"
"""What is taken down where a stage reads the seed of its work."""
_written: set[tuple[str, str]] = set()


def record(plan: Plan, folder: Path) -> Plan:
    """The plan with every stage recorded into files of a folder that all workers reach."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not find this file
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [
        replace(item, stage=replace(item.stage, run=Recording(item.stage.run, str(folder / f"{item.node.kind}.reads"))))
        for item in plan.nodes
    ]
    return replace(plan, nodes=nodes)


def read(folder: Path) -> dict[str, list[str]]:
    """By kind of node: the fields that its stages read, dotted from the node's settings, `*` for a key or a place."""
    return {path.stem: sorted(set(path.read_text().split("\n")) - {""}) for path in sorted(folder.glob("*.reads"))}


@dataclass(frozen=True)
class Recording:
    """A stage that is recorded. Picklable as the stage is."""

    run: Run
    sink: str

    def __call__(self, work: Work[Any]) -> Facts:
        """Run it."""
        return self.run(_Watched.of(work, self.sink))


class _Watched(Work[Any]):
    """Work that takes down its seed and its settings."""

    @classmethod
    def of(cls, work: Work[Any], sink: str) -> Work[Any]:
        fields = {**vars(work), "settings": recorded(work.settings, sink, "")}
        watched = cls(**fields)
        object.__setattr__(watched, "_sink", sink)
        return watched

    def __getattribute__(self, name: str) -> Any:
        if name == "seed":
            _write(object.__getattribute__(self, "__dict__").get("_sink"), SEED)
        return object.__getattribute__(self, name)


def recorded(value: Any, sink: str, path: str) -> Any:
    """A value whose sections take down what is asked of them; of two kinds of section in one place each has a path of its own."""
    if isinstance(value, Section):
        if hasattr(type(value), "_recorded_as"):
            return value
        kind = vars(value).get("kind")
        at = f"{path}[{kind}]" if isinstance(kind, str) else path
        copied = (model := _recording(type(value), sink, at)).__new__(model)
        for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
            given = object.__getattribute__(value, name)
            object.__setattr__(copied, name, dict(given) if name == "__dict__" else given)
        return copied
    if isinstance(value, Mapping):
        return {key: recorded(each, sink, f"{path}.*") for key, each in value.items()}
    return tuple(recorded(each, sink, f"{path}.*") for each in value) if isinstance(value, tuple) else value


@cache
def _recording(model: type[Section], sink: str, path: str) -> type[Section]:
    """The model's class with fields that are taken down: also where another process unpickles it, and in what is validated anew from it."""
    fields = frozenset(model.model_fields)

    def __getattribute__(self: Section, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name not in fields:
            return value
        at = f"{path}.{name}" if path else name
        _write(sink, at)
        return recorded(value, sink, at)

    def dumped(self: Section, method: str, **asked: Any) -> Any:
        plain = _plain(self, model)
        _write_all(plain, sink, path)
        return getattr(plain, method)(**asked)

    def __reduce__(self: Section) -> Any:
        return recorded, (_plain(self, model), sink, path.rpartition("[")[0] if path.endswith("]") else path)

    def __eq__(self: Section, other: object) -> bool:
        _write_all(_plain(self, model), sink, path)
        return bool(_plain(self, model) == _plain(other))

    space = {
        "__eq__": __eq__,
        "__hash__": model.__hash__,
        "__getattribute__": __getattribute__,
        "__reduce__": __reduce__,
        "__module__": model.__module__,
        "_recorded_as": path,
        "model_config": ConfigDict(use_attribute_docstrings=False, ignored_types=(str,)),
        "model_dump": lambda self, **asked: dumped(self, "model_dump", **asked),
        "model_dump_json": lambda self, **asked: dumped(self, "model_dump_json", **asked),
    }
    return type(model.__name__, (model,), space)


def _plain(value: Any, model: type[Section] | None = None) -> Any:
    """The value without any recording."""
    if isinstance(value, Section):
        state = object.__getattribute__(value, "__dict__")
        model = model or (type(value).__mro__[1] if hasattr(type(value), "_recorded_as") else type(value))  # type: ignore[assignment]
        return model.model_construct(
            object.__getattribute__(value, "__pydantic_fields_set__"), **{name: _plain(each) for name, each in state.items()}
        )
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return tuple(_plain(each) for each in value) if isinstance(value, tuple) else value


def _write_all(value: Any, sink: str, path: str) -> None:
    watched = recorded(value, sink, path)
    if isinstance(watched, Section):
        for name in type(value).model_fields:
            getattr(watched, name)
            each = object.__getattribute__(value, name)
            inner = object.__getattribute__(watched, "_recorded_as")
            _write_all(each, sink, f"{inner}.{name}" if inner else name)
    elif isinstance(value, Mapping):
        for each in value.values():
            _write_all(each, sink, f"{path}.*")
    elif isinstance(value, tuple):
        for each in value:
            _write_all(each, sink, f"{path}.*")


def _write(sink: str | None, path: str) -> None:
    if sink is not None and (sink, path) not in _written:
        _written.add((sink, path))
        handle = os.open(sink, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, f"{path}\n".encode())
        finally:
            os.close(handle)


if __name__ == "__main__":
    found = {**json.loads(RECORDED.read_text()), **read(Path(sys.argv[1]))}
    RECORDED.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
