"""What two processes do in test_training_engine.py: steps under DeepSpeed at a ZeRO stage, a resume among them, gradients.

Run as `python two_processes.py <folder> <encoder> <rank>`; reads contrastive.json, mlm.json and data of the folder,
writes a JSON line and, by the first process, how far gradients are from those of one process, for each way to reduce them.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from variants import SEED, VARIANTS, batches_of_two_sources, contrastive_settings

from raysberta.models.head import load_head
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.model import Model, load_model
from raysberta.training.arrays import Tokens
from raysberta.training.chunks import Budget
from raysberta.training.contrastive import ContrastiveBatch, ContrastiveModel, make_batch, train_contrastive
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.engine import Engine
from raysberta.training.examples import Examples
from raysberta.training.masks import pieces_of
from raysberta.training.mlm import MlmModel, RetroMaeBatch, RetroMaeModel, reconstructed, train_mlm
from raysberta.training.mlm import make_batch as make_mlm_batch
from raysberta.training.retromae import fresh_decoder
from raysberta.training.settings import Contrastive, Mlm

BUDGET = Budget(96, 8)


def staged(settings: Contrastive, stage: int, offload: bool = False) -> Contrastive:
    """The settings at a ZeRO stage."""
    return settings.model_copy(update={"zero_stage": stage, "offload": offload})


def model_of(encoder: Path, settings: Contrastive) -> ContrastiveModel:
    """In float64, without dropout."""
    return ContrastiveModel(ChunkedEncoder(load_model(encoder, dropout=0.0).double(), "fp32", True), settings).train()


def variants(examples: Examples, rank: int, world: int = 2) -> Iterator[tuple[str, Contrastive, ContrastiveBatch]]:
    """A worker's batch of each variant."""
    for name, changes in VARIANTS.items():
        settings = contrastive_settings(temperature=0.05, chunk_tokens=96, **changes)
        yield name, settings, make_batch(examples, batches_of_two_sources(examples), settings, torch.device("cpu"), rank, world)


def alone(encoder: Path, examples: Examples) -> dict[str, dict[str, torch.Tensor]]:
    """Gradients of one process, by variant and parameter: before there is a process group."""
    found = {}
    for name, settings, batch in variants(examples, 0, 1):
        model = model_of(encoder, settings)
        model(batch).backward()
        found[name] = {parameter: value.grad for parameter, value in model.named_parameters()}
    return found


def reconstruction(encoder: Path, texts: Tokens, rank: int = 0, world: int = 1) -> tuple[RetroMaeModel, RetroMaeBatch]:
    """RetroMAE on a worker's part of a step, in float64 and without dropout."""
    loaded = load_encoder(encoder, dropout=0.0).double()
    mlm = MlmModel(ChunkedEncoder(Model(loaded, "mean"), "fp32", True), load_head(encoder, loaded).double())
    pieces, rows = pieces_of(load_tokenizer(encoder)), np.arange(40)
    masked = make_mlm_batch(texts, rows, pieces, 0.3, (0, 1), BUDGET, rank, world)
    batch = reconstructed(masked, texts, rows, pieces, 0.5, (0, 2), BUDGET, rank, world)
    return RetroMaeModel(mlm, fresh_decoder(loaded, 0).double()).train(), batch


def reconstruction_apart(encoder: Path, texts: Tokens, rank: int) -> float:
    """How far RetroMAE's gradients of two processes are from those of one."""
    model, batch = reconstruction(encoder, texts)
    model(batch).backward()
    expected = {parameter: value.grad for parameter, value in model.named_parameters()}
    model, batch = reconstruction(encoder, texts, rank, 2)
    parallel = DistributedDataParallel(model)
    parallel(batch).backward()
    return farthest({parameter: value.grad for parameter, value in model.named_parameters()}, expected)


def farthest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest relative difference; key biases' own gradients are 0 but for rounding, so there is a floor."""
    floor = 1e-6 * max(float(gradient.abs().max()) for gradient in expected.values())
    assert all(gradient.dtype == torch.float64 for gradient in found.values())
    return max(float((found[name] - expected[name]).abs().max() / expected[name].abs().max().clamp(min=floor)) for name in expected)


