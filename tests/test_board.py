"""The board on a real local Ray: what processes say reaches whoever reads it, each warning once."""

import logging
import time
from typing import Any

import pytest
import ray

from raysberta.board import NAME, attach, open_board
from raysberta.progress import progress, report_to


@ray.remote(num_cpus=1)
def speaks(node: str, times: int) -> None:
    attach()
    log = logging.getLogger("raysberta.corpus.quality")
    for step in range(times):
        progress(node, "documents", step + 1, times)
        log.warning("few documents")
        log.info("not for the board")
    logging.getLogger("ray").warning("chatter of a library")
    log.warning("few documents of %s", node)


def read(board: Any, wanted: int) -> tuple[dict[str, Any], list[str]]:
    """What is there once so many warnings have come: calls to the board are not waited for by who makes them."""
    reports, warnings = {}, []
    deadline = time.monotonic() + 30
    while len(warnings) < wanted and time.monotonic() < deadline:
        fresh, told = ray.get(board.read.remote())
        reports |= {report.node: report for report in fresh}
        warnings += told
        time.sleep(0.1)
    return reports, warnings


@pytest.mark.usefixtures("ray_local")
def test_progress_and_warnings_of_all_processes_come_together() -> None:
    board = open_board()
    try:
        ray.get([speaks.remote("a", 5), speaks.remote("b", 7)])
        reports, warnings = read(board, 3)
        assert {name: (report.done, report.total, report.what) for name, report in reports.items()} == {
            "a": (5, 5, "documents"),
            "b": (7, 7, "documents"),
        }
        assert sorted(warnings) == ["quality: few documents", "quality: few documents of a", "quality: few documents of b"], "each once"
        assert ray.get(board.read.remote()) == ([], []), "what was read is taken down"
    finally:
        ray.kill(board)


@pytest.mark.usefixtures("ray_local")
def test_without_a_board_what_is_said_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=NAME):
        ray.get_actor(NAME)
    level = logging.getLogger().level, logging.getLogger().handlers[:]
    try:
        attach()
        logging.getLogger().addHandler(caplog.handler)
        progress("alone", "texts", 3, 3)
        assert "alone: 3 of 3 texts" in caplog.text
    finally:
        report_to(None)
        logging.getLogger().setLevel(level[0])
        logging.getLogger().handlers[:] = level[1]
