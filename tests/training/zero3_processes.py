"""What two processes do in test_training_zero3.py: both phases under ZeRO 3 with recomputed chunks, resumes, offload, gradients.

Run as `python zero3_processes.py <folder> <encoder> <rank>`; reads recipe.json and data.safetensors of the folder, writes the curves and,
by the first process, how far gradients are from those of one process.
"""

import json
import os
import sys
from pathlib import Path

import pyarrow.fs as pafs
import torch
import torch.distributed as dist
from variants import VARIANTS, batches_of_two_sources

from raysberta.encoder.load import load_encoder
from raysberta.recipe import Contrastive, Recipe
from raysberta.training.contrastive import ContrastiveBatch, ContrastiveModel, make_batch, train_contrastive
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.engine import Engine
from raysberta.training.examples import Examples
from raysberta.training.mlm import train_mlm

CHANGES = ("plain", "all together")


def settings_of(variant: str) -> Contrastive:
    """Of a variant, with recomputed chunks."""
    stage = {"zero_stage": 3, "recompute": True, "max_gradient_norm": 1e9}
    return Contrastive(temperature=0.05, chunk_tokens=96, precision="fp32", **stage, **VARIANTS[variant])


def batch_of(examples: Examples, settings: Contrastive, rank: int, world: int) -> ContrastiveBatch:
    """A worker's part of one step."""
    return make_batch(examples, batches_of_two_sources(examples), settings, torch.device("cpu"), rank, world)


def model_of(encoder: Path, settings: Contrastive, dtype: torch.dtype) -> ContrastiveModel:
    """Without dropout."""
    return ContrastiveModel(ChunkedEncoder(load_encoder(encoder, dropout=0.0).to(dtype), "fp32", True), "mean", settings).train()


def alone(encoder: Path, examples: Examples) -> dict[str, dict[str, torch.Tensor]]:
    """Gradients of one process in float64, by variant and parameter."""
    found = {}
    for variant in CHANGES:
        settings = settings_of(variant)
        model = model_of(encoder, settings, torch.float64)
        model(batch_of(examples, settings, 0, 1)).backward()
        found[variant] = {name: value.grad for name, value in model.named_parameters()}
    return found


def apart(encoder: Path, examples: Examples, rank: int, expected: dict[str, dict[str, torch.Tensor]]) -> dict[str, float]:
    """How far the gradients that DeepSpeed reduced are from those, of all parameters together: length of the difference to length."""
    from deepspeed.utils import safe_get_full_grad

    found = {}
    for variant, gradients in expected.items():
        settings = settings_of(variant)
        model = model_of(encoder, settings, torch.float32)
        engine = Engine(model, settings, torch.device("cpu"))
        table = model.encoder.encoder.get_input_embeddings().weight
        assert table.numel() == 0 and not table.ds_persist, "the table is not parted: the test would prove too little"
        batch = batch_of(examples, settings, rank, 2)
        engine.deepspeed.backward(engine.deepspeed(batch))
        whole = {name: safe_get_full_grad(value).double() for name, value in model.named_parameters()}
        differences = torch.stack([(whole[name] - gradients[name]).norm() for name in gradients])
        found[variant] = float(differences.norm() / torch.stack([value.norm() for value in gradients.values()]).norm())
        engine.deepspeed.step()
        engine.release()
    return found


def main(folder: Path, encoder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    examples = Examples.load(f"{folder}/data.safetensors", pafs.LocalFileSystem())
    expected = alone(encoder, examples)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    recipe = Recipe.model_validate_json((folder / "recipe.json").read_text())

    def staged(**changes: object) -> Recipe:
        both = {"zero_stage": 3, "recompute": True, **changes}
        return recipe.model_copy(update={name: getattr(recipe, name).model_copy(update=both) for name in ("contrastive", "mlm")})

    single = folder / "one" / "step-00000003"  # written by one process without DeepSpeed
    kinds = {
        "contrastive": train_contrastive(staged(), encoder, examples, folder / "contrastive", steps=4, checkpoints=folder / "two"),
        "elastic": train_contrastive(staged(), encoder, examples, folder / "elastic", steps=4, resume=single),
        "offloaded": train_contrastive(staged(offload=True), encoder, examples, folder / "offloaded", steps=4),
        "mlm": train_mlm(staged(), encoder, examples.tokens, folder / "mlm", steps=4, checkpoints=folder / "two-mlm"),
    }
    lower = staged(zero_stage=1)
    again = folder / "two" / "step-00000003"
    kinds["another stage"] = train_contrastive(lower, encoder, examples, folder / "another", steps=4, resume=again)
    (folder / f"rank{rank}.json").write_text(json.dumps(kinds))
    found = apart(encoder, examples, rank, expected)
    if rank == 0:
        (folder / "gradients.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
