"""What the model computes in, and whether a device is made for it."""

import torch
from satpipe.sat.errors import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_for(precision: str, device: torch.device) -> torch.dtype:
    """Return what a model on `device` is to compute in.

    Raises:
        ConfigError: There is no such precision, or the device computes in it only by detours that take more time than
            float32 does.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"there is no precision '{precision}'; there are {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("--precision fp16 is for GPUs; on a processor --precision bf16 is the fast one")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"{name} does not compute in bf16; --precision fp16 will do")
    return PRECISIONS[precision]


def processor_has_bf16() -> bool:
    """Whether this machine's processor multiplies in bf16; any other can, and takes longer than for fp32."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("architecture") == "x86_64":
        return bool(capabilities.get("avx512_bf16"))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
