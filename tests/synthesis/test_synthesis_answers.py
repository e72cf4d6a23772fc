"""Answers that outlive an attempt: read back whole, failures left out; which batches are asked again; the budget of failures."""

from pathlib import Path

import pyarrow as pa
import pytest
from chosen import chosen_of

from raysberta.storage.artifacts import Draft, Store
from raysberta.storage.location import filesystem, join
from raysberta.synthesis.answers import FOLDER, Kept, batches, with_answers
from raysberta.synthesis.requests import requests


@pytest.fixture(params=["", "file://"])
def draft(request: pytest.FixtureRequest, tmp_path: Path) -> Draft:
    return Store(f"{request.param}{tmp_path}/runs").draft("written", "f")


@pytest.fixture
def asked(passages: list[dict]) -> pa.Table:
    return requests(chosen_of(passages[:10], 10, 200), "llm", ["llm_query"])


def test_answers_come_back_and_failures_do_not(draft: Draft):
    kept = Kept.of(draft, "vllm 1")
    assert kept.read() == {}
    kept.add({"a": ("один", ""), "b": ("", "RuntimeError: it broke"), "c": ("", "")})
    kept.add({"d": ("four", "")})
    kept.add({"e": ("", "RuntimeError: it broke")})
    assert kept.read() == {"a": ("один", ""), "c": ("", ""), "d": ("four", "")}
    assert Kept.of(draft, "vllm 2").read() == {}, "another version writes other texts"


def test_the_next_attempt_finds_them_until_one_is_committed(draft: Draft):
    Kept.of(draft, "vllm 1").add({"a": ("one", "")})
    store = Store(draft.storage)
    again = store.draft("written", "f")
    assert again.uri != draft.uri
    assert Kept.of(again, "vllm 1").read() == {"a": ("one", "")}
    assert Kept.of(store.draft("written", "g"), "vllm 1").read() == {}
    again.spent.append(join(again.checkpoints, FOLDER))
    assert Kept.of(again, "vllm 1").read() == {"a": ("one", "")}
    store.commit(again, "written", "f", {}, {}, 42, 0.0)
    assert Kept.of(again, "vllm 1").read() == {}
    store.commit(again, "written", "f", {}, {}, 42, 0.0)


def test_a_file_that_was_being_written_is_not_read(draft: Draft):
    kept = Kept.of(draft, "vllm 1")
    kept.add({"a": ("one", "")})
    fs, folder = filesystem(kept.place)
    with fs.open_output_stream(f"{folder}/0123.parquet.new") as stream:
        stream.write(b"PAR1 and then the power went")
    assert kept.read() == {"a": ("one", "")}


def test_only_batches_with_an_open_request_are_asked_and_whole(asked: pa.Table):
    ids = asked["request_id"].to_pylist()
    assert [part["request_id"].to_pylist() for part in batches(asked, 4, {})] == [ids[:4], ids[4:8], ids[8:]]
    answers = dict.fromkeys([*ids[:4], *ids[5:8]], ("text", ""))
    assert [part["request_id"].to_pylist() for part in batches(asked, 4, answers)] == [ids[4:8], ids[8:]]
    assert batches(asked, 4, dict.fromkeys(ids, ("", ""))) == []


def test_too_many_failures_end_the_stage(asked: pa.Table):
    answers = dict.fromkeys(asked["request_id"].to_pylist()[:7], ("text", ""))
    assert with_answers(asked, answers, 0.3)["error"].to_pylist().count("no answer came back") == 3
    with pytest.raises(RuntimeError, match=r"3 of 10 generations failed, failure_budget is 0\.2; the first: no answer came back"):
        with_answers(asked, answers, 0.2)
