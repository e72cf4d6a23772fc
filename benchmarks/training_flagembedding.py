"""FlagEmbedding's side of the contrastive benchmarks, in its own environment: `python benchmarks/training_flagembedding.py <work> <json>`.

Prints one JSON line as training_measure.py does. Model, collator, arguments and trainer are FlagEmbedding's, put together as its
fine-tuning program does for batches of one source, where an item of the data set is a step. It reads what training_data.py left in
`work`, after another side has run: nothing here needs this project. Like every peer it is given token ids and pays for no tokenising,
and has the weights, batches, precision, threads, clipping and AdamW (fused, decay not on biases and norms) of the others.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from FlagEmbedding.abc.finetune.embedder import AbsEmbedderSameDatasetCollator
from FlagEmbedding.finetune.embedder.encoder_only.base import (
    BiEncoderOnlyEmbedderModel,
    EncoderOnlyEmbedderTrainer,
    EncoderOnlyEmbedderTrainingArguments,
)
from transformers import AutoModel, AutoTokenizer, TrainerCallback

TEMPERATURE = 0.02
RATE = 2e-5
CLIP = 1.0
DECAY = 0.01

Step = tuple[list[list[int]], list[list[int]], None, bool]
"""Queries, passages (each query's positive, then its negatives), no teacher's scores, and that negatives are not left out."""


class TokenIds:
    """Stands for the tokenizer in the collator: its texts are token ids already. Padding is the tokenizer's."""

    def __init__(self, tokenizer: Any) -> None:
        self.pad = tokenizer.pad

    def __call__(self, texts: Sequence[list[int]], **limits: Any) -> dict[str, list[list[int]]]:
        """Tokens and masks; texts are within the limits."""
        return {"input_ids": list(texts), "attention_mask": [[1] * len(text) for text in texts]}


class Clock(TrainerCallback):
    """Seconds of each step, from batch to updated weights."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.begun = 0.0

    def on_step_begin(self, *arguments: Any, **more: Any) -> None:
        """The batch is there."""
        self.begun = time.perf_counter()

    def on_step_end(self, *arguments: Any, **more: Any) -> None:
        """The weights are updated."""
        self.seconds.append(time.perf_counter() - self.begun)


def steps_of(work: Path, ask: dict[str, Any]) -> list[Step]:
    """The first steps and the measured ones, as the other sides have them."""
    name = f"{ask['queries']}-{ask['negatives']}-{ask['limit']}"
    found = {file.stem: np.load(file) for file in (work / f"examples-{name}").glob("*.npy")}
    blocks = np.load(work / f"blocks-{name}.npy")

    def text(sequence: int) -> list[int]:
        begin = found["text.begin"][sequence]
        return found["tokens-00000"][begin : begin + found["text.length"][sequence]].tolist()

    def step(rows: np.ndarray) -> Step:
        ends = found["negatives.offsets"]
        passages = [[found["positive"][row], *found["negatives.values"][ends[row] : ends[row + 1]]] for row in rows]
        return [text(found["query"][row]) for row in rows], [text(sequence) for group in passages for sequence in group], None, False

    measured = [step(rows) for rows in blocks[: ask["steps"]]]
    return measured[ask["steps"] - ask["warm"] :] + measured


def contrastive(work: Path, ask: dict[str, Any]) -> dict[str, Any]:
    """Losses, seconds and peak memory of `ask["steps"]` steps after `ask["warm"]` whole ones that leave the weights as they are.

    With `recompute` it runs as FlagEmbedding recommends for large batches: in sub-batches, with gradient checkpointing.
    """
    steps = steps_of(work, ask)
    arguments = EncoderOnlyEmbedderTrainingArguments(
        output_dir=str(work / "flagembedding"), per_device_train_batch_size=1, num_train_epochs=1, bf16=ask["precision"] == "bf16",
        use_cpu=True, max_grad_norm=CLIP, save_strategy="no", report_to=[], logging_steps=1, disable_tqdm=True,
        train_sampling_strategy="sequential", gradient_checkpointing=ask["recompute"],
        sub_batch_size=ask["mini_batch"] if ask["recompute"] else None,
        temperature=TEMPERATURE, sentence_pooling_method="mean", normalize_embeddings=True,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(work / "e5")
    model = BiEncoderOnlyEmbedderModel(
        AutoModel.from_pretrained(work / "e5"),
        tokenizer=tokenizer,
        temperature=arguments.temperature,
        sub_batch_size=arguments.sub_batch_size,
        sentence_pooling_method=arguments.sentence_pooling_method,
        normalize_embeddings=arguments.normalize_embeddings,
    )
    if arguments.gradient_checkpointing:
        model.enable_input_require_grads()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    clock = Clock()
    trainer = EncoderOnlyEmbedderTrainer(
        model=model,
        args=arguments,
        train_dataset=steps,
        data_collator=AbsEmbedderSameDatasetCollator(
            TokenIds(tokenizer), query_max_len=ask["limit"], passage_max_len=ask["limit"], sub_batch_size=arguments.sub_batch_size
        ),
        processing_class=tokenizer,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step >= ask["warm"]))),
        callbacks=[clock],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    measured = steps[ask["warm"] :]
    return {
        "losses": losses[ask["warm"] :],
        "seconds": clock.seconds[ask["warm"] :],
        "pairs": sum(len(queries) for queries, *_ in measured),
        "tokens": [sum(map(len, queries)) + sum(map(len, passages)) for queries, passages, *_ in measured],
        "peak_mib": peak(),
    }


def peak() -> float:
    """Peak resident memory of this program, MiB, as the other sides read it."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(contrastive(Path(sys.argv[1]), json.loads(sys.argv[2]))))
