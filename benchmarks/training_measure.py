"""One side of one training benchmark, in a process of its own: `python benchmarks/training_measure.py <what> <side> <work> <json>`.

Prints one JSON line. Sides: `ours`, and the peers as their users run them: same weights, batches, precision, threads, clipping,
AdamW (fused, decay not on biases and norms), no dropout. Peers are given token ids and pay for no tokenising.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from raysberta.graph import EncoderRef, ExamplesRef
from raysberta.models.head import load_head
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.model import Model, load_model
from raysberta.training.arrays import tokens_of
from raysberta.training.chunks import budget_of
from raysberta.training.contrastive import ContrastiveModel, make_batch, train_contrastive
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.engine import Engine, decaying, keep_freed_memory
from raysberta.training.examples import Examples
from raysberta.training.masks import pieces_of
from raysberta.training.mlm import MlmModel, lay_out
from raysberta.training.parts import trainable
from raysberta.training.settings import Contrastive, Mlm
from training_data import SEED, e5, e5_with_head, examples, few, roberta, token_lists
from training_sized import model_flops, sized, sized_examples, sized_lists

TEMPERATURE = 0.02
RATE = 2e-5
CLIP = 1.0


def clock(steps: Sequence[Any], run: Callable[[Any], float]) -> tuple[list[float], list[float]]:
    """Losses and seconds of each step."""
    losses, seconds = [], []
    for step in steps:
        begun = time.perf_counter()
        losses.append(run(step))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return losses, seconds


def contrastive(side: str, work: Path, ask: dict[str, Any]) -> dict[str, Any]:
    """Losses, seconds and peak memory of `ask["steps"]` steps after `ask["warm"]` whole ones at a learning rate of 0.

    These are the last of the measured steps, or where `ask["size"]` names one of RoBERTa's sizes others. A first step of its size has its
    memory from the kernel page by page, which may cost as much as the step.
    """
    if "size" in ask:
        folder = sized(work, ask["size"])
        shape = (ask["queries"], ask["negatives"], ask["limit"], ask["filled"])
        found, blocks = sized_examples(work, folder, *shape, ask["warm"] + ask["steps"])
        warm, chosen = blocks[: ask["warm"]], blocks[ask["warm"] :]
    else:
        folder = e5(work)
        found, blocks = examples(work, ask["queries"], ask["negatives"], ask["limit"])
        warm, chosen = blocks[ask["steps"] - ask["warm"] : ask["steps"]], blocks[: ask["steps"]]
    make = contrastive_ours if side == "ours" else contrastive_peer
    step = make(side, folder, found, ask)
    clock(warm, lambda rows: step(rows, 0.0))
    losses, seconds = clock(chosen, lambda rows: step(rows, RATE))
    lengths = [[len(found.tokens[sequence]) for sequence in sequences_of(found, rows).ravel()] for rows in chosen]
    return {
        "losses": losses, "seconds": seconds, "pairs": sum(len(rows) for rows in chosen), "tokens": [sum(step) for step in lengths],
        "flops": sum(model_flops(folder, step) for step in lengths), "peak_mib": peak(),
    }  # fmt: skip


def products(side: str, work: Path, ask: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the products of `ask["steps"]` steps with the matrices of frozen layers: forward, and back to their inputs.

    What a step that trains adapters takes at least, however its texts are laid out, but for half a percent: the first layer's inputs need
    no gradient. There is no attention, norm, adapter or optimiser in it.
    """
    found, blocks = examples(work, ask["queries"], ask["negatives"], ask["limit"])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[ask["precision"]]
    body = load_model(e5(work), pooling="mean")
    layers = [module.weight.detach().to(dtype) for module in body.modules() if isinstance(module, nn.Linear)]
    counts = [sum(len(found.tokens[sequence]) for sequence in sequences_of(found, rows).ravel()) for rows in blocks]

    @torch.no_grad()
    def step(count: int) -> float:
        for weights in layers:
            outputs, inputs = weights.shape
            torch.mm(torch.ones(count, inputs, dtype=dtype), weights.T)
            torch.mm(torch.ones(count, outputs, dtype=dtype), weights)
        return 0.0

    clock(counts[: ask["warm"]], step)
    _, seconds = clock(counts[: ask["steps"]], step)
    return {"seconds": seconds, "tokens": counts[: ask["steps"]]}


def settings_of(**changes: Any) -> Contrastive:
    """The defaults, but for changes."""
    return Contrastive(kind="contrastive", from_=EncoderRef("e5"), examples=(ExamplesRef("all"),), **changes)


def device_of(ask: dict[str, Any]) -> torch.device:
    """Where a side runs."""
    return torch.device(ask.get("device", "cpu"))


def sequences_of(found: Examples, rows: np.ndarray) -> np.ndarray:
    """The sequences of rows, [rows, 2 + negatives]: query, positive, negatives."""
    negatives = np.stack([found.negatives[row] for row in rows])
    return np.concatenate([found.query[rows][:, None], found.positive[rows][:, None], negatives], axis=1)


