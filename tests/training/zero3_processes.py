"""What two processes do in test_training_zero3.py: both phases under ZeRO 3 with recomputed chunks, resumes, offload, a gradient.

Run as `python zero3_processes.py <folder> <encoder> <rank>`; reads contrastive.json, mlm.json and data of the folder, writes
the curves and, by the first process, how far a gradient is from that of one process.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from variants import SEED, VARIANTS, batches_of_two_sources, contrastive_settings

from raysberta.models.model import load_model
from raysberta.training.contrastive import ContrastiveBatch, ContrastiveModel, make_batch, train_contrastive
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.engine import Engine
from raysberta.training.examples import Examples
from raysberta.training.mlm import train_mlm
from raysberta.training.settings import Contrastive, Lora, Mlm

FREEDOM = {
    "parts": {"lora": Lora(rank=2), "parts": {"encoder": "frozen"}},
    "adapters": {"lora": Lora(rank=2), "parts": dict.fromkeys(("encoder", "connector", "dense"), "frozen")},
}
"""Of a model of several parts: the decoder learns by adapters, and connector and dense layer whole; or nothing but those adapters."""
STAGE = {"zero_stage": 3, "recompute": True, "max_gradient_norm": 1e9}
SETTINGS = contrastive_settings(temperature=0.05, chunk_tokens=96, precision="fp32", **STAGE, **VARIANTS["all together"])


def gradient(encoder: Path, examples: Examples) -> dict[str, torch.Tensor]:
    """Of one process in float64, by parameter."""
    model = model_of(encoder, torch.float64)
    model(batch_of(examples, 0, 1)).backward()
    return {name: value.grad for name, value in model.named_parameters()}


def batch_of(examples: Examples, rank: int, world: int) -> ContrastiveBatch:
    """A worker's part of one step."""
    return make_batch(examples, batches_of_two_sources(examples), SETTINGS, torch.device("cpu"), rank, world)


def model_of(encoder: Path, dtype: torch.dtype) -> ContrastiveModel:
    """Without dropout."""
    return ContrastiveModel(ChunkedEncoder(load_model(encoder, dropout=0.0).to(dtype), "fp32", True), SETTINGS).train()


def apart(encoder: Path, examples: Examples, rank: int, expected: dict[str, torch.Tensor]) -> float:
    """How far the gradient that DeepSpeed reduced is from that one: length of the difference to length."""
    from deepspeed.utils import safe_get_full_grad

    model = model_of(encoder, torch.float32)
    engine = Engine(model, SETTINGS, torch.device("cpu"))
    table = model.encoder.model.encoder.get_input_embeddings().weight
    assert table.numel() == 0 and not table.ds_persist, "the table is not parted: the test would prove too little"
    batch = batch_of(examples, rank, 2)
    engine.deepspeed.backward(engine.deepspeed(batch))
    whole = {name: safe_get_full_grad(value).double() for name, value in model.named_parameters()}
    differences = torch.stack([(whole[name] - expected[name]).norm() for name in expected])
    return float(differences.norm() / torch.stack([value.norm() for value in expected.values()]).norm())


def main(folder: Path, encoder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    examples = Examples.load(f"{folder}/data")
    expected = gradient(encoder, examples)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    settings = Contrastive.model_validate_json((folder / "contrastive.json").read_text())
    mlm = Mlm.model_validate_json((folder / "mlm.json").read_text())
    parted = {"zero_stage": 3, "recompute": True}
    run = {"seed": SEED, "steps": 2}

    def staged(**changes: object) -> Contrastive:
        return settings.model_copy(update=parted | changes)

    single = folder / "one" / "step-00000001"  # written by one process without DeepSpeed
    double = folder / "two" / "step-00000001"  # and by two under ZeRO 3
    kinds = {
        "contrastive": train_contrastive(staged(), encoder, examples, folder / "contrastive", **run, checkpoints=folder / "two"),
        "offloaded": train_contrastive(staged(offload=True), encoder, examples, folder / "offloaded", **run, resume=single),
        "lower": train_contrastive(staged(zero_stage=1), encoder, examples, folder / "lower", **run, resume=double),
        "parts": train_contrastive(staged(**FREEDOM["parts"]), folder / "joined", examples, folder / "parts", **run),
        "adapters": train_contrastive(staged(zero_stage=2, **FREEDOM["adapters"]), folder / "joined", examples, folder / "adapters", **run),
        "mlm": train_mlm(mlm.model_copy(update=parted), encoder, examples.tokens, folder / "mlm", **run),
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(kinds))
    found = apart(encoder, examples, rank, expected)
    if rank == 0:
        (folder / "gradient.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
