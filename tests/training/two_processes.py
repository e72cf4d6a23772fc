"""What two processes do in test_training_engine.py: contrastive steps under DeepSpeed at a ZeRO stage, and a resume among them.

Run as `python two_processes.py <folder> <encoder> <rank>`; reads recipe.json and data.safetensors of the folder, writes a JSON line.
"""

import json
import os
import sys
from pathlib import Path

import pyarrow.fs as pafs
import torch
import torch.distributed as dist

from raysberta.recipe import Recipe
from raysberta.training.contrastive import train_contrastive
from raysberta.training.examples import Examples


def staged(recipe: Recipe, stage: int) -> Recipe:
    """The recipe at a ZeRO stage."""
    return recipe.model_copy(update={"contrastive": recipe.contrastive.model_copy(update={"zero_stage": stage})})


def main(folder: Path, encoder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    recipe = Recipe.model_validate_json((folder / "recipe.json").read_text())
    examples = Examples.load(f"{folder}/data.safetensors", pafs.LocalFileSystem())
    curves = {}
    for stage in (0, 1, 2):
        home = folder / f"zero{stage}"
        curves[str(stage)] = train_contrastive(staged(recipe, stage), encoder, examples, home / "model", steps=4, checkpoints=home)
    last = folder / "zero1" / "step-00000003"
    curves["1 resumed"] = train_contrastive(staged(recipe, 1), encoder, examples, folder / "resumed", steps=4, resume=last)
    # Written by one process without DeepSpeed, read by two under ZeRO 2.
    alone = folder / "one" / "step-00000003"
    curves["elastic"] = train_contrastive(staged(recipe, 2), encoder, examples, folder / "elastic", steps=4, resume=alone)
    (folder / f"rank{rank}.json").write_text(json.dumps(curves))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
