"""What processes hold while something runs: their own pages, resident less shared, so the object store is counted apart."""

import json
import resource
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from rehearsal_cluster import name_of

PAGE = resource.getpagesize()
LOOK_SECONDS = 0.5
MIB = 2**20


@dataclass(frozen=True)
class Look:
    """The largest process of a moment."""

    time: float
    """Seconds since the epoch."""
    mib: float
    """Its own pages."""
    process: str
    shared_mib: float
    """The largest shared part of any process: of a raylet, its object store."""


class Watch:
    """Looks at processes until it is left; the looks are appended to a file, so that several sittings come together."""

    def __init__(self, processes: Callable[[], Iterable[psutil.Process]], file: Path) -> None:
        self._processes, self._file = processes, file
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            while not self._stop.wait(LOOK_SECONDS):
                look = look_at(self._processes())
                if look is not None:
                    stream.write(json.dumps(asdict(look)) + "\n")
                    stream.flush()


def look_at(processes: Iterable[psutil.Process]) -> Look | None:
    """The largest of some processes; None where none is there."""
    found = [(own, shared, process) for process in processes for own, shared in [own_and_shared(process.pid)] if own]
    if not found:
        return None
    own, _, largest = max(found, key=lambda each: each[0])
    return Look(time.time(), own / MIB, name_of(largest), max(shared for _, shared, _ in found) / MIB)


def own_and_shared(pid: int) -> tuple[int, int]:
    """Bytes of a process that it alone has in memory, and bytes of files and shared memory; zeros where it is gone."""
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except (OSError, ValueError):
        return 0, 0
    return (resident - shared) * PAGE, shared * PAGE


def read_looks(file: Path) -> list[Look]:
    """All looks of a file; a line that was cut off is left out."""
    if not file.exists():
        return []
    return [Look(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def largest(looks: Sequence[Look], start: float = 0.0, end: float = float("inf")) -> Look | None:
    """The look with the largest process of a span."""
    return max((look for look in looks if start <= look.time <= end), key=lambda look: look.mib, default=None)
