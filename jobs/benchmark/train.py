"""`satpipe benchmark train`: speed of a training step of each stage, and the memory of the largest, as JSON.

Speed is in samples per CPU second, and is compared with a plain loop over the two chunks. One thread, bfloat16; the CPU
time is that of whole steps (forward, backward and update) on precomputed log-mel values: the minimum of several rounds,
in which the steps take turns.
"""

from collections.abc import Callable
from importlib.util import find_spec
from time import process_time
from typing import Any

import numpy as np
import torch
from satpipe.jobs.benchmark.common import Say, dated, in_turns
from satpipe.jobs.train.config import load_config
from satpipe.jobs.train.objective import Objective
from satpipe.sat.errors import ConfigError, install
from satpipe.sat.model.config import CLASSES
from satpipe.sat.model.cpu import threads
from satpipe.sat.training.forward import sequence_loss
from satpipe.sat.training.parameters import parameter_groups
from torch import Tensor

ROUNDS, BATCH = 5, 24
NO_DATA = (
    "data=none",
    "labels=none",
    "average_best=1",
)  # keys that a configuration must have; the folders are not read here
Step = Callable[[], None]


def benchmark(say: Say) -> dict[str, Any]:
    """Measure, and return the figures.

    Args:
        say: Called with the name of each measurement before it starts.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"memory is measured with 8-bit Adam, which needs bitsandbytes; {install('train')}")
    with threads(1, flush_denormal=True):  # as in a training worker
        say("a step of each stage")
        speeds = _speeds()
        say("the memory of a step of SAT_B_2s")
        return dated({"samples_per_cpu_s": speeds, "peak_bytes": _peak_bytes()})


def _step(stage: str, config: str, *, plain: bool = False) -> Step:
    """Return a training step of a configuration, as in `satpipe train`; or `plain`, with a loop over the chunks."""
    settings = load_config(stage, config, NO_DATA)
    objective = Objective(settings)
    optimizer = torch.optim.AdamW(parameter_groups(objective, settings.weight_decay), lr=1e-4, fused=True)
    frames = 2 * objective.tagger.config.chunk_frames if stage == "sat" else 1000
    log_mel, labels = torch.randn(BATCH, 64, frames) * 10 - 40, torch.rand(BATCH, CLASSES)

    def plain_loss() -> Tensor:
        first, second = log_mel.chunk(2, -1)
        with torch.autocast("cpu", torch.bfloat16):
            logits, memory = objective.tagger.logits(first)
            later, _ = objective.tagger.logits(second, memory)
        return sequence_loss(torch.stack([logits, later], 1).float(), labels)

    def step() -> None:
        loss = plain_loss() if plain else objective(log_mel, labels, np.random.default_rng(0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in objective.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _speeds() -> dict[str, float]:
    """Return samples per CPU second: clips of 10 s for mae and full, crops of 4 s for sat and the loop."""
    steps = {
        "mae": _step("mae", "mae_tiny"),
        "full": _step("full", "full_tiny"),
        "sat": _step("sat", "sat_tiny_2s"),
        "plain loop": _step("sat", "sat_tiny_2s", plain=True),
    }
    return {name: BATCH / min(seconds) for name, seconds in in_turns(steps, ROUNDS, process_time).items()}


def _peak_bytes() -> int:
    """Return the peak memory from the creation of SAT_B_2s to the end of its second step: batch 32, 8-bit Adam."""
    from bitsandbytes.optim.adamw import AdamW8bit

    settings = load_config("sat", "sat_base_2s", NO_DATA)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        objective = Objective(settings)
        optimizer = AdamW8bit(parameter_groups(objective, settings.weight_decay), lr=1e-5)
        frames = 2 * objective.tagger.config.chunk_frames
        log_mel, labels = torch.randn(settings.batch, 64, frames), torch.rand(settings.batch, CLASSES)
        for _ in range(2):
            objective(log_mel, labels, np.random.default_rng(0)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
