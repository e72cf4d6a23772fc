"""Arguments of vLLM by what it is given."""

import pytest

from raysberta.synthesis.settings import LlmPairs
from raysberta.synthesis.vllm import bundle, engine_environment, engine_settings
from raysberta.work import Workers

SETTINGS = LlmPairs.model_validate({"kind": "llm", "by": "writer", "max_model_length": 384, "batch_size": 8})


def test_a_gpu_gets_no_setting_of_a_processor():
    workers = Workers(cpus=4.0, gpus=2.0)
    assert engine_settings(SETTINGS, workers) == {"max_model_len": 384, "tensor_parallel_size": 2}
    assert not any(name.startswith(("VLLM_CPU", "OMP")) for name in engine_environment(workers))
    assert bundle(workers) == {"CPU": 4.0, "GPU": 2.0}


@pytest.mark.parametrize("cpus", [1.0, 3.0])
def test_a_processor_gets_the_cores_that_were_granted(cpus: float):
    workers = Workers(cpus=cpus)
    environment = engine_environment(workers)
    assert environment["OMP_NUM_THREADS"] == str(int(cpus))
    assert ("VLLM_ENABLE_V1_MULTIPROCESSING" in environment) == (cpus == 1)
    settings = engine_settings(SETTINGS, workers)
    assert (settings["max_num_seqs"], settings["max_num_batched_tokens"]) == (16, 4096)
    assert settings["enable_chunked_prefill"] is False
    assert bundle(workers) == {"CPU": cpus}
