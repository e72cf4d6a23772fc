"""One optimizer step, by DeepSpeed inside a process group and by plain torch outside one, with the same result.

The reduction contract, which holds wherever a loss is made: **the global loss is the mean over workers of the workers' losses,
and the global gradient is the mean of their gradients.** DeepSpeed averages (`gradient_allreduce_op: mean`, its default).

- Contrastive: each worker encodes its share of the step's texts, `gathered` gives all of them all vectors, and each takes the
  loss of the whole step, so the mean of the losses is that loss. A worker's gradient is what the loss sends back through its own
  vectors, times the number of workers; the mean over workers is then the sum over all texts. Negatives may come from any device
  batch, or from the query's own only: that is a matter of the loss, not of the workers.
- MLM: workers divide by the masked tokens of the whole step and multiply by the number of workers.

Weights, gradients and optimizer state are float32; only the encoder's arithmetic is bf16, under autocast.
"""

import ctypes
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from raysberta.training.settings import Training

log = logging.getLogger(__name__)

MOMENTS = ("exp_avg", "exp_avg_sq")
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class NotFinite(RuntimeError):
    """A loss or gradient norm is NaN or infinite. Every worker raises it in the same step, before the weights move."""


class Engine:
    """Steps a module whose forward takes a batch and returns this worker's scalar loss."""

    def __init__(self, module: nn.Module, settings: Training, device: torch.device) -> None:
        """Move the module to the device; inside an initialised process group hand it to DeepSpeed."""
        self.module = module.to(device)
        self.device = device
        self.distributed = dist.is_available() and dist.is_initialized()
        self.rank, self.world = workers()
        self.max_norm = settings.max_gradient_norm
        self.compiled = compile_layers(module) if settings.compile else []
        self.parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.optimizer = torch.optim.AdamW(decaying(self.parameters, settings.weight_decay), lr=0.0, betas=BETAS, eps=EPSILON, fused=True)
        self.deepspeed = self._deepspeed(settings) if self.distributed else None
        self.stage = settings.zero_stage if self.distributed else 0

    def _deepspeed(self, settings: Training) -> Any:
        os.environ.setdefault("LOCAL_RANK", str(self.rank))
        import deepspeed  # takes seconds, and a single process does without it

        # Its shared-memory all-reduce needs a compiler and minutes for the first run; gloo is as fast beside a step on the CPU.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": settings.max_gradient_norm if settings.zero_stage else 0.0,  # stage 0 tells no norm: clipped here
            "zero_optimization": {
                "stage": settings.zero_stage,
                "overlap_comm": self.device.type == "cuda",
                **({"offload_optimizer": {"device": "cpu", "pin_memory": self.device.type == "cuda"}} if settings.offload else {}),
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": sys.maxsize,
        }
        return deepspeed.initialize(model=self.module, optimizer=self.optimizer, config=config, dist_init_required=False)[0]

    @property
    def _zero(self) -> Any:
        assert self.deepspeed is not None
        return self.deepspeed.optimizer

    def step(self, batch: Any, tokens: int, rate: float) -> tuple[float, float, int]:
        """One forward, one backward, one reduction, one update.

        Args:
            batch: What the module's forward takes.
            tokens: This worker's tokens, to be summed.
            rate: The learning rate of this step.

        Returns:
            The global loss, the norm of the global gradient before clipping, and the tokens of all workers.

        Raises:
            NotFinite: the loss is NaN or infinite (the weights are untouched), or the gradient is.
        """
        loss = (self.deepspeed or self.module)(batch)
        mean, total = self._reduce(loss.detach(), tokens)
        if not torch.isfinite(torch.tensor(mean)):
            raise NotFinite(f"loss is {mean}")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.deepspeed is not None:
            self.deepspeed.backward(loss)
            norm = self._clip() if self.stage == 0 else None
            self.deepspeed.step()
            norm = float(self.deepspeed.get_global_grad_norm()) if norm is None else norm
        else:
            loss.backward()
            norm = self._clip()
            if norm == norm:
                self.optimizer.step()
            self.optimizer.zero_grad()
        if not torch.isfinite(torch.tensor(norm)):
            raise NotFinite(f"gradient norm is {norm}")
        return mean, norm, total

    def _clip(self) -> float:
        return float(nn.utils.clip_grad_norm_(self.parameters.values(), self.max_norm))

    def _reduce(self, loss: torch.Tensor, tokens: int) -> tuple[float, int]:
        if self.world == 1:
            return float(loss), tokens
        both = torch.stack([loss.double(), torch.tensor(float(tokens), dtype=torch.float64, device=loss.device)])
        dist.all_reduce(both)
        return float(both[0]) / self.world, int(both[1])

    def weights(self) -> dict[str, torch.Tensor]:
        """The module's weights, whole, on the CPU, by the first worker; nothing by the others. All workers call it together."""
        found = {}
        for name, value in self.module.state_dict(keep_vars=True).items():
            with self._whole(value):
                if self.rank == 0:
                    found[name] = value.detach().cpu().clone()
        return found

    def _whole(self, parameter: torch.Tensor) -> AbstractContextManager[Any]:
        """Within it a parameter is there whole: under ZeRO 3 each worker has a part of it."""
        if self.stage < 3:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id"))

    def moments(self) -> dict[str, torch.Tensor]:
        """AdamW's moments, whole, on the CPU, as `exp_avg.<parameter>` and so on, by the first worker; nothing by the others.

        All workers call it together.
        """
        self._link_moments()
        found = {}
        for name, parameter in self.parameters.items():
            for moment in MOMENTS:
                value = self._moment(parameter, moment)
                if self.rank == 0:
                    found[f"{moment}.{name}"] = value.detach().cpu().clone()
        return found

    def _moment(self, parameter: nn.Parameter, moment: str) -> torch.Tensor:
        if self.stage == 0:
            return self.optimizer.state[parameter][moment]
        from deepspeed.utils import safe_get_full_optimizer_state

        return safe_get_full_optimizer_state(parameter, moment)

    def set_moments(self, moments: Mapping[str, torch.Tensor], steps: int) -> None:
        """Take over moments as `moments` gave them, after `steps` steps; the number of workers and the ZeRO stage may differ."""
        held = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self.stage == 3:
            held = self._zero.fp32_partitioned_groups_flat
        for parameter in held:
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(steps), device=parameter.device),
                **{moment: torch.zeros_like(parameter) for moment in MOMENTS},
            }
        self._link_moments()
        for name, parameter in self.parameters.items():
            for moment in MOMENTS:
                self._set_moment(parameter, moment, moments[f"{moment}.{name}"])

    def _set_moment(self, parameter: Any, moment: str, value: torch.Tensor) -> None:
        if self.stage == 0:
            self.optimizer.state[parameter][moment].copy_(value)
        elif self.stage < 3:
            from deepspeed.utils import safe_set_full_optimizer_state

            safe_set_full_optimizer_state(parameter, value.to(self.device), moment)
        else:  # its function for whole values fails where the workers' parts are not all of one size
            from deepspeed.utils import safe_set_local_optimizer_state

            size = parameter.ds_tensor.numel()
            part = value.flatten()[self.rank * size : (self.rank + 1) * size]
            safe_set_local_optimizer_state(parameter, F.pad(part, (0, size - len(part))).to(self.device), moment)

    def _link_moments(self) -> None:
        """DeepSpeed ties parameters to their moments after the first group's first step, when the other groups have none yet."""
        if self.stage in (1, 2):
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def release(self) -> None:
        """Give the module's parameters memory of their own again: ZeRO makes them views of one buffer, ZeRO 3 parts of themselves.

        What was compiled for training is itself again.
        """
        for layer in self.compiled:
            del layer.forward
        if self.stage < 3:
            for parameter in self.parameters.values():
                parameter.data = parameter.data.clone()
            return
        self._zero.destroy()  # its hooks would part them again
        for layer in self.module.modules():
            layer._parameters = {name: self._own(value) for name, value in layer._parameters.items()}

    def _own(self, parted: nn.Parameter | None) -> nn.Parameter | None:
        if parted is None:
            return None
        with self._whole(parted):
            return nn.Parameter(parted.detach().clone(), parted.requires_grad)

    def from_first(self, value: Any) -> Any:
        """The first worker's value, on every worker; they wait for it."""
        if not self.distributed:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]


