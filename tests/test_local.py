"""A local Ray of one's own comes up, answers only to its token, and leaves nothing behind."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import requests

from raysberta import local

ROOT = Path(__file__).parents[1]


def test_up_and_down_leave_nothing(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    cluster = local.start(runs, kept=True)
    try:
        assert local.running(runs) == cluster
        token = (runs / "ray" / "token").read_text()
        assert (runs / "ray" / "token").stat().st_mode & 0o077 == 0
        deadline = time.monotonic() + 30
        address = f"{cluster.dashboard}/api/version"
        while requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert requests.get(f"{cluster.dashboard}/api/jobs/", timeout=10).status_code in (401, 403)
        family = psutil.Process(cluster.pid).children(recursive=True)
        assert any("raylet" in process.name() for process in family)
    finally:
        assert local.stop(runs)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert local.running(runs) is None
    assert not local.stop(runs)


def test_bad_input_starts_nothing_and_exits_2() -> None:
    for arguments, says in (
        (["--recipe", "nowhere.yaml"], "no such recipe file"),
        (["--set", "contrastive.stepz=3"], "did you mean steps?"),
        (["--job", "nothing"], "no such job"),
    ):
        done = subprocess.run([sys.executable, "jobs/local.py", "run", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert (
            not (ROOT / "runs" / "ray" / "cluster.json").exists()
            or json.loads((ROOT / "runs" / "ray" / "cluster.json").read_text())["kept"]
        )
