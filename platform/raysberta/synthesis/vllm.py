"""How vLLM is started: its arguments and environment, by the cores and GPUs that it is given."""

from typing import Any

import torch

from raysberta.models.arithmetic import has_bf16
from raysberta.synthesis.settings import LlmPairs
from raysberta.work import Workers


def engine_settings(settings: LlmPairs, workers: Workers) -> dict[str, Any]:
    """vLLM's arguments. Off a GPU prompts are never split: a split one rewinds its seeded generator, which CPU generators cannot."""
    if workers.gpus:
        return {"max_model_len": settings.max_model_length, "tensor_parallel_size": max(1, int(workers.gpus))}
    return {
        "dtype": "bfloat16" if has_bf16(torch.device("cpu")) else "float32",
        "max_model_len": settings.max_model_length,
        "enforce_eager": True,
        "enable_prefix_caching": True,  # the examples are the same in every prompt
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(4096, settings.max_model_length),
        "max_num_seqs": 2 * settings.batch_size,
    }


def engine_environment(workers: Workers) -> dict[str, str]:
    """Off a GPU: its cores and no more, bound to none of them, so that the system can share them with what else runs."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
    if workers.gpus:
        return quiet
    threads = str(max(1, int(workers.cpus)))
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if threads == "1" else {}
    return {**quiet, **one_process, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": threads}


def bundle(workers: Workers) -> dict[str, float]:
    """What Ray sets aside for one engine."""
    return {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}
