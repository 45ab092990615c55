"""Samples a second and processor of a training step of each stage, beside a plain loop over the two chunks.

`python tests/benchmark_training.py` prints JSON. One thread, bfloat16, processor time of whole steps (forward, backward
and update) on log-mel values that are there already; the least of several rounds, in which all take turns. With
`--memory`: the most that PyTorch's allocator holds in a step of SAT_B_2s, batch 32, 8-bit Adam.
"""

import json
import sys
from collections.abc import Callable
from time import process_time

import numpy as np
import torch
from satpipe.jobs.train.config import load_config
from satpipe.jobs.train.objective import Objective
from satpipe.sat.model.config import CLASSES
from satpipe.sat.training.losses import two_chunk_loss
from satpipe.sat.training.parameters import parameter_groups
from torch import Tensor

ROUNDS, BATCH = 5, 24
NO_DATA = ("data=none", "labels=none")  # what a configuration has to name; nothing of it is read here
Step = Callable[[], None]


def step_of(stage: str, config: str, *, plain: bool = False) -> Step:
    """A training step of a configuration, as `satpipe train` does it; or `plain`, with a loop over the chunks."""
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
        return two_chunk_loss(torch.stack([logits, later], 1).float(), labels)

    def step() -> None:
        loss = plain_loss() if plain else objective(log_mel, labels, np.random.default_rng(0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in objective.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def speeds() -> dict[str, float]:
    """Samples a processor second: clips of 10 s of mae and full, crops of 4 s of sat and of the loop."""
    steps = {
        "mae": step_of("mae", "mae_tiny"),
        "full": step_of("full", "full_tiny"),
        "sat": step_of("sat", "sat_tiny_2s"),
        "plain loop": step_of("sat", "sat_tiny_2s", plain=True),
    }
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(ROUNDS):
        for name, step in steps.items():
            begun = process_time()
            step()
            least[name] = min(least[name], process_time() - begun)
    return {name: BATCH / seconds for name, seconds in least.items()}


def peak_bytes() -> int:
    """The most that the allocator holds from making SAT_B_2s to the end of its second step."""
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
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found = {"peak_bytes": peak_bytes()} if "--memory" in sys.argv else speeds()
    print(json.dumps(found, indent=2))
