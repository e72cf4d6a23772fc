"""Runs that want the same artifact, as processes of their own; each tells in a file what it did."""

import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysberta.storage.artifacts import Store
from raysberta.storage.leases import Leases

KIND, MARK = "pairs", "f" * 16
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")  # read where the server below starts: it forks, and has no thread
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


def start(target: Any, *arguments: Any) -> BaseProcess:
    """A process of its own, forked from one that has no S3 client and no thread."""
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def say(told: Path, word: str) -> None:
    """One line, whole, however many write."""
    with told.open("a") as stream:
        stream.write(f"{os.getpid()} {word}\n")


def words(told: Path) -> list[str]:
    """What all have said until now."""
    return [line.split()[1] for line in told.read_text().splitlines()] if told.exists() else []


def wait_for(told: Path, word: str, seconds: float = 60) -> None:
    """Until somebody says it."""
    end = time.monotonic() + seconds
    while word not in words(told):
        assert time.monotonic() < end, f"nobody said {word!r} in {seconds} s, but {words(told)}"
        time.sleep(0.02)


def take(leases: Leases, seconds: float = 60) -> float:
    """Ask until the lease is taken; seconds that it took."""
    begun = time.monotonic()
    while (holder := leases.take(KIND, MARK)) is not None:
        assert time.monotonic() < begun + seconds, f"{holder} has it still"
        time.sleep(0.02)
    return time.monotonic() - begun


def commit(store: Store, word: str) -> None:
    """What a holder does."""
    draft = store.draft(KIND, MARK)
    draft.write_table("rows", pa.table({"word": [word]}))
    draft.rows_out = 1
    store.commit(draft, KIND, MARK, {}, {}, 42, time.time())


def make_once(uri: str, told: Path) -> None:
    """Like a run: reuse what is there, else make it under the lease, else wait for who makes it."""
    store = Store(uri)
    leases = Leases(store, 60)
    while store.find(KIND, MARK) is None:
        if leases.take(KIND, MARK) is None:
            if store.find(KIND, MARK) is None:
                say(told, "makes")
                time.sleep(0.3)
                assert leases.holds(KIND, MARK)
                commit(store, str(os.getpid()))
            leases.give(KIND, MARK)
        time.sleep(0.02)
    say(told, "done")
    leases.close()


def hold(uri: str, seconds: float, told: Path, until: str) -> None:
    """Take the lease, wait for a word, then commit if it is still one's own."""
    store = Store(uri)
    leases = Leases(store, seconds)
    take(leases)
    say(told, "holds")
    wait_for(told, until)
    if leases.holds(KIND, MARK):
        commit(store, "holder")
        say(told, "committed")
    else:
        say(told, "lost")
    leases.close()


def hammer(uri: str, turns: int, told: Path, inside: Path) -> None:
    """Take the lease again and again; a file that only one can make shows whether one is ever held twice."""
    leases = Leases(Store(uri), 60)
    for _ in range(turns):
        take(leases, 240)
        try:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            say(told, "two")
            return
        time.sleep(0.01)
        inside.unlink()
        leases.give(KIND, MARK)
        say(told, "turn")
    leases.close()
    say(told, "done")
