"""Leases: of several runs on one storage, the one that may make an artifact; on local disks and object stores alike.

A run that wants to make a fingerprint writes a claim, a file of its own beside the attempts, and then lists all claims. Where there is
another, it takes its own back and tries again later; otherwise it holds the lease. Of two runs, the one that wrote later sees the other's
claim, so two never hold a lease at once: it takes no more than that a listing shows what was written before it.

A holder writes its claims anew every few seconds. Who waits watches a claim by its own clock: one that stands still for the seconds that
it names is dead and is removed, so no two clocks are compared. A holder stops believing in its lease a little earlier than that after it
last began to write, so one that was suspended for long, or whose storage was, has lost the lease and may not commit, whatever it finds.
"""

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict

from raysberta.storage.artifacts import Store
from raysberta.storage.location import first_line

log = logging.getLogger(__name__)

PREFIX = "claim-"
BEATS = 6
"""Beats within the time after which a claim counts as dead; its holder gives up a beat earlier."""
CLASH_SECONDS = 1.0
"""At most so long waits one of two that asked at once, so that they do not go on hindering each other in step."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease that was asked for."""

    host: str = ""
    pid: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "a process that cannot be named"


class _Claim(BaseModel):
    """What a claim's file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    host: str
    machine: str
    pid: int
    started: str
    seconds: float
    """After so long without moving it is dead."""
    beat: str
    """Another each time."""


@dataclass
class _Held:
    path: str
    """Of the claim: one of its own for every lease taken, so whoever removes it removes no later one."""
    renewed: float
    """When the last write of it that came through began."""


@dataclass(frozen=True)
class _Seen:
    content: bytes
    since: float


class Leases:
    """The leases of one run. Used by one thread; another one beats."""

    def __init__(self, store: Store, seconds: float = 60.0) -> None:
        """Hold nothing yet.

        Args:
            store: Of all runs that share artifacts.
            seconds: This run is dead to others once its claims have not moved for so long. Each claim names its own.
        """
        self.store, self.seconds = store, seconds
        self._valid = seconds * (1 - 1 / BEATS)
        self._held: dict[str, _Held] = {}
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, kind: str, fingerprint: str) -> Holder | None:
        """Try once to take the lease: None where it is taken, otherwise who has it. Ask again later."""
        home = self.store.home(kind, fingerprint)
        holder = self._other(home, "")
        if holder is not None:  # most of the time this is known before anything is written
            return holder
        began, path = _now(), f"{home}/{PREFIX}{uuid.uuid4().hex}"
        self.store.fs.create_dir(home, recursive=True)
        self._write(path)
        holder = self._other(home, path)
        if holder is not None or _now() - began > self._valid:
            self._delete(path)
            time.sleep(random.uniform(0, min(CLASH_SECONDS, self.seconds / BEATS)))
            return holder or Holder()
        with self._lock:
            self._held[home] = _Held(path, began)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
            self._thread.start()
        return None

    def holds(self, kind: str, fingerprint: str) -> bool:
        """Whether the lease is still this run's. It is renewed first, so what is done at once after a yes is done under the lease."""
        with self._lock:
            return self._renew(self.store.home(kind, fingerprint))

    def give(self, kind: str, fingerprint: str) -> None:
        """Give the lease back."""
        with self._lock:
            held = self._held.pop(self.store.home(kind, fingerprint), None)
        if held is not None:
            self._delete(held.path)

    def close(self) -> None:
        """Give all leases back and end the beating."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        for held in self._held.values():
            self._delete(held.path)
        self._held.clear()

    def _beat(self) -> None:
        while not self._ended.wait(self.seconds / BEATS):
            for home in list(self._held):
                with self._lock:
                    try:
                        self._renew(home)
                    except (OSError, pa.ArrowException) as error:  # tried again at the next beat, until the time is over
                        log.warning("%s: the lease could not be renewed: %s", home, first_line(error))

    def _renew(self, home: str) -> bool:
        """Write the claim anew, and whether that ended in time after the write before: only then nobody can have removed it meanwhile."""
        held = self._held.get(home)
        if held is None:
            return False
        began = _now()
        if began - held.renewed < self._valid and self.store.fs.get_file_info(held.path).is_file:
            self._write(held.path)
            if _now() - held.renewed < self._valid:
                held.renewed = began
                return True
        log.warning("%s: the lease ran out while this run or its storage stood still; another run may go on with it", home)
        del self._held[home]
        self._delete(held.path)
        return False

    def _other(self, home: str, own: str) -> Holder | None:
        """Who else has a living claim; dead claims are removed."""
        for path in self._claims(home):
            if path != own:
                holder = self._living(path)
                if holder is not None:
                    return holder
        return None

    def _claims(self, home: str) -> Iterator[str]:
        for info in self.store.fs.get_file_info(pafs.FileSelector(home, allow_not_found=True)):
            if info.base_name.startswith(PREFIX):
                yield info.path

    def _living(self, path: str) -> Holder | None:
        """Who wrote the claim, or None where it was given back or is dead and is removed now."""
        now = _now()  # before the read: what is read then may be older, never younger
        try:
            with self.store.fs.open_input_stream(path) as stream:
                content = stream.read()
        except FileNotFoundError:
            self._seen.pop(path, None)
            return None
        except OSError as error:  # on an object store: removed or written anew between the request for its size and that for its content
            log.debug("%s: could not be read: %s", path, first_line(error))
            return Holder()
        claim = _parsed(content)
        seen = self._seen.get(path)
        if claim is not None and claim.machine == _machine() != "" and not _runs(claim.pid, claim.started):
            dead = True  # no need to wait for what cannot come back
        elif seen is None or seen.content != content:
            self._seen[path] = _Seen(content, _now())
            dead = False
        else:
            dead = now - seen.since > (claim.seconds if claim is not None else self.seconds)
        if not dead:
            return Holder(claim.host, claim.pid) if claim is not None else Holder()
        log.info("%s: its holder is gone, its lease ran out", path)
        self._delete(path)
        return None

    def _write(self, path: str) -> None:
        """Not moved into place: half a claim is one that moves, too, and a file in the way of the move would outlive a killed run."""
        pid = os.getpid()
        claim = _Claim(
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            started=_started(pid),
            seconds=self.seconds,
            beat=uuid.uuid4().hex,
        )
        with self.store.fs.open_output_stream(path) as stream:
            stream.write(claim.model_dump_json().encode())

    def _delete(self, path: str) -> None:
        self._seen.pop(path, None)
        try:
            self.store.fs.delete_file(path)
        except (OSError, pa.ArrowException) as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("%s: could not be removed, and runs out by itself: %s", path, first_line(error))


def _parsed(content: bytes) -> _Claim | None:
    try:
        return _Claim.model_validate_json(content)
    except ValueError:  # being written, or by another version
        return None


def _now() -> float:
    """Seconds of a clock that is never set and goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def _machine() -> str:
    """This boot of this machine, and the space in which its process numbers count: containers have their own."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process of this machine started, in ticks since the boot: with its number it names the process, however often numbers come
    round. Empty where that cannot be seen, or the process has ended and only its parent has not noticed.

    See proc_pid_stat(5): the name, in parentheses, may hold anything; after it the state is the first field, the start the 20th.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _runs(pid: int, started: str) -> bool:
    """Whether a process of this machine is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, whose start may be hidden
        return _started(pid) in ("", started)
    return _started(pid) == started
