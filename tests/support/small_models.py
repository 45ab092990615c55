"""Models of three blocks, one for each kind of configuration, with weights made by rule."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from helpers import model_by_rule
from satpipe.sat.model.config import ModelConfig, get_config, own_config
from satpipe.sat.model.network import SAT, Memory
from satpipe.sat.taggers.efficientat import Network
from satpipe.sat.weights.published import save
from torch import Tensor

TINY = replace(
    get_config("SAT_T_2s"),
    name="tiny",
    width=24,
    heads=2,
    depth=3,
    chunk_frames=32,
    memory_tokens=8,
    time_positions=4,
    script_chunk_s=1,
)
TWO_SECONDS = own_config(streaming=True, width=24, heads=2, depth=3)
CLASS_TOKEN = replace(TINY, name="tiny with a class token", class_token=True)
LONG_MEMORY = replace(CLASS_TOKEN, name="tiny with a memory of two chunks", memory_tokens=16, time_positions=8)
FULL_CONTEXT = replace(TINY, name="tiny without memory", memory_tokens=0, time_positions=2)
MEMORY_OFF = replace(CLASS_TOKEN.without_memory(), name="tiny with its memory off")
SHORT_DELAY = replace(FULL_CONTEXT, name="tiny with a short delay", time_positions=6).with_delay(0.4)
SMALL = [TINY, CLASS_TOKEN, LONG_MEMORY, FULL_CONTEXT, MEMORY_OFF, SHORT_DELAY]
STREAMING = [config for config in SMALL if config.streaming]
WIDE = [  # three blocks of the published models
    replace(get_config(name), depth=3) for name in ("SAT_T_2s", "SAT_S_2s", "SAT_S_1s", "audiotransformer_tiny")
]


@cache
def model_of(config: ModelConfig) -> SAT:
    """Return the model of a configuration; tests share it."""
    return model_by_rule(config)


def write_small_model(path: Path) -> Path:
    """Write the checkpoint of a model that reads chunks of 2 s."""
    save(model_of(TWO_SECONDS), path)
    return path


def efficientat_state(width: float = 0.1) -> dict[str, Tensor]:
    """Return random weights of an EfficientAT in the published layout, with scores that are not close to 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    state = Network(width).state_dict()
    for name, tensor in state.items():
        random = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            state[name] = 1.2 * random / tensor[0].numel() ** 0.5
        elif name.endswith((".1.weight", "running_var")):
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        elif tensor.is_floating_point():
            state[name] = 0.1 * random
    return state


class CountingSAT(SAT):
    """Counts how many chunks each call receives."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.batches: list[int] = []

    def embeddings(self, log_mel: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        self.batches.append(len(log_mel))
        return super().embeddings(log_mel, memory)