def contrastive_ours(side: str, folder: Path, found: Examples, ask: dict[str, Any]) -> Callable[[np.ndarray, float], float]:
    """Our engine's step on rows."""
    keep_freed_memory()
    settings = settings_of(
        temperature=TEMPERATURE,
        chunk_tokens=ask["chunk_tokens"],
        precision=ask["precision"],
        recompute=ask["recompute"],
        max_gradient_norm=CLIP,
        compile=ask.get("compile", False),
        lora=ask.get("lora"),
    )
    device = device_of(ask)
    model = trainable(load_model(folder, pooling="mean"), settings, SEED).to(device)
    encoder = ChunkedEncoder(model, settings.precision, settings.recompute)
    engine = Engine(ContrastiveModel(encoder, settings).train(), settings, device)

    def step(rows: np.ndarray, rate: float) -> float:
        batch = make_batch(found, [rows], settings, device)
        return engine.step(batch, batch.chunks.real, rate)[0]

    return step


def contrastive_peer(side: str, folder: Path, found: Examples, ask: dict[str, Any]) -> Callable[[np.ndarray, float], float]:
    """A training loop over sentence-transformers' losses: one padded tensor a column, as its data collator makes them."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    device = device_of(ask)
    body = Transformer(str(folder), max_seq_length=ask["limit"])
    if "lora" in ask:
        adapt(body, ask["lora"])
    model = SentenceTransformer(modules=[body, Pooling(body.get_embedding_dimension(), pooling_mode="mean")], device=str(device)).train()
    losses = {
        "plain": lambda: MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
        "cached": lambda: CachedMultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE, mini_batch_size=ask["mini_batch"]),
    }
    loss_of = losses[side]()
    optimizer, parameters = adamw(model)

    def column(sequences: np.ndarray) -> dict[str, torch.Tensor]:
        texts = [torch.from_numpy(found.tokens[sequence].astype(np.int64)) for sequence in sequences]
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        tokens = nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=1)
        return {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}

    def step(rows: np.ndarray, rate: float) -> float:
        features = [column(sequences) for sequences in sequences_of(found, rows).T]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=ask["precision"] == "bf16"):
            loss = loss_of(features, None)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def adapt(body: nn.Module, lora: dict[str, Any]) -> None:
    """peft's adapters in all linear layers of a transformer, drawn as ours are."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import PreTrainedModel

    (transformer,) = [part for part in body.children() if isinstance(part, PreTrainedModel)]
    transformer.requires_grad_(False)
    torch.manual_seed(SEED)
    inject_adapter_in_model(LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], target_modules="all-linear"), transformer)


def adamw(model: nn.Module) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """The optimiser of both sides."""
    named = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    return torch.optim.AdamW(decaying(named, 0.01), lr=RATE, fused=True), list(named.values())


def mlm(side: str, work: Path, ask: dict[str, Any]) -> dict[str, Any]:
    """Tokens, seconds and the first loss of masked-language-model steps; the first step is not counted."""
    count = (ask["steps"] + 1) * ask["batch"]
    if "size" in ask:
        folder = sized(work, ask["size"])
        texts = sized_lists(work, folder, count, ask["limit"], ask["filled"])
    else:
        folder = {"e5": e5_with_head, "roberta": roberta}[ask["model"]](work)
        texts = token_lists(work, folder, count, ask["limit"])
    first = collated(folder, texts[: ask["batch"]])
    return (mlm_ours if side == "ours" else mlm_peer)(folder, texts, first, ask)


def collated(folder: Path, texts: list[list[int]]) -> dict[str, torch.Tensor]:
    """A batch as transformers masks it, by a fixed seed: both sides' losses are compared on it."""
    from transformers import DataCollatorForLanguageModeling

    torch.manual_seed(5)
    return DataCollatorForLanguageModeling(load_tokenizer(folder), mlm_probability=0.15)([{"input_ids": text} for text in texts])


