"""Leases: of many processes one holds it, a dead one's is taken over, one that slept has lost it; on a local disk and on S3."""

import json
import logging
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from raysberta.storage.artifacts import Store
from raysberta.storage.leases import BEATS, CLASH_SECONDS, Leases, _started
from storage.contenders import KIND, MARK, commit, hammer, hold, make_once, start, take, wait_for, words

SHORT = 3.0
"""Seconds without moving after which a claim is dead; a holder's beats are well within it on a busy machine, too."""


def claims(store: Store) -> list[str]:
    listed = store.fs.get_file_info(pafs.FileSelector(store.home(KIND, MARK), allow_not_found=True))
    return [info.path for info in listed if info.base_name.startswith("claim-")]


def plant(store: Store, **changed: object) -> str:
    """The claim of a run that is not there: on another machine where nothing else is said. Returns its path."""
    mine = Leases(store)
    take(mine)
    (path,) = claims(store)
    with store.fs.open_input_stream(path) as stream:
        claim = json.loads(stream.read()) | {"machine": "another", "host": "far", "pid": 7, "seconds": SHORT} | changed
    mine.close()
    beat(store, f"{path}0", claim)
    return f"{path}0"


def beat(store: Store, path: str, claim: dict[str, object] | None = None) -> None:
    """Write a claim, or write one anew."""
    if claim is None:
        with store.fs.open_input_stream(path) as stream:
            claim = json.loads(stream.read())
    with store.fs.open_output_stream(path) as stream:
        stream.write(json.dumps(claim | {"beat": str(time.monotonic())}).encode())


def made_by(store: Store) -> str:
    artifact = store.find(KIND, MARK)
    assert artifact is not None
    word: str = artifact.table("rows")["word"][0].as_py()
    return word


def test_the_holder_is_named_and_a_given_lease_is_free(store: Store) -> None:
    one, two = Leases(store), Leases(store)
    assert not one.holds(KIND, MARK), "nobody holds what nobody took"
    assert one.take(KIND, MARK) is None
    assert one.holds(KIND, MARK)
    holder = two.take(KIND, MARK)
    assert holder is not None
    assert holder.pid == os.getpid()
    assert str(holder).startswith(f"process {os.getpid()} on ")
    assert not two.holds(KIND, MARK)
    assert two.take(KIND, "e" * 16) is None, "another fingerprint is another lease"
    one.give(KIND, MARK)
    assert not one.holds(KIND, MARK)
    assert two.take(KIND, MARK) is None
    one.give(KIND, MARK)
    assert two.holds(KIND, MARK), "what one does not hold one cannot give"
    one.close()
    two.close()
    assert claims(store) == []
    assert one.take(KIND, MARK) is None, "what was closed is free"


def test_two_runs_make_an_artifact_once(store: Store, tmp_path: Path) -> None:
    told = tmp_path / "told"
    both = [start(make_once, store.uri, told) for _ in range(2)]
    for process in both:
        process.join(60)
    assert sorted(words(told)) == ["done", "done", "makes"]
    assert made_by(store) in {str(process.pid) for process in both}
    assert claims(store) == []


def test_a_killed_holder_of_this_machine_is_followed_at_once(store: Store, tmp_path: Path) -> None:
    told = tmp_path / "told"
    holder = start(hold, store.uri, 600, told, "never")
    wait_for(told, "holds")
    leases = Leases(store, 600)
    seen = leases.take(KIND, MARK)
    assert seen is not None
    assert seen.pid == holder.pid
    os.kill(holder.pid or 0, signal.SIGKILL)  # not waited for: the system still lists it, as ended
    assert take(leases) < 10, "nobody waits 600 seconds for what cannot come back"
    commit(store, "second")
    assert leases.holds(KIND, MARK)
    leases.close()
    holder.join()
    assert made_by(store) == "second"


