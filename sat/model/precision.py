"""The number formats a model can compute in, and which devices support them."""

import torch
from satpipe.sat.errors import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_for(precision: str, device: torch.device) -> torch.dtype:
    """Return the type in which a model on `device` computes.

    Raises:
        ConfigError: The precision is unknown, or the device only emulates it, which is slower than float32.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision must be one of {', '.join(PRECISIONS)}, not '{precision}'")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("--precision fp16 needs a GPU; on a CPU, use --precision bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"{name} does not support bf16; use --precision fp16")
    return PRECISIONS[precision]


def processor_has_bf16() -> bool:
    """Return True if this machine's CPU multiplies in bf16; other CPUs emulate it and are slower than in fp32."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("architecture") == "x86_64":
        return bool(capabilities.get("avx512_bf16"))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
