"""What of a job's output is shown: events as they come, the job's own words at the end, nothing of workers and libraries."""

import io
import os
from pathlib import Path

import pytest

from pipeline.small_stages import Seen
from raysberta.errors import InputError
from raysberta.pipeline.local import Cluster, _exit_code, _free_port, _shown
from raysberta.pipeline.view import Event

OUTPUT = """Job submission server address: http://127.0.0.1:8265
2026-11-24 10:00:00,000 INFO worker.py:1841 -- Connecting to existing Ray cluster
@event {"what": "started", "node": "tuned", "text": "", "done": 0, "total": 0}(score_merged pid=81) into an event

(RayTrainWorker pid=77) 10:00:01 I raysberta.training.loop: tuned: step 1/4
\x1b[36m(tuned pid=78)\x1b[0m [2026-11-24 10:00:02] DeepSpeed info: version=0.19.8
(MapWorker(MapBatches(vLLMEngineStageUDF)) pid=80) INFO 11-24 an engine is up
(pid=79) Traceback of a library that was caught
\x1b[A\x1b[36m(score_merged pid=81)\x1b[0m a bar was moved first
10:00:03 I raysberta.pipeline: a line of a logger
@event {"what": "done", "node": "tuned", "text": "done in 2.0 s", "done": 0, "total": 0}
test halves, main score x 100(score_merged pid=81) DeepSpeed into a line of the job
\x1b[36m(score_merged pid=81)\x1b[0m Batches: 100%@event {"what": "done", "node": "merged", "text": "", "done": 0, "total": 0}
no task got worse
failed: written: ray::write() (pid=82, ip=10.0.0.1) ran out of memory
error: b: sources.d.path: no such folder
{"model": "/m", "reused": []}
Status message: Job entrypoint command failed
test halves, main score x 100
{"model": "/other", "reused": []}
"""


def test_only_events_and_the_jobs_own_words() -> None:
    log, seen = io.StringIO(), Seen()
    words, last = _shown(OUTPUT.splitlines(keepends=True), log, seen)
    assert log.getvalue() == OUTPUT, "the log file has everything"
    assert seen.events == [Event("started", "tuned"), Event("done", "tuned", "done in 2.0 s"), Event("done", "merged")]
    assert [line.strip() for line in words] == [
        "test halves, main score x 100",
        "no task got worse",
        "failed: written: ray::write() (pid=82, ip=10.0.0.1) ran out of memory",
        "error: b: sources.d.path: no such folder",
    ]
    assert last == '{"model": "/m", "reused": []}', "what Ray repeats from the log is not taken for news"


def test_a_ray_that_has_stopped_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run of the checkout had started it, and has ended."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # what is set goes back
    token = tmp_path / "ray" / "token"
    token.parent.mkdir()
    token.write_text("a" * 64)
    gone = Cluster(f"http://127.0.0.1:{_free_port(18265)}", os.getpid(), False, os.getpid())
    with pytest.raises(InputError, match=r"the Ray at http://127\.0\.0\.1:\d+ has stopped, .*; right would be the same command again"):
        _exit_code(tmp_path, gone, "full_pipeline-1", 1)
