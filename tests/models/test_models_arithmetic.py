"""What a device computes in, against how long products take on it."""

import time

import torch

from raysberta.models.arithmetic import has_bf16


def seconds(dtype: torch.dtype) -> float:
    """The fastest of three layers of an encoder's size."""
    states, weights, found = torch.randn(1024, 384).to(dtype), torch.randn(384, 1536).to(dtype), []
    with torch.inference_mode():
        for _ in range(4):
            begun = time.perf_counter()
            states @ weights
            found.append(time.perf_counter() - begun)
    return min(found[1:])


def test_a_processor_that_is_said_to_have_no_bf16_is_slower_in_it() -> None:
    """The other way round is not asked: a processor with bf16 may be shared with others, and its product is a short one."""
    if not has_bf16(torch.device("cpu")):
        assert seconds(torch.bfloat16) > seconds(torch.float32)


def test_it_is_asked_of_the_device() -> None:
    assert has_bf16(torch.device("cpu")) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert not has_bf16(torch.device("meta"))
