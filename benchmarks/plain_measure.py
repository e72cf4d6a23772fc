"""One part of the plain alternative in a process of its own: `plain_measure.py mine|train JSON`; prints one JSON line.

Nothing of this project is used: what stands here is what a user of sentence-transformers would write for the same pairs.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.util import mine_hard_negatives
from transformers import TrainerCallback

Ask = dict[str, Any]

BEGUN = time.perf_counter()
MAX_TOKENS = 72
BATCH, MINI_BATCH = 96, 32
WARM_UP = 0.1
WINDOW = {"range_min": 10, "range_max": 60, "relative_margin": 0.02, "num_negatives": 1}
TRIED = 3
"""Steps from which the length of one is told, at a learning rate of 0."""


def mine(ask: Ask) -> Ask:
    """Give each pair of the Parquet file `pairs` one hard negative; pairs with the same prompts are one data set in the folder `mined`."""
    model = SentenceTransformer(ask["model"])
    model.max_seq_length = MAX_TOKENS
    if bf16_is_faster():
        model.to(torch.bfloat16)
    pairs = Dataset.from_parquet(ask["pairs"], cache_dir=f"{ask['mined']}/cache")
    before = list(zip(pairs["before_query"], pairs["before_positive"], strict=True))
    found = []
    for number, (query, positive) in enumerate(sorted(set(before))):
        rows = [
            row for row, pair in enumerate(zip(pairs["before_query"], pairs["before_positive"], strict=True)) if pair == (query, positive)
        ]
        mined = mine_hard_negatives(
            pairs.select(rows).select_columns(["query", "positive"]), model, anchor_column_name="query", positive_column_name="positive",
            query_prompt=query, corpus_prompt=positive, verbose=False, **WINDOW,
        )  # fmt: skip
        mined.save_to_disk(f"{ask['mined']}/{number}")
        found.append({"prompts": [query, positive], "pairs": len(rows), "mined": len(mined)})
    return {"sets": found}


def train(ask: Ask) -> Ask:
    """Train on the folder `mined` and save the model to `out`: `steps`, or as many as fit in `seconds` from now."""
    data = {str(number): load_from_disk(f"{ask['mined']}/{number}") for number in range(len(ask["sets"]))}
    prompts = {
        name: dict(zip(("query", "positive", "negative"), (query, positive, positive), strict=True))
        for name, (query, positive) in zip(data, (one["prompts"] for one in ask["sets"]), strict=True)
    }
    model = SentenceTransformer(ask["model"])
    length, model.max_seq_length = model.max_seq_length, MAX_TOKENS
    bf16, steps, deadline = bf16_is_faster(), ask["steps"], None
    if ask["seconds"] is not None:
        deadline = BEGUN + ask["seconds"]
        begun = time.perf_counter()
        _trained(model, data, prompts, ask | {"rate": 0.0}, TRIED, bf16, None)
        steps = max(1, int((deadline - time.perf_counter()) / (time.perf_counter() - begun) * TRIED))
    done, losses = _trained(model, data, prompts, ask, steps, bf16, deadline)
    model.max_seq_length = length  # it is scored as the others are, not cut shorter
    model.save_pretrained(ask["out"], create_model_card=False)
    return {
        "steps": done,
        "losses": losses,
        "precision": "bf16" if bf16 else "fp32",
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _trained(
    model: SentenceTransformer,
    data: dict[str, Dataset],
    prompts: dict[str, dict[str, str]],
    ask: Ask,
    steps: int,
    bf16: bool,
    deadline: Any,
) -> tuple[int, list[float]]:
    """Steps that were made, and their losses."""
    arguments = SentenceTransformerTrainingArguments(
        output_dir=f"{ask['out']}-trainer", max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=ask["rate"],
        warmup_steps=round(WARM_UP * steps), bf16=bf16, seed=ask["seed"], batch_sampler=BatchSamplers.NO_DUPLICATES, prompts=prompts,
        save_strategy="no", report_to=[], logging_steps=1, disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )  # fmt: skip
    loss = CachedMultipleNegativesRankingLoss(model, scale=ask["scale"], mini_batch_size=MINI_BATCH)
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss, callbacks=[Deadline(deadline)])
    trainer.train()
    return trainer.state.global_step, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class Deadline(TrainerCallback):
    """Ends the training with the step that passes the deadline."""

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Look at the clock."""
        if self.deadline is not None and time.perf_counter() > self.deadline:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Say how far it is, on stderr: stdout has the result."""
        print(f"# step {state.global_step} of {state.max_steps}: {logs}", file=sys.stderr, flush=True)


def bf16_is_faster() -> bool:
    """Whether a layer of an encoder's size takes less time in bf16 than in fp32 on this device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        states, weights = torch.randn(2048, 768, device=device, dtype=dtype), torch.randn(768, 768, device=device, dtype=dtype)
        for turn in range(6):
            if turn == 1:
                begun = time.perf_counter()  # the first one packs weights and has its memory from the kernel
            states = (states @ weights).clamp(-1, 1)
        states.float().sum().item()
        seconds[dtype] = time.perf_counter() - begun
    return seconds[torch.bfloat16] < seconds[torch.float32]


def peak_mib() -> float:
    """Peak memory of this process, MiB. Not getrusage's: a process starts with the peak of the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def main(what: str, ask: str) -> None:
    """Do the part and print what came of it, with its seconds (loading of the libraries left out) and its peak memory."""
    found = {"mine": mine, "train": train}[what](json.loads(ask))
    print(json.dumps(found | {"seconds": round(time.perf_counter() - BEGUN, 1), "peak_mib": peak_mib()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
