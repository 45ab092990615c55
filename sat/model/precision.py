"""The number formats a model can compute in, and which devices support them."""

from contextlib import suppress

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


def supported(device: torch.device) -> list[str]:
    """Return the precisions that a device supports; some processors support bf16 but are slower in it than in fp32."""
    found = []
    for precision in PRECISIONS:
        with suppress(ConfigError):
            dtype_for(precision, device)
            found.append(precision)
    return found
