"""What two processes do in test_training_distil.py: the same distillation at every ZeRO stage.

Run as `python two_distilling.py <folder> <encoder> <rank>`; reads settings.json, data and teacher.npy of the folder.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from one_process import lessons_of
from variants import SEED

from raysberta.training.distil import train_distil
from raysberta.training.settings import Distil


def main(folder: Path, encoder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    settings = Distil.model_validate_json((folder / "settings.json").read_text())
    curves = {}
    for stage in range(4):
        staged = settings.model_copy(update={"zero_stage": stage})
        curves[stage] = train_distil(staged, encoder, *lessons_of(folder), folder / f"zero{stage}", seed=SEED)
    (folder / f"rank{rank}.json").write_text(json.dumps(curves))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