def test_another_machine_is_waited_for_by_ones_own_clock(store: Store) -> None:
    path = plant(store)
    leases = Leases(store, 600)
    waited = take(leases)
    assert SHORT <= waited < SHORT + 10, "as long as the claim says, not as long as one's own would"
    assert path not in claims(store)
    leases.close()


def test_a_claim_that_moves_lives(store: Store) -> None:
    path = plant(store)
    leases = Leases(store)
    end = time.monotonic() + 2 * SHORT
    while time.monotonic() < end:
        holder = leases.take(KIND, MARK)
        assert holder is not None
        assert (holder.host, holder.pid) == ("far", 7)
        time.sleep(SHORT / BEATS)
        beat(store, path)
    assert take(leases) >= SHORT - SHORT / BEATS, "from when it was last seen to move"
    leases.close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"host": "h"}'])
def test_a_claim_that_cannot_be_read_is_waited_for_too(store: Store, content: bytes) -> None:
    path = plant(store)
    with store.fs.open_output_stream(path) as stream:
        stream.write(content)
    leases = Leases(store, SHORT)
    holder = leases.take(KIND, MARK)
    assert str(holder) == "a process that cannot be named"
    assert SHORT / 2 < take(leases) < SHORT + 10
    leases.close()


@pytest.mark.parametrize("ended", ["number came round", "not waited for"])
def test_a_process_that_ended_is_no_holder(store: Store, ended: str) -> None:
    """A claim of this machine and boot; the number of its process is another's now, or its parent has not asked how it ended."""
    mine = Leases(store)
    take(mine)
    with store.fs.open_input_stream(claims(store)[0]) as stream:
        machine = json.loads(stream.read())["machine"]
    mine.close()
    assert machine, "Linux names it"
    process = subprocess.Popen(["sleep", "600"])
    started = _started(process.pid)
    plant(store, machine=machine, pid=process.pid, started=started, seconds=600)
    leases = Leases(store)
    holder = leases.take(KIND, MARK)
    assert holder is not None
    assert holder.pid == process.pid
    if ended == "not waited for":
        process.kill()
    else:
        store.fs.delete_file(claims(store)[0])
        plant(store, machine=machine, pid=process.pid, started=str(int(started) - 1), seconds=600)
    assert take(leases) < 10
    leases.close()
    process.kill()
    process.wait()


def test_a_holder_that_beats_keeps_its_lease(store: Store, tmp_path: Path) -> None:
    told = tmp_path / "told"
    holder = start(hold, store.uri, SHORT, told, "go")
    wait_for(told, "holds")
    leases = Leases(store, SHORT)
    end = time.monotonic() + 2 * SHORT
    while time.monotonic() < end:
        assert leases.take(KIND, MARK) is not None
        time.sleep(0.05)
    told.open("a").write("0 go\n")
    holder.join(60)
    assert words(told) == ["holds", "go", "committed"]
    assert made_by(store) == "holder"


def test_a_holder_that_slept_may_not_commit(store: Store, tmp_path: Path) -> None:
    told = tmp_path / "told"
    holder = start(hold, store.uri, SHORT, told, "go")
    wait_for(told, "holds")
    leases = Leases(store, SHORT)
    os.kill(holder.pid or 0, signal.SIGSTOP)
    try:
        assert take(leases) >= SHORT - SHORT / BEATS, "the process is there: it is given its time"
        commit(store, "second")
        told.open("a").write("0 go\n")
    finally:
        os.kill(holder.pid or 0, signal.SIGCONT)
    holder.join(60)
    assert words(told) == ["holds", "go", "lost"]
    assert made_by(store) == "second"
    assert leases.holds(KIND, MARK), "what the sleeper left undone does no harm to who came after"
    assert len(claims(store)) == 1
    leases.close()


def test_a_holder_that_slept_has_lost_even_what_nobody_took(store: Store, tmp_path: Path) -> None:
    told = tmp_path / "told"
    holder = start(hold, store.uri, SHORT, told, "go")
    wait_for(told, "holds")
    os.kill(holder.pid or 0, signal.SIGSTOP)
    time.sleep(SHORT)
    told.open("a").write("0 go\n")
    os.kill(holder.pid or 0, signal.SIGCONT)
    holder.join(60)
    assert words(told) == ["holds", "go", "lost"]
    assert claims(store) == []


