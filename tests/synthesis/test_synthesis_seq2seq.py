"""A small T5 with a tokenizer of its own, trained on real pairs, through the engine and through the stage."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.decoders import Metaspace
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from raysberta.graph import DocumentsRef
from raysberta.storage.artifacts import Artifact, Store
from raysberta.synthesis import stage
from raysberta.synthesis.answers import Kept
from raysberta.synthesis.requests import GENERATION
from raysberta.synthesis.seq2seq import Seq2SeqWriter
from raysberta.synthesis.settings import Seq2SeqPairs, WrittenPairs
from raysberta.work import Work

PAIRS = 96
STEPS = 80


def settings(**given: object) -> Seq2SeqPairs:
    return Seq2SeqPairs.model_validate({"kind": "seq2seq", "by": "t5", "language": "en", **given})


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    raw.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=1500, special_tokens=special, unk_token="<unk>", show_progress=False))
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", raw.token_to_id("</s>"))])
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def train(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]) -> list[float]:
    """Loss by step."""
    sources = tokenizer([text for text, _ in pairs], padding=True, truncation=True, max_length=64, return_tensors="pt")
    targets = tokenizer([text for _, text in pairs], padding=True, truncation=True, max_length=24, return_tensors="pt")["input_ids"]
    targets = targets.masked_fill(targets == tokenizer.pad_token_id, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses, draw = [], torch.Generator().manual_seed(0)
    model.train()
    for _ in range(STEPS):
        rows = torch.randperm(len(pairs), generator=draw)[:32]
        loss = model(input_ids=sources["input_ids"][rows], attention_mask=sources["attention_mask"][rows], labels=targets[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.fixture(scope="module")
def t5(passages: list[dict], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    torch.manual_seed(0)
    pairs = [(row["text"], f"How to {row['title'][0].lower()}{row['title'][1:].rstrip('.')}?") for row in passages[:PAIRS]]
    tokenizer = make_tokenizer([text for pair in pairs for text in pair])
    config = T5Config(
        vocab_size=len(tokenizer), d_model=96, d_kv=24, d_ff=192, num_layers=2, num_heads=4, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    losses = train(model, tokenizer, pairs)
    folder = tmp_path_factory.mktemp("t5")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, losses


def shared(left: str, right: str) -> float:
    words = {word for word in left.lower().rstrip("?").split() if len(word) > 3}
    return len(words & set(right.lower().rstrip(".").split())) / max(1, len(words))


def test_it_writes_of_the_passage_it_reads(t5: tuple[Path, list[float]], passages: list[dict]):
    folder, losses = t5
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    rows = passages[:PAIRS]
    writer = Seq2SeqWriter(folder, settings(max_passage_tokens=64, max_new_tokens=24))
    outputs, errors = [], []
    for start in range(0, PAIRS, 32):
        more = writer.write([row["text"] for row in rows[start : start + 32]])
        outputs, errors = outputs + more[0], errors + more[1]
    assert errors == [""] * PAIRS
    assert all(outputs)
    own = np.mean([shared(output, row["title"] + " " + row["text"]) for output, row in zip(outputs, rows, strict=True)])
    others = np.mean([shared(output, rows[number - 1]["title"] + " " + rows[number - 1]["text"]) for number, output in enumerate(outputs)])
    assert own > 2 * others
    assert writer.write([rows[5]["text"]])[0] == [outputs[5]]  # the batch has no say in it


def test_the_prompt_and_beams_reach_the_model(t5: tuple[Path, list[float]], passages: list[dict]):
    plain = Seq2SeqWriter(t5[0], settings(max_new_tokens=24, beams=3))
    prompted = Seq2SeqWriter(t5[0], settings(max_new_tokens=24, prompt=passages[7]["text"]))
    wanted = plain.write([passages[7]["text"]])[0]
    assert prompted.write(["anything else"])[0] == Seq2SeqWriter(t5[0], settings(max_new_tokens=24)).write([passages[7]["text"]])[0]
    assert wanted[0].startswith("How")


@pytest.mark.usefixtures("ray_local")
def test_the_stage_keeps_what_finds_its_passage_again(
    t5: tuple[Path, list[float]], passages: list[dict], e5_folder: Path, committed: Callable[..., Artifact], tmp_path: Path
):
    how = settings(passages=24, max_passage_tokens=64, max_new_tokens=24, kept_if_found_by="e5", find_tokens=48)
    inputs = {
        "e5": committed("e5", model=e5_folder),
        "t5": committed("t5", model=t5[0]),
        "corpus": committed("corpus", documents=passages[:PAIRS]),
    }
    store = Store(str(tmp_path / "out"))
    draft = store.draft("written", "f")
    facts = stage.run(Work(WrittenPairs(documents=DocumentsRef("corpus"), how=how), inputs, draft, node="questions"))
    artifact = store.commit(draft, "written", "f", {}, {}, 42, time.time(), facts)
    rows = artifact.table("generations").cast(GENERATION).to_pylist()
    assert len(rows) == draft.rows_in == 24
    assert all(row["output"] and not row["error"] for row in rows)
    kept = [row for row in rows if not row["reason"]]
    pairs = artifact.table("pairs").to_pylist()
    assert {pair["doc_id"] for pair in pairs} == {row["doc_id"] for row in kept}
    assert len(kept) >= 6, [row["reason"] for row in rows]
    assert all(row["rank"] < 2 for row in kept)
    assert all(row["rank"] >= 2 for row in rows if row["reason"] == "not_found_again")
    assert {(pair["source"], pair["kind"], pair["task"], pair["split"]) for pair in pairs} == {
        ("synthetic", "seq2seq_question", "retrieval", "train")
    }
    assert facts.engine.startswith("transformers ")
    assert facts.kinds["seq2seq_question"]["kept"] == len(kept)
    assert draft.rows_out + sum(draft.dropped.values()) == 24
    assert not Path(draft.checkpoints, "answers").exists(), "what is written need not be kept"


@pytest.mark.usefixtures("ray_local")
def test_without_a_filter_all_good_answers_stay_and_kept_ones_are_not_asked_again(
    t5: tuple[Path, list[float]], passages: list[dict], committed: Callable[..., Artifact], tmp_path: Path, caplog
):
    """The answers of an attempt that ended before its tables were written are what the next one writes."""
    how = settings(passages=24, max_passage_tokens=64, max_new_tokens=24, batch_size=10)
    inputs = {"t5": committed("t5", model=t5[0]), "corpus": committed("corpus", documents=passages[:PAIRS])}
    store = Store(str(tmp_path / "out"))
    work = Work(WrittenPairs(documents=DocumentsRef("corpus"), how=how), inputs, store.draft("written", "f"), node="questions")
    engine, asked = stage._seq2seq(work, how)
    assert len(Kept.of(work.draft, engine).read()) == 24
    caplog.set_level(logging.INFO, "raysberta.synthesis.stage")
    facts = stage.run(Work(work.settings, inputs, store.draft("written", "f"), node="questions"))
    assert facts.requested == 24
    assert any("questions: 24 of 24 requests were answered before" in message for message in caplog.messages)
    caplog.clear()
    assert "not_found_again" not in facts.dropped
    draft = store.draft("written", "g")
    stage.run(Work(work.settings, inputs, draft, node="questions"))
    fs, folder = draft.path("generations")
    fresh = pq.read_table(f"{folder}/part-00000.parquet", filesystem=fs).to_pylist()
    assert [each["output"] for each in fresh] == asked["output"].to_pylist()
    assert {each["rank"] for each in fresh} == {-1}
    assert not any("answered before" in message for message in caplog.messages), "another fingerprint has answers of its own"
