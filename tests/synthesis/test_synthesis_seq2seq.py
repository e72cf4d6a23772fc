"""A small T5 with a tokenizer of its own, trained on real pairs, through the engine and through the stage."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.decoders import Metaspace
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from raysberta.artifacts import Artifact, Store
from raysberta.recipe import Recipe, Seq2Seq
from raysberta.synthesis import stage
from raysberta.synthesis.requests import GENERATION
from raysberta.synthesis.seq2seq import Seq2SeqWriter

PAIRS = 96
STEPS = 80


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
    writer = Seq2SeqWriter(folder, Seq2Seq(max_passage_tokens=64, max_new_tokens=24))
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
    plain = Seq2SeqWriter(t5[0], Seq2Seq(max_new_tokens=24, beams=3))
    prompted = Seq2SeqWriter(t5[0], Seq2Seq(max_new_tokens=24, prompt=passages[7]["text"]))
    wanted = plain.write([passages[7]["text"]])[0]
    assert prompted.write(["anything else"])[0] == Seq2SeqWriter(t5[0], Seq2Seq(max_new_tokens=24)).write([passages[7]["text"]])[0]
    assert wanted[0].startswith("How")


@pytest.mark.usefixtures("ray_local")
def test_the_stage_keeps_what_finds_its_passage_again(
    t5: tuple[Path, list[float]], passages: list[dict], e5_folder: Path, committed: Callable[..., Artifact], tmp_path: Path
):
    settings = Recipe.model_validate(
        {
            "name": "t",
            "sources": {"docstrings": {"kind": "docstrings"}},
            "mining": {"max_tokens": 48},
            "synthesis": {
                "llm": {"enabled": False, "reason_off": "not wanted here"},
                "seq2seq": {
                    "enabled": True,
                    "model": "path:/t5",
                    "language": "en",
                    "passages": 24,
                    "max_passage_tokens": 64,
                    "max_new_tokens": 24,
                },
            },
        }
    )
    inputs = {
        "models": committed("models", miner=e5_folder),
        "generators": committed("generators", seq2seq=t5[0]),
        "corpus": committed("corpus", documents=passages[:PAIRS]),
    }
    store = Store(str(tmp_path / "out"))
    draft = store.draft("synthesis", "f")
    stage.run(settings, inputs, draft)
    artifact = store.commit(draft, "synthesis", "f", {}, {}, 42, time.time())
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
    assert draft.metrics["engine"]["llm"] == "off: not wanted here"
    assert draft.metrics["engine"]["seq2seq"].startswith("transformers ")
    assert draft.rows_out + sum(draft.dropped.values()) == 24
