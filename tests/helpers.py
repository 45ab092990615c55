"""What several test modules need: the outputs of the published implementation, models by rule, sounds."""

import json
import zlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sat.checkpoint import from_published
from sat.config import SAMPLE_RATE_HZ, ModelConfig, get_config
from sat.model import SAT
from sat.stream import Cut, StreamingTagger

PARITY = Path(__file__).parent / "parity"
PARITY_SEED = 1000


@cache
def parity_waveform() -> Tensor:
    """The input of the published implementation: 21.7 s at 16 kHz, half a second of digital silence from 5.0 s."""
    return torch.from_numpy(np.load(PARITY / "waveform_16k.npy"))


@cache
def parity_outputs(name: str) -> dict[str, Tensor]:
    """What the published implementation made of that input."""
    with np.load(PARITY / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def parity_tensors(name: str) -> dict[str, Tensor]:
    """The weights it had, under the published names: drawn by rule, each tensor from its own name."""
    shapes = json.loads((PARITY / f"{name}.shapes.json").read_text(encoding="utf-8"))
    return {tensor: _drawn_by_rule(tensor, tuple(shape)) for tensor, shape in shapes.items()}


def _drawn_by_rule(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + PARITY_SEED))
    z = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    if name.endswith("running_mean"):
        return -20 + 5 * z
    if name.endswith("running_var"):
        return 200 * (1 + 0.1 * z.abs())
    if name.endswith(".weight"):
        return 1 + 0.1 * z if len(shape) == 1 else z / shape[1:].numel() ** 0.5 if False else z
    return 0.1 * z
