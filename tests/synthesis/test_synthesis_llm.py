"""The real SmolLM2: through vLLM on Ray Data, and through transformers with the same prompts."""

import logging
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chosen import chosen_of

from killed import killed_once
from raysberta.errors import InputError
from raysberta.storage.artifacts import Artifact, Store
from raysberta.synthesis import stage
from raysberta.synthesis.answers import Kept
from raysberta.synthesis.decoder import Decoder, prompted, sampling
from raysberta.synthesis.facts import WrittenFacts
from raysberta.synthesis.requests import requests
from raysberta.synthesis.settings import LlmPairs, WrittenPairs
from raysberta.work import Work


def written(**given: object) -> WrittenPairs:
    settings = {"passages": 2, "max_passage_characters": 200, "max_model_length": 384, "batch_size": 4, "max_new_tokens": 16, **given}
    settings |= {"kind": "llm", "by": "writer", "kept_if_found_by": "e5", "find_tokens": 48, "pool": 40, "failure_budget": 0.5}
    return WrittenPairs.model_validate({"documents": "corpus", "how": settings})


def how(**given: object) -> LlmPairs:
    found = written(**given).how
    assert isinstance(found, LlmPairs)
    return found


@pytest.mark.usefixtures("ray_local")
def test_vllm_writes_and_a_prompt_that_is_too_long_is_a_row_with_an_error(
    passages: list[dict], smollm_folder: Path, e5_folder: Path, committed: Callable[..., Artifact], tmp_path: Path, caplog
):
    documents = [*passages[:60], {**passages[60], "title": "far too long " * 200, "doc_id": "long"}]
    inputs = {
        "e5": committed("e5", model=e5_folder),
        "writer": committed("writer", model=smollm_folder),
        "corpus": committed("corpus", documents=documents[-3:]),
    }
    store = Store(str(tmp_path / "out"))
    draft = store.draft("written", "f")
    caplog.set_level(logging.INFO, "raysberta.synthesis.stage")
    facts = stage.run(Work(written(passages=3), inputs, draft, node="questions"))
    kept = Kept.of(draft, facts.engine).read()
    artifact = store.commit(draft, "written", "f", {}, {}, 42, time.time(), facts)
    rows = artifact.table("generations").to_pylist()
    failed = [row for row in rows if row["doc_id"] == "long"]
    good = [row for row in rows if row["doc_id"] != "long"]
    assert len(failed) == 2
    assert all(row["error"] and row["reason"] == "failed" and not row["output"] for row in failed)
    assert len(good) == 4
    assert all(row["output"] and not row["error"] for row in good)
    told = artifact.told(WrittenFacts)
    assert told.engine.startswith("vllm ")
    assert told.written == 4
    assert told.kept + sum(told.dropped.values()) == 6
    assert any("questions: engine vllm" in message for message in caplog.messages)
    assert not Path(draft.checkpoints, "answers").exists(), "what is committed need not be kept"
    assert (draft.rows_in, len(kept)) == (6, 4)


@pytest.mark.usefixtures("ray_local")
def test_a_kill_loses_the_batch_in_flight_at_most(
    passages: list[dict], smollm_folder: Path, committed: Callable[..., Artifact], tmp_path: Path, caplog
):
    """SIGKILL after the first batches; the second attempt asks what the first was not answered, and gives what an unbroken one gives."""
    table = requests(chosen_of(passages[:40], 12, 200), "llm", ["llm_query"])
    settings = written(batch_size=2, max_new_tokens=8, temperature=0.5)
    prompts = prompted(smollm_folder, settings.how, table, "n")
    inputs = {"writer": committed("writer", model=smollm_folder)}
    store = Store(str(tmp_path / "out"))

    def attempt(name: str, node: str) -> tuple[Work, Kept]:
        work = Work(settings, inputs, store.draft(name, "f"), node=node)
        return work, Kept.of(work.draft, "transformers 1")

    def answered(name: str, node: str) -> dict:
        work, kept = attempt(name, node)
        return stage._answer_transformers(work, settings.how, prompts, kept)

    work, kept = attempt("cut", "cut short")
    given = tmp_path / "work.pickle"
    given.write_bytes(pickle.dumps((work, prompts, kept)))
    killed_once(lambda: len(list(Path(kept.place).glob("*.parquet"))) >= 2, Path(__file__).with_name("writing_process.py"), given)
    first = kept.read()
    assert 4 <= len(first) < 12 and len(first) % 2 == 0, "whole batches"
    marked = next(iter(first))
    kept.add({**first, marked: ("as it was kept", "")})
    caplog.set_level(logging.INFO, "raysberta.synthesis.stage")
    found = answered("cut", "gone on")
    assert any(f"gone on: {len(first)} of 12 requests were answered before" in message for message in caplog.messages)
    assert found[marked] == ("as it was kept", ""), "it was not asked again"
    whole = answered("whole", "whole")
    assert {key: value for key, value in found.items() if key != marked} == {key: value for key, value in whole.items() if key != marked}
    assert len(kept.read()) == 12
    caplog.clear()
    assert answered("cut", "all there") == found, "nothing is left to ask"


def test_transformers_answers_the_same_prompts(passages: list[dict], smollm_folder: Path):
    table = requests(chosen_of(passages[:10], 2, 200), "llm", ["llm_query"])
    prompts = prompted(smollm_folder, how(), table, "n")
    assert prompts["prompt"][0].as_py().rstrip().endswith("<|im_start|>assistant")
    ids, texts, kinds = (prompts[name].to_pylist() for name in ("request_id", "prompt", "kind"))
    decoder = Decoder(smollm_folder, how(), 1)
    outputs, errors = decoder.answer(texts, kinds, ids)
    assert errors == ["", ""]
    assert all(len(output.split()) >= 3 for output in outputs)
    assert decoder.answer(texts, kinds, ids) == (outputs, errors)
    outputs, errors = decoder.answer(["word " * 500], ["llm_query"], ids[:1])
    assert outputs == [""]
    assert "max_model_length 384" in errors[0]


def test_a_model_without_a_chat_template_is_bad_input(passages: list[dict], e5_folder: Path):
    table = requests(chosen_of(passages[:4], 2, 200), "llm", ["llm_query"])
    with pytest.raises(InputError, match=r"written\.questions\.by: writer has no chat template; right would be an instruction-tuned model"):
        prompted(e5_folder, how(), table, "questions")


def test_each_request_has_its_own_seed():
    settings = how(temperature=0.5)
    first, second = (sampling(settings, "llm_query", name * 16, 42) for name in "ab")
    assert first["seed"] != second["seed"]
    assert first == sampling(settings, "llm_query", "a" * 16, 42)
    assert "seed" not in sampling(how(temperature=0.0), "llm_query", "a" * 16, 42)


def test_no_fitting_passage_is_bad_input(passages: list[dict], committed: Callable[..., Artifact], tmp_path: Path):
    corpus = committed("corpus", documents=[{**row, "split": "test"} for row in passages[:5]])
    draft = Store(str(tmp_path / "out")).draft("written", "f")
    with pytest.raises(InputError, match=r"written\.questions: no training passage in 'en' of any source is long enough"):
        stage._requests(Work(written(), {"corpus": corpus}, draft, node="questions"), "llm", ["llm_query"])
