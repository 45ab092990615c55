"""Checks of a training run, in seconds: its data, and on a worker its packages, memory and one step."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import torch
from satpipe.jobs.train.batches import augmented, make_feed
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.group import Group
from satpipe.jobs.train.learner import make_optimizer
from satpipe.jobs.train.objective import Objective
from satpipe.pipeline.training_data.shards import Shards
from satpipe.pipeline.training_data.teachers import Segments, load_teacher
from satpipe.sat.errors import ConfigError, TrainingError
from satpipe.sat.model.cpu import threads
from satpipe.sat.model.device import device_named
from satpipe.sat.printable import counted
from satpipe.sat.weights.registry import load_checkpoint
from torch import Tensor, nn

CLIPS = 2  # in the step that is tried; its memory per clip stands for that of a whole step


@dataclass(frozen=True)
class Preflight:
    """Needs of a run, measured with one step of a few clips."""

    device: str
    memory_bytes: int
    """Needed by the largest step of a worker: weights, gradients, state of the optimiser, activations."""
    available_bytes: int
    """Memory that is free on that device now."""
    checkpoint_bytes: int
    """Size of a checkpoint."""
    clip_s: float
    """Seconds per clip, forward and backward; a whole step needs less per clip."""


def check_inputs(settings: TrainConfig) -> None:
    """Check that data, labels and weights exist and belong together.

    Raises:
        ConfigError: They do not exist, or do not match.
        CheckpointError: Weights cannot be read.
    """
    shards = Shards(settings.data)
    if settings.labels:
        Segments(settings.labels, shards)
    if settings.validation:
        others = Shards(settings.validation)
        if settings.validation_labels:
            Segments(settings.validation_labels, others)
        shared = int((shards.clips.places(others.clips) >= 0).sum())
        if shared and settings.validation != settings.data:
            raise ConfigError(f"{settings.data} and {settings.validation} share {counted(shared, 'clip')}")
    if settings.init:
        load_checkpoint(settings.init)
    if settings.teacher:
        load_teacher(settings.teacher)


def try_step(given: dict[str, Any]) -> Preflight:
    """Run one step of a few clips, on a worker.

    Args:
        given: The settings of the run.

    Raises:
        ConfigError: There are fewer examples than one batch, or the device is missing.
        TrainingError: A package is missing, or the loss is not finite.
    """
    settings = TrainConfig(**given)
    device = device_named(settings.device)
    with threads(settings.threads, flush_denormal=True):
        return _measured(settings, device)


def _measured(settings: TrainConfig, device: torch.device) -> Preflight:
    clips = min(CLIPS, settings.step_batch)
    few = {"batch": clips, "clips_per_epoch": clips, "workers": 1, "accumulate": 1, "reuse": 1}
    objective = Objective(settings).to(device).train()
    optimizer = make_optimizer(settings, objective)
    batch = next(iter(make_feed(settings.model_copy(update=few), Group(device=device)).epoch(0)))
    rng = np.random.default_rng(settings.seed)
    inputs, labels = augmented(settings, batch, rng, device)
    weights = {each.untyped_storage().data_ptr() for each in [*objective.parameters(), *objective.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    begun = perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = objective(inputs, labels, rng)
    loss.backward()
    optimizer.step()
    seconds = perf_counter() - begun
    if not bool(torch.isfinite(loss)):
        raise TrainingError(f"the loss of the first step is {loss.item()}; check the weights of init, and lower lr")
    state = sum(_bytes(value) for values in optimizer.state.values() for value in values.values())
    size = sum(map(_bytes, objective.parameters()))
    average = size if settings.ema else 0
    return Preflight(
        str(device.type),
        memory_bytes=2 * size + average + state + sum(kept.values()) * settings.step_batch // clips,
        available_bytes=torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available,
        checkpoint_bytes=size + average + state,
        clip_s=seconds / clips,
    )


def judge(settings: TrainConfig, found: Preflight, out: Path) -> str:
    """Return a line that describes the run.

    Raises:
        ConfigError: A step needs more memory than there is, or the checkpoints more than the disk has.
    """
    workers = 1 if found.device == "cuda" else settings.workers  # that share the memory
    needed, available = found.memory_bytes * workers, found.available_bytes
    if needed > available:
        raise ConfigError(
            f"a step of {settings.step_batch} clips needs about {_gb(needed)} of memory, but {_gb(available)} are "
            "free: for the same result with less memory, raise accumulate"
        )
    kept = found.checkpoint_bytes * (settings.average_best + 1)
    free = shutil.disk_usage(out).free
    if kept > free:
        raise ConfigError(f"the checkpoints need about {_gb(kept)}, but {out} has {_gb(free)} of free disk space")
    parts = f" in {settings.accumulate} parts" if settings.accumulate > 1 else ""
    several = "s" if settings.workers > 1 else ""
    return (
        f"batch {settings.batch}{parts} on {settings.workers} worker{several} ({found.device}), learning rate "
        f"{settings.lr:g}; a step needs about {_gb(needed)} of {_gb(available)} free memory"
    )


def _bytes(value: object) -> int:
    return value.untyped_storage().nbytes() if isinstance(value, Tensor | nn.Parameter) else 0


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