class _Gathered(torch.autograd.Function):
    """What all workers have, whose gradient is the same on all of them: a worker's own part of it, times the workers."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, rows: torch.Tensor, most: int) -> torch.Tensor:
        rank, world = workers()
        ctx.save_for_backward(rows)
        ctx.first, ctx.length, ctx.whole = rank * most, len(part), world * most
        padded = F.pad(part, (0, 0, 0, most - len(part)))
        whole = part.new_empty(world * most, part.shape[1])
        dist.all_gather_into_tensor(whole, padded)
        return whole[rows]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        whole = gradient.new_zeros(ctx.whole, gradient.shape[1]).index_copy(0, rows, gradient)
        return whole[ctx.first : ctx.first + ctx.length] * dist.get_world_size(), None, None


def gathered(part: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The vectors that all workers have, [texts, H]. Differentiable.

    Right only where every worker goes on to compute the same scalar from it, see the contract above.

    Args:
        part: This worker's vectors, [texts of it, H]; no worker has more than the others but for one.
        rows: int64 [texts]: where each text's vector is among those of all workers, see `chunks.gathered_rows`.
    """
    world = workers()[1]
    return _Gathered.apply(part, rows, -(-len(rows) // world)) if world > 1 else part[rows]


def workers() -> tuple[int, int]:
    """Rank and number of workers; 0 and 1 outside a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def device_of(rank: int) -> torch.device:
    """The worker's accelerator, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device() if torch.cuda.device_count() == 1 else rank % torch.cuda.device_count())


def compile_layers(module: nn.Module) -> list[nn.Module]:
    """Compile each layer of a transformer by itself, for all shapes at once: they share the code, and chunks are of many shapes."""
    transformers = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    stacks = (stack for transformer in transformers for stack in transformer.modules() if isinstance(stack, nn.ModuleList))
    layers = [layer for stack in dict.fromkeys(stacks) for layer in stack]
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)  # of the instance alone: its class and its state stay as they are
    return layers


def decaying(parameters: Mapping[str, nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and layer norms do not. Of adapters alone there is no such group, and DeepSpeed takes none that is empty."""
    wide = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    flat = [parameter for parameter in parameters.values() if parameter.ndim <= 1]
    return [{"params": group, "weight_decay": rate} for group, rate in ((wide, decay), (flat, 0.0)) if group]


ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""What a training process is to have in its environment when it starts, for `keep_freed_memory` not to cost memory.

torch's blocks are aligned, and the C library cuts what stands out off their ends. Where those crumbs stay with small objects (a
thread's cache of them, fast bins), a freed block has lost its ends and fits no block of its own size again, so each recomputed chunk took
fresh memory: gigabytes in a step of many chunks (docs/performance.md).
"""


def keep_freed_memory() -> None:
    """Let the C library keep freed pages: a step frees and takes the same large blocks, and fresh pages cost the kernel time.

    A tenth of a CPU step or more. Nothing happens where the C library has no `mallopt`. See ALLOCATOR.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    mallopt(1, 0)  # M_MXFAST: no fast bins