def test_a_write_that_storage_held_up_gives_no_lease_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim was removed while its holder was writing it: the file is there again, the lease is not."""
    slow, quick = Leases(store, SHORT), Leases(store, SHORT)
    take(slow)
    write, go = slow._write, threading.Event()

    def late(path: str) -> None:
        go.wait(60)
        write(path)

    monkeypatch.setattr(slow, "_write", late)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(slow.holds, KIND, MARK)
        take(quick)
        go.set()
        assert not asked.result()
    assert not slow.holds(KIND, MARK)
    assert quick.holds(KIND, MARK)
    slow.close()
    assert len(claims(store)) == 1
    quick.close()


def test_who_asked_and_then_slept_holds_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its claim and its look for others it slept so long that the others may have come and gone."""
    leases = Leases(store, SHORT)
    write = leases._write

    def slept(path: str) -> None:
        write(path)
        time.sleep(SHORT)

    monkeypatch.setattr(leases, "_write", slept)
    assert leases.take(KIND, MARK) is not None
    assert claims(store) == []


def test_a_lost_lease_can_be_taken_again(store: Store) -> None:
    leases = Leases(store, 60)
    take(leases)
    store.fs.delete_file(claims(store)[0])
    assert not leases.holds(KIND, MARK), "its claim is gone"
    assert leases.take(KIND, MARK) is None
    assert leases.holds(KIND, MARK)
    leases.close()


@pytest.mark.parametrize("beats", [2, 20])
def test_storage_that_fails_is_tried_again_while_there_is_time(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, beats: int
) -> None:
    leases = Leases(store, SHORT)
    take(leases)
    write, failed = leases._write, []

    def fails(path: str) -> None:
        if len(failed) < beats:
            failed.append(path)
            raise OSError("no answer from s3://K:SECRET@b\nsecond line")
        write(path)

    monkeypatch.setattr(leases, "_write", fails)
    with caplog.at_level(logging.WARNING):
        time.sleep(SHORT + SHORT / BEATS)
    assert leases.holds(KIND, MARK) == (beats == 2)
    leases.close()
    assert claims(store) == []
    assert "the lease could not be renewed: no answer from s3://b" in caplog.text
    assert ("the lease ran out" in caplog.text) == (beats == 20)
    assert "SECRET" not in caplog.text
    assert "second line" not in caplog.text


def test_of_two_that_ask_at_once_who_steps_back_waits_a_random_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [Leases(store) for _ in range(2)]
    step = threading.Barrier(2)
    for leases in both:
        monkeypatch.setattr(leases, "_write", lambda path, write=leases._write: (step.wait(60), write(path), step.wait(60)))
    waits = []
    monkeypatch.setattr("random.uniform", lambda low, high: waits.append((low, high)) or 0.0)
    with ThreadPoolExecutor() as pool:
        holders = list(pool.map(lambda leases: leases.take(KIND, MARK), both))
    taken = holders.count(None)
    assert taken < 2, "never both; one at most, where the other's claim was gone again when it looked"
    assert waits == [(0, CLASH_SECONDS)] * (2 - taken)
    assert len(claims(store)) == taken
    monkeypatch.undo()
    for leases in both:
        leases.close()


def test_of_many_one_holds_and_all_have_their_turn(store: Store, tmp_path: Path) -> None:
    turns = 3
    told, inside = tmp_path / "told", tmp_path / "inside"
    many = [start(hammer, store.uri, turns, told, inside) for _ in range(8)]
    for process in many:
        process.join(300)
    assert [process.exitcode for process in many] == [0] * len(many), words(told)
    assert "two" not in words(told), "two held it at once"
    assert words(told).count("turn") == 8 * turns
    assert words(told).count("done") == 8
    assert claims(store) == []
