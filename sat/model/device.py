"""The device of a model, by name."""

import torch
from satpipe.sat.errors import ConfigError


def device_named(name: str) -> torch.device:
    """Return the device called cpu or cuda, or for auto the GPU that this process sees, else the processor.

    Raises:
        ConfigError: The name is cuda, but this process sees no GPU.
    """
    there = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("device=cuda, but the worker has no GPU: use device=auto or device=cpu")
    return torch.device("cuda" if there else "cpu")