def mlm_ours(folder: Path, texts: list[list[int]], first: dict[str, torch.Tensor], ask: dict[str, Any]) -> dict[str, Any]:
    """Our engine, masks drawn as in training."""
    from raysberta.training.mlm import make_batch as make_mlm_batch

    keep_freed_memory()
    settings = Mlm(
        kind="mlm",
        from_=EncoderRef("e5"),
        chunk_tokens=ask["chunk_tokens"],
        precision="bf16",
        max_gradient_norm=CLIP,
        compile=ask.get("compile", False),
    )
    device = device_of(ask)
    budget = budget_of(settings.chunk_tokens, device)
    loaded = nn.Module.to(load_encoder(folder), device)
    model = MlmModel(ChunkedEncoder(Model(loaded, "mean"), "bf16", False), load_head(folder, loaded)).to(device)
    lengths = first["attention_mask"].sum(1).tolist()
    reads = [row[:length].numpy() for row, length in zip(first["input_ids"], lengths, strict=True)]
    wanted = [row[:length].numpy() for row, length in zip(first["labels"], lengths, strict=True)]
    with torch.no_grad():
        loss = float(model(lay_out(reads, wanted, budget).to(device)))
    engine = Engine(model.train(), settings, device)
    predicted: list[int] = []
    all_texts, pieces = tokens_of(texts), pieces_of(load_tokenizer(folder))

    def run(number: int) -> float:
        rows = np.arange(number * ask["batch"], (number + 1) * ask["batch"])
        batch = make_mlm_batch(all_texts, rows, pieces, 0.15, (number,), budget)
        predicted.append(len(batch.labels))
        return engine.step(batch.to(device), batch.chunks.real, RATE)[0]

    losses, seconds = clock(range(ask["steps"] + 1), run)
    lengths = [len(text) for text in texts[ask["batch"] :]]
    flops = model_flops(folder, lengths, sum(predicted[1:]))
    return {"first_loss": loss, "losses": losses[1:], "seconds": seconds[1:], "tokens": sum(lengths), "flops": flops, "peak_mib": peak()}


def mlm_peer(folder: Path, texts: list[list[int]], first: dict[str, torch.Tensor], ask: dict[str, Any]) -> dict[str, Any]:
    """transformers' Trainer; the first step is left out, as in ours."""
    from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

    device = device_of(ask)
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).to(device)
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        loss = float(model(**{name: value.to(device) for name, value in first.items()}).loss)
    collator = DataCollatorForLanguageModeling(load_tokenizer(folder), mlm_probability=0.15)
    counted: list[list[int]] = []
    predicted: list[int] = []
    seconds: list[float] = []
    begun = [0.0]

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collator(rows)
        counted.append(batch["attention_mask"].sum(1).tolist())
        predicted.append(int((batch["labels"] != -100).sum()))
        return batch

    class Clock(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **more: Any) -> None:
            begun[0] = time.perf_counter()

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun[0])

    arguments = TrainingArguments(
        output_dir=str(folder.parent / "trainer"), per_device_train_batch_size=ask["batch"], num_train_epochs=1, bf16=True,
        use_cpu=device.type == "cpu",
        learning_rate=RATE, weight_decay=0.01, max_grad_norm=CLIP, save_strategy="no", report_to=[], logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    dataset: Any = [{"input_ids": text} for text in texts]
    trainer = Trainer(model=model, args=arguments, data_collator=collate, train_dataset=dataset, callbacks=[Clock()])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    lengths = [length for step in counted[1 : len(seconds)] for length in step]
    flops = model_flops(folder, lengths, sum(predicted[1 : len(seconds)]))
    return {"first_loss": loss, "losses": losses[1:], "seconds": seconds[1:], "tokens": sum(lengths), "flops": flops, "peak_mib": peak()}


def workers(side: str, work: Path, ask: dict[str, Any]) -> dict[str, Any]:
    """Tokens a second of a worker of `side` ("1/1", "1/2", "2/2") with one thread, two device batches of different sources a step."""
    rank, world = int(side[0]) - 1, int(side[2])
    torch.set_num_threads(1)
    found, _ = examples(work, ask["queries"], ask["negatives"], ask["limit"])
    settings = settings_of(
        batch_size=ask["queries"],
        device_batches=2,
        negatives=ask["negatives"],
        chunk_tokens=ask["chunk_tokens"],
        zero_stage=0,  # mE5-small is small: its optimizer state is not worth the gathering of weights that sharing it out costs
    )
    if world > 1:
        os.environ["LOCAL_RANK"] = str(rank)
        dist.init_process_group("gloo", init_method=f"file://{ask['meet']}", rank=rank, world_size=world)
    curve, warm = train_contrastive(settings, e5(work), found, None, seed=42, steps=ask["warm"] + ask["steps"]), ask["warm"]
    seconds = curve[-1]["seconds"] - curve[warm - 1]["seconds"]
    if world > 1:
        dist.destroy_process_group()
    losses = [point["loss"] for point in curve]
    return {"losses": losses, "tokens": sum(point["tokens"] for point in curve[warm:]), "seconds": [seconds], "peak_mib": peak()}


def prepared(side: str, work: Path, ask: dict[str, Any]) -> dict[str, Any]:
    """No side: makes the folder with few pairs and few pieces, and says where it is."""
    return {"few": str(few(work))}


def peak() -> float:
    """Peak memory of this program, MiB: what it took of the GPU where it used one, else what was resident.

    Not getrusage's: a process starts with the peak of the one that started it.
    """
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(what: str, side: str, work: str, ask: str) -> None:
    """Measure and print."""
    measure = {"contrastive": contrastive, "mlm": mlm, "workers": workers, "products": products, "prepared": prepared}[what]
    print(json.dumps(measure(side, Path(work), json.loads(ask))))


if __name__ == "__main__":
    main(*sys.argv[1:])
