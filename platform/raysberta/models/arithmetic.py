"""Where products in bf16 pay."""

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes products in bf16 itself. One that does not gets float32, which is more exact, and faster there: a processor
    with AVX2 alone takes seven times as long for the same product in bf16 (docs/performance.md).

    Args:
        device: Where a model runs.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
