"""Arguments of vLLM by what it finds and what it is given."""

import pytest
import ray

from raysberta.synthesis import stage
from raysberta.synthesis.settings import LlmPairs
from raysberta.synthesis.vllm import Found, engine_environment, engine_settings, place
from raysberta.work import Workers

SETTINGS = LlmPairs.model_validate({"kind": "llm", "by": "writer", "max_model_length": 384, "batch_size": 8})
CPU, GPU = Found("0.32.0", "cpu"), Found("0.33.0", "gpu")


def test_a_gpu_gets_no_setting_of_a_processor():
    workers = Workers(cpus=4.0, gpus=2.0)
    assert engine_settings(SETTINGS, GPU, workers) == {"max_model_len": 384, "tensor_parallel_size": 2}
    assert not any(name.startswith(("VLLM_CPU", "OMP")) for name in engine_environment(GPU, workers))
    assert place(workers) == {"bundles": [{"CPU": 2.0, "GPU": 1.0}] * 2, "strategy": "STRICT_PACK"}, "a process for each GPU, on one node"


@pytest.mark.parametrize(("cpus", "gpus"), [(1.0, 0.0), (3.0, 0.0), (1.0, 1.0)])
def test_a_processor_gets_the_cores_that_were_granted_whatever_the_recipe_says_of_gpus(cpus: float, gpus: float):
    workers = Workers(cpus=cpus, gpus=gpus)
    environment = engine_environment(CPU, workers)
    assert environment["OMP_NUM_THREADS"] == str(int(cpus))
    assert ("VLLM_ENABLE_V1_MULTIPROCESSING" in environment) == (cpus == 1)
    settings = engine_settings(SETTINGS, CPU, workers)
    assert (settings["max_num_seqs"], settings["max_num_batched_tokens"]) == (16, 4096)
    assert settings["dtype"] == "bfloat16" and engine_settings(SETTINGS, Found("0.32.0", "cpu", bf16=False), workers)["dtype"] == "float32"
    assert settings["enable_chunked_prefill"] is False and "tensor_parallel_size" not in settings
    assert place(workers)["bundles"] == [{"CPU": cpus, **({"GPU": gpus} if gpus else {})}]


@pytest.mark.usefixtures("ray_local")
def test_what_is_here_is_found():
    found = ray.get(ray.remote(stage._look).remote())
    assert (found.device, found.problem) == ("cpu", "") and found.version.count(".") == 2