def by_torch(encoder: Path, examples: Examples, rank: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Gradients as torch's DistributedDataParallel reduces them, for each variant by parameter."""
    for name, settings, batch in variants(examples, rank):
        model = model_of(encoder, settings)
        parallel = DistributedDataParallel(model)  # held on to: its hooks live as long as it does
        parallel(batch).backward()
        yield name, {parameter: value.grad for parameter, value in model.named_parameters()}


def by_zero(stage: int, encoder: Path, examples: Examples, rank: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Gradients as DeepSpeed reduces them: its own code, but in float64 throughout, where it would reduce and store float32."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime import config
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    get_accelerator().supported_dtypes = lambda: [torch.float32, torch.float64]
    config.get_communication_data_type = lambda *arguments, **more: torch.float64
    DeepSpeedEngine.zero_reduce_scatter = lambda self: False  # it takes no float64
    if stage:
        DeepSpeedEngine.get_data_types = lambda self: (torch.float64, torch.float64)
    DeepSpeedZeroOptimizer._configure_master_weights = lambda self, **more: torch.float64
    model = model_of(encoder, contrastive_settings())
    engine = Engine(model, contrastive_settings(zero_stage=stage, max_gradient_norm=1e9), torch.device("cpu")).deepspeed
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    for name, settings, batch in variants(examples, rank):
        model.settings = settings
        engine.backward(engine(batch))
        yield name, {parameter: value.grad if value.grad is not None else assembled(value) for parameter, value in model.named_parameters()}
        engine.step()


def assembled(parameter: torch.nn.Parameter) -> torch.Tensor:
    """A parameter's gradient from the parts that the workers hold; DeepSpeed's own function would round it to float32."""
    whole = torch.zeros(parameter.numel(), dtype=torch.float64)
    if parameter._hp_mapping is not None:
        address = parameter._hp_mapping.lp_fragment_address
        part = parameter._hp_mapping.get_lp_grad_fragment(parameter._index_in_param_group).flatten()
        whole[address.start : address.start + address.numel] = (
            part if len(part) == address.numel else part[address.start :][: address.numel]
        )
    dist.all_reduce(whole)
    return whole.view_as(parameter)


def main(folder: Path, encoder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    examples = Examples.load(f"{folder}/data")
    expected = alone(encoder, examples)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    settings = Contrastive.model_validate_json((folder / "contrastive.json").read_text())
    mlm = Mlm.model_validate_json((folder / "mlm.json").read_text())
    run = {"seed": SEED, "steps": 4}
    curves = {}
    for stage in (0, 1, 2):
        home = folder / f"zero{stage}"
        curves[str(stage)] = train_contrastive(staged(settings, stage), encoder, examples, home / "model", **run, checkpoints=home)
    last = folder / "zero1" / "step-00000003"
    curves["1 resumed"] = train_contrastive(staged(settings, 1), encoder, examples, folder / "resumed", **run, resume=last)
    aside = folder / "offloaded"
    curves["offloaded"] = train_contrastive(staged(settings, 2, True), encoder, examples, aside / "model", **run, checkpoints=aside)
    # Written by one process without DeepSpeed, read by two under ZeRO 2.
    single = folder / "one" / "step-00000003"
    curves["elastic"] = train_contrastive(staged(settings, 2), encoder, examples, folder / "elastic", **run, resume=single)
    curves["retromae"] = train_mlm(mlm, encoder, examples.tokens, folder / "retromae", **run)
    (folder / f"rank{rank}.json").write_text(json.dumps(curves))
    ways = {"ddp": by_torch(encoder, examples, rank), **{f"zero{stage}": by_zero(stage, encoder, examples, rank) for stage in (0, 1, 2)}}
    apart = {way: {name: farthest(found, expected[name]) for name, found in gradients} for way, gradients in ways.items()}
    apart["ddp"]["retromae"] = reconstruction_apart(encoder, examples.tokens, rank)
    if rank == 0:
        (folder / "gradients.json").write_text(json.dumps(apart))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
