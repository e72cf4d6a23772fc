"""The real SmolLM2: through vLLM on Ray Data, and through transformers with the same prompts."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from raysberta.artifacts import Artifact, Store
from raysberta.errors import InputError
from raysberta.recipe import Llm, Recipe
from raysberta.schema import DOCUMENT
from raysberta.synthesis import stage
from raysberta.synthesis.decoder import Decoder, sampling
from raysberta.synthesis.requests import choose, requests


def recipe(**llm: object) -> Recipe:
    settings = {"passages": 2, "max_passage_characters": 200, "max_model_length": 384, "batch_size": 4, "max_new_tokens": 16, **llm}
    return Recipe.model_validate(
        {
            "name": "t",
            "sources": {"docstrings": {"kind": "docstrings"}},
            "mining": {"max_tokens": 48},
            "synthesis": {"llm": settings, "round_trip_pool": 40, "failure_budget": 0.5},
        }
    )


@pytest.mark.usefixtures("ray_local")
def test_vllm_writes_and_a_prompt_that_is_too_long_is_a_row_with_an_error(
    passages: list[dict], smollm_folder: Path, e5_folder: Path, committed: Callable[..., Artifact], tmp_path: Path, caplog
):
    documents = [*passages[:60], {**passages[60], "title": "far too long " * 200, "doc_id": "long"}]
    inputs = {
        "models": committed("models", miner=e5_folder),
        "generators": committed("generators", llm=smollm_folder),
        "corpus": committed("corpus", documents=documents[-3:]),
    }
    store = Store(str(tmp_path / "out"))
    draft = store.draft("synthesis", "f")
    caplog.set_level(logging.INFO, "raysberta.synthesis.stage")
    stage.run(recipe(passages=3), inputs, draft)
    artifact = store.commit(draft, "synthesis", "f", {}, {}, 42, time.time())
    rows = artifact.table("generations").to_pylist()
    failed = [row for row in rows if row["doc_id"] == "long"]
    good = [row for row in rows if row["doc_id"] != "long"]
    assert len(failed) == 2
    assert all(row["error"] and row["reason"] == "failed" and not row["output"] for row in failed)
    assert len(good) == 4
    assert all(row["output"] and not row["error"] for row in good)
    assert draft.metrics["engine"]["llm"].startswith("vllm ")
    assert draft.metrics["written"] == 4
    assert draft.metrics["kept"] + sum(draft.metrics["dropped"].values()) == 6
    assert any("synthesis: engine vllm" in message for message in caplog.messages)


def test_transformers_answers_the_same_prompts(passages: list[dict], smollm_folder: Path):
    settings = recipe().synthesis.llm
    table = requests(choose(pa.Table.from_pylist(passages[:10], DOCUMENT), 2, 200, 1), "llm", ["llm_query"])
    prompts = stage._prompts(smollm_folder, settings, table)
    assert prompts["prompt"][0].as_py().rstrip().endswith("<|im_start|>assistant")
    ids, texts, kinds = (prompts[name].to_pylist() for name in ("request_id", "prompt", "kind"))
    decoder = Decoder(smollm_folder, settings, 1)
    outputs, errors = decoder.answer(texts, kinds, ids)
    assert errors == ["", ""]
    assert all(len(output.split()) >= 3 for output in outputs)
    assert decoder.answer(texts, kinds, ids) == (outputs, errors)
    outputs, errors = decoder.answer(["word " * 500], ["llm_query"], ids[:1])
    assert outputs == [""]
    assert "max_model_length 384" in errors[0]


def test_each_request_has_its_own_seed():
    settings = Llm(temperature=0.5)
    first, second = (sampling(settings, "llm_query", name * 16, 42) for name in "ab")
    assert first["seed"] != second["seed"]
    assert first == sampling(settings, "llm_query", "a" * 16, 42)
    assert "seed" not in sampling(Llm(temperature=0), "llm_query", "a" * 16, 42)


def test_too_many_failures_end_the_stage(passages: list[dict]):
    table = requests(choose(pa.Table.from_pylist(passages[:10], DOCUMENT), 10, 200, 1), "llm", ["llm_query"])
    answers = dict.fromkeys(table["request_id"].to_pylist()[:7], ("text", ""))
    assert stage._answered(table, answers, 0.3)["error"].to_pylist().count("no answer came back") == 3
    with pytest.raises(RuntimeError, match=r"3 of 10 generations failed, failure_budget is 0\.2; the first: no answer came back"):
        stage._answered(table, answers, 0.2)


def test_no_fitting_passage_is_bad_input(passages: list[dict], committed: Callable[..., Artifact]):
    corpus = committed("corpus", documents=[{**row, "split": "test"} for row in passages[:5]])
    with pytest.raises(InputError, match="no training passage in 'en'"):
        stage._requests(corpus, recipe().synthesis.llm, 200, "llm", ["llm_query"], 1)
