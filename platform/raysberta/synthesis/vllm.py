"""How vLLM is started: its arguments, environment and place, by what it finds there and the cores and GPUs that it is given."""

from dataclasses import dataclass
from typing import Any, Literal

from raysberta.storage.artifacts import Artifact
from raysberta.synthesis.settings import LlmPairs
from raysberta.work import Workers


@dataclass(frozen=True)
class Found:
    """What is there for an engine, where the stage's workers run."""

    version: str
    """vLLM's."""
    device: Literal["cpu", "gpu"]
    """What the installed vLLM computes on, and has there."""
    bf16: bool = True
    problem: str = ""
    """Why vLLM cannot run there, in one line; "" where it can."""


def engine_settings(settings: LlmPairs, found: Found, workers: Workers) -> dict[str, Any]:
    """vLLM's arguments. Off a GPU prompts are never split: a split one rewinds its seeded generator, which CPU generators cannot."""
    if found.device == "gpu":
        return {"max_model_len": settings.max_model_length, "tensor_parallel_size": max(1, int(workers.gpus))}
    return {
        "dtype": "bfloat16" if found.bf16 else "float32",
        "max_model_len": settings.max_model_length,
        "enforce_eager": True,
        "enable_prefix_caching": True,  # the examples are the same in every prompt
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(4096, settings.max_model_length),
        "max_num_seqs": 2 * settings.batch_size,
    }


def engine_environment(found: Found, workers: Workers) -> dict[str, str]:
    """Off a GPU: its cores and no more, bound to none of them, so that the system can share them with what else runs."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
    if found.device == "gpu":
        return quiet
    threads = str(max(1, int(workers.cpus)))
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if threads == "1" else {}
    return {**quiet, **one_process, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": threads}


def place(workers: Workers) -> dict[str, Any]:
    """What Ray sets aside for one engine, all on one node: a bundle for each whole GPU, since each has a process of its own."""
    parts = max(1, int(workers.gpus))
    bundle = {"CPU": workers.cpus / parts, **({"GPU": workers.gpus / parts} if workers.gpus else {})}
    return {"bundles": [bundle] * parts, "strategy": "STRICT_PACK"}


def with_own_model(engine: type) -> type:
    """Ray's class of an engine, which opens a path, as one that is given an artifact and fetches it to the node that it starts on."""

    class WithOwnModel(engine):  # type: ignore[misc]
        def __init__(self, *given: Any, model: Artifact, **named: Any) -> None:
            super().__init__(*given, model=str(model.folder("model")), **named)

    return WithOwnModel
